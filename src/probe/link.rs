//! `link`: a network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included, and its offload features.

mod offload;

use super::netlink::{Device, Netlink};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::Deserialize;

/// A network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included, and its offload features.
pub(super) static KIND: Kind = Kind {
    name: "link",
    root: "link",
    about: "A network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included, and its offload features",
    privilege: None,
    args: &[("name", "device name"), ("other", "a second device to compare the age with (optional)")],
    facts: &[
        fact("present", "bool", "the device exists"),
        fact("up", "bool", "administratively up and lower layer up"),
        fact("index", "number", "interface index; a device made later has a higher one"),
        fact("kind", "text", "`vxlan`, `bridge`, `tun`, `veth`, or empty"),
        fact("mtu", "bytes", "MTU"),
        fact("mac", "text", "hardware address, lower case with colons; empty for TUN"),
        fact("addresses", "list of text", "IPv4 addresses with prefix length"),
        fact("vni", "number", "VXLAN network identifier"),
        fact("port", "number", "VXLAN UDP port"),
        fact("local", "address", "VXLAN source address"),
        fact("learning", "bool", "VXLAN learns addresses from traffic"),
        fact("parent", "text", "device below; empty if none"),
        fact("parent_present", "bool", "that device exists"),
        fact("parent_mtu", "bytes", "its MTU"),
        fact("parent_index", "number", "its interface index"),
        fact("parent_addresses", "list of text", "its IPv4 addresses with prefix length"),
        fact("tx_dropped", "count", "packets dropped on sending since the device exists"),
        fact("offload.tx_checksum", "bool", "the device finishes checksums (tx-checksum-ip-generic)"),
        fact("offload.tx_generic_segmentation", "bool", "segments are cut as late as possible (GSO)"),
        fact("offload.tx_tcp_segmentation", "bool", "the device cuts TCP segments (TSO)"),
        fact("offload.tx_udp_segmentation", "bool", "the device cuts UDP datagrams (tx-udp-segmentation), as tailscaled sends them"),
        fact("offload.rx_gro", "bool", "received segments are put together (GRO)"),
        fact("offload.rx_udp_gro_forwarding", "bool", "datagrams that are forwarded are put together too (rx-udp-gro-forwarding)"),
        fact("other_present", "bool", "the other device exists"),
        fact("other_index", "number", "its interface index"),
        fact("other_mtu", "bytes", "its MTU"),
    ],
    decode: decode::<Link>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    name: String,
    #[serde(default)]
    other: Option<String>,
}

#[async_trait]
impl Probe for Link {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(cx).await.unwrap_or_else(Observation::could_not_look)
    }

    fn target(&self) -> String {
        self.name.clone()
    }
}

impl Link {
    async fn look(&self, cx: &Context) -> Result<Observation, String> {
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let devices = netlink.devices().await?;
        let mut seen = Observation::default();
        match named(&devices, &self.name) {
            Some(device) => {
                let addresses = netlink.addresses(device.index).await?;
                seen.note("netlink", describe(device, &addresses));
                own_facts(&mut seen.facts, device, &addresses);
                offload_facts(&mut seen.facts, offload::read(&cx.vantage.net, &device.name));
                parent_facts(&mut seen.facts, &netlink, &devices, device).await?;
            }
            None => absent(&mut seen.facts, &self.name),
        }
        other_facts(&mut seen.facts, &devices, self.other.as_deref());
        Ok(seen)
    }
}

fn named<'a>(devices: &'a [Device], name: &str) -> Option<&'a Device> {
    devices.iter().find(|d| d.name == name)
}

fn absent(facts: &mut Facts, name: &str) {
    facts.set("present", false);
    let reason = format!("no such device: {name}");
    for doc in KIND.facts.iter().filter(|doc| !doc.path.starts_with("other_")) {
        facts.unknown(doc.path, reason.as_str());
    }
}

fn own_facts(facts: &mut Facts, device: &Device, addresses: &[Ipv4Net]) {
    facts.set("present", true).set("up", device.up).set("index", device.index).set("kind", device.kind.as_str());
    facts.set("mtu", device.mtu).set("mac", device.mac.as_str()).set("addresses", texts(addresses));
    facts.set("tx_dropped", device.stats.tx_dropped);
    let vxlan = device.vxlan.clone().unwrap_or_default();
    let reason = if device.vxlan.is_some() { "the kernel did not say" } else { "not a VXLAN device" };
    facts.set_or_unknown("vni", vxlan.vni, reason).set_or_unknown("port", vxlan.port, reason);
    facts.set_or_unknown("local", vxlan.local.map(|a| a.to_string()), reason).set_or_unknown("learning", vxlan.learning, reason);
}

fn offload_facts(facts: &mut Facts, features: Result<[Option<bool>; 6], String>) {
    for (i, (path, name)) in offload::FEATURES.iter().enumerate() {
        match &features {
            Ok(features) => facts.set_or_unknown(path, features[i], &format!("the kernel has no feature {name}")),
            Err(reason) => facts.unknown(path, reason.as_str()),
        };
    }
}

async fn parent_facts(facts: &mut Facts, netlink: &Netlink, devices: &[Device], device: &Device) -> Result<(), String> {
    let parent = device.parent.and_then(|index| devices.iter().find(|d| d.index == index));
    facts.set("parent", parent.map_or(String::new(), |p| clean(&p.name, 64))).set("parent_present", parent.is_some());
    let reason = "no device below";
    facts.set_or_unknown("parent_mtu", parent.map(|p| p.mtu), reason).set_or_unknown("parent_index", parent.map(|p| p.index), reason);
    match parent {
        Some(parent) => facts.set("parent_addresses", texts(&netlink.addresses(parent.index).await?)),
        None => facts.unknown("parent_addresses", reason),
    };
    Ok(())
}

fn other_facts(facts: &mut Facts, devices: &[Device], other: Option<&str>) {
    let Some(name) = other else {
        for path in ["other_present", "other_index", "other_mtu"] {
            facts.unknown(path, "no other device was asked for");
        }
        return;
    };
    let device = named(devices, name);
    let reason = format!("no such device: {name}");
    facts.set("other_present", device.is_some());
    facts.set_or_unknown("other_index", device.map(|d| d.index), &reason).set_or_unknown("other_mtu", device.map(|d| d.mtu), &reason);
}

fn texts(addresses: &[Ipv4Net]) -> Vec<String> {
    addresses.iter().map(Ipv4Net::to_string).collect()
}

fn describe(device: &Device, addresses: &[Ipv4Net]) -> String {
    let state = if device.up { "up" } else { "down" };
    format!(
        "{} {} kind {} {state} mtu {} mac {} addresses {}",
        device.index,
        device.name,
        device.kind,
        device.mtu,
        device.mac,
        texts(addresses).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_a_vxlan_device_with_its_parent() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let seen = testnet::observe("link", "name = 'flannel.1'\nother = 'tailscale0'", &nodes.tethys, None).await;
        let facts = seen.facts.to_json();
        assert_eq!(facts["present"], true);
        assert_eq!((&facts["up"], &facts["kind"], &facts["mtu"]), (&json!(true), &json!("vxlan"), &json!(1230)));
        assert_eq!((&facts["vni"], &facts["port"], &facts["learning"]), (&json!(1), &json!(8472), &json!(false)));
        assert_eq!((&facts["mac"], &facts["local"]), (&json!("02:00:00:00:00:01"), &json!("100.95.51.125")));
        assert_eq!(facts["addresses"], json!(["10.42.0.0/32"]));
        assert_eq!((&facts["parent"], &facts["parent_present"], &facts["parent_mtu"]), (&json!("tailscale0"), &json!(true), &json!(1280)));
        assert_eq!(facts["parent_addresses"], json!(["100.95.51.125/32"]));
        assert_eq!((&facts["other_present"], &facts["other_index"]), (&json!(true), &facts["parent_index"]));
        assert!(seen.facts.get("index").and_then(|i| i.as_i64()) > seen.facts.get("parent_index").and_then(|i| i.as_i64()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_offload_features_are_those_of_the_device() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let look = async || testnet::observe("link", "name = 'flannel.1'", &nodes.tethys, None).await.facts.to_json()["offload"].clone();
        let before = look().await;
        assert!(before.as_object().unwrap().values().all(serde_json::Value::is_boolean), "{before}");
        assert_eq!((&before["tx_checksum"], &before["rx_udp_gro_forwarding"]), (&json!(true), &json!(false)));
        nodes.tethys.vantage.net.with(|| crate::twin::finish_checksums("flannel.1")).unwrap().unwrap();
        let after = look().await;
        // Without finished checksums a device cuts no TCP segments either (netdev-features.rst).
        assert_eq!(
            (&after["tx_checksum"], &after["tx_tcp_segmentation"], &after["rx_gro"]),
            (&json!(false), &json!(false), &before["rx_gro"])
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_an_absent_device_is_a_fact_and_a_device_that_is_down_is_not_up() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let seen = testnet::observe("link", "name = 'flannel.9'", &nodes.tethys, None).await;
        assert_eq!(seen.could_not_look, None);
        assert_eq!(seen.facts.get("present"), Some(&json!(false)));
        assert_eq!(seen.facts.unknowns()["mtu"], "no such device: flannel.9");
        nodes.tethys.down("flannel.1").await;
        let seen = testnet::observe("link", "name = 'flannel.1'", &nodes.tethys, None).await;
        assert_eq!((seen.facts.get("present"), seen.facts.get("up")), (Some(&json!(true)), Some(&json!(false))));
    }
}
