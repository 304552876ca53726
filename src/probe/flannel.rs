//! `flannel`: what flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations.

use super::netlink::{Device, Neighbour, Netlink, Route, TABLE_MAIN};
use super::{Context, Kind, Probe, decode, fact, kube};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::timeout;

/// Prefix of the annotations by which flannel's nodes tell each other their addresses.
const ANNOTATION: &str = "flannel.alpha.coreos.com";

/// Longest wait for the Kubernetes API, which is only asked beside the kernel.
const API_PATIENCE: Duration = Duration::from_secs(6);

/// What flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations.
pub(super) static KIND: Kind = Kind {
    name: "flannel",
    root: "flannel",
    about: "What flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations",
    privilege: None,
    args: &[("device", "VXLAN device"), ("peer", "Kubernetes node name of the peer"), ("pod_cidr", "the peer's pod CIDR")],
    facts: &[
        fact("device_present", "bool", "the VXLAN device exists"),
        fact("device_mac", "text", "hardware address of the VXLAN device on this host"),
        fact("route_present", "bool", "table main has exactly this pod CIDR through the device"),
        fact("route_device", "text", "device of the route for this pod CIDR in table main; empty if none"),
        fact("neighbour_present", "bool", "a permanent neighbour entry for the peer's subnet address"),
        fact("neighbour_mac", "text", "its hardware address; empty if none"),
        fact("fdb_present", "bool", "a forwarding entry for that hardware address (or, without a neighbour, for the annotated one)"),
        fact("fdb_destination", "address", "where it sends the outer packets; empty if none"),
        fact("device_routes", "count", "routes through the device, to anywhere"),
        fact("device_neighbours", "count", "permanent neighbours on the device"),
        fact("device_fdb", "count", "forwarding entries with a destination on the device"),
        fact("annotation.mac", "text", "VtepMAC that the peer published"),
        fact("annotation.public_ip", "address", "address that the peer published"),
        fact("annotation.vni", "number", "VNI that the peer published"),
    ],
    decode: decode::<Flannel>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flannel {
    device: String,
    peer: String,
    pod_cidr: Ipv4Net,
}

#[async_trait]
impl Probe for Flannel {
    async fn observe(&self, cx: &Context) -> Observation {
        let (kernel, published) = tokio::join!(Kernel::read(cx, &self.device), self.published(cx));
        match kernel {
            Ok(kernel) => self.compare(&kernel, published),
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn target(&self) -> String {
        format!("{} for {} ({})", self.device, self.peer, self.pod_cidr)
    }
}

impl Flannel {
    async fn published(&self, cx: &Context) -> Result<Published, String> {
        match timeout(cx.time_left(API_PATIENCE), kube::node_annotations(cx, &self.peer)).await {
            Ok(annotations) => Ok(Published::read(&annotations?)),
            Err(_) => Err("the Kubernetes API did not answer in time".to_owned()),
        }
    }

    fn compare(&self, kernel: &Kernel, published: Result<Published, String>) -> Observation {
        let mut seen = Observation::default();
        seen.facts.set("device_present", kernel.device.is_some());
        self.route_facts(&mut seen.facts, kernel);
        annotation_facts(&mut seen.facts, &published, &self.peer);
        match &kernel.device {
            Some(device) => self.device_facts(&mut seen, kernel, device, &published),
            None => {
                let reason = format!("no such device: {}", self.device);
                seen.rest_unknown(&KIND, &reason);
            }
        }
        if let Err(reason) = &published {
            seen.note("error", format!("annotations of {}: {reason}", self.peer));
        }
        seen
    }

    fn route_facts(&self, facts: &mut Facts, kernel: &Kernel) {
        let route = kernel.routes.iter().filter(|r| r.prefix == self.pod_cidr.trunc() && !r.dead).min_by_key(|r| r.metric);
        let device = route.and_then(|r| r.device).and_then(|index| kernel.devices.iter().find(|d| d.index == index));
        facts.set("route_present", device.is_some_and(|d| d.name == self.device));
        facts.set("route_device", device.map_or(String::new(), |d| clean(&d.name, 64)));
    }

    fn device_facts(&self, seen: &mut Observation, kernel: &Kernel, device: &Device, published: &Result<Published, String>) {
        let subnet = self.pod_cidr.network();
        let neighbour = kernel.neighbours.iter().find(|n| n.permanent && n.address == Some(subnet));
        let facts = &mut seen.facts;
        facts.set("device_mac", device.mac.as_str());
        facts.set("neighbour_present", neighbour.is_some()).set("neighbour_mac", neighbour.map_or("", |n| n.mac.as_str()));
        let annotated = published.as_ref().ok().and_then(|p| p.mac.as_deref());
        match neighbour.map(|n| n.mac.as_str()).or(annotated) {
            Some(mac) => {
                let entry = kernel.forwarding.iter().find(|f| f.mac == mac && destination(f).is_some());
                facts.set("fdb_present", entry.is_some());
                facts.set("fdb_destination", entry.and_then(destination).map_or(String::new(), |a| a.to_string()));
            }
            None => {
                let reason = "neither a neighbour entry nor an annotation names the peer's hardware address";
                facts.unknown("fdb_present", reason).unknown("fdb_destination", reason);
            }
        }
        facts.set("device_routes", kernel.routes.iter().filter(|r| r.device == Some(device.index)).count());
        facts.set("device_neighbours", kernel.neighbours.iter().filter(|n| n.permanent).count());
        facts.set("device_fdb", kernel.forwarding.iter().filter(|f| destination(f).is_some()).count());
        for neighbour in kernel.neighbours.iter().filter(|n| n.permanent).take(8) {
            seen.note("neighbour", entry_text(neighbour, "lladdr"));
        }
        for entry in kernel.forwarding.iter().filter(|f| destination(f).is_some()).take(8) {
            seen.note("fdb", entry_text(entry, "for"));
        }
    }
}

/// What the kernel of the vantage has.
struct Kernel {
    devices: Vec<Device>,
    /// The VXLAN device.
    device: Option<Device>,
    /// Table main.
    routes: Vec<Route>,
    /// On the device.
    neighbours: Vec<Neighbour>,
    /// On the device.
    forwarding: Vec<Neighbour>,
}

impl Kernel {
    async fn read(cx: &Context, device: &str) -> Result<Self, String> {
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let devices = netlink.devices().await?;
        let device = devices.iter().find(|d| d.name == device).cloned();
        let routes = netlink.routes(TABLE_MAIN).await?;
        let (neighbours, forwarding) = match &device {
            Some(device) => (netlink.neighbours(device.index).await?, netlink.forwarding(device.index).await?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Self { devices, device, routes, neighbours, forwarding })
    }
}

/// Where a forwarding entry sends the outer packets. The kernel shows an unset destination as 0.0.0.0.
fn destination(entry: &Neighbour) -> Option<Ipv4Addr> {
    entry.address.filter(|a| !a.is_unspecified())
}

fn entry_text(entry: &Neighbour, word: &str) -> String {
    format!("{} {word} {}", entry.address.map_or("?".to_owned(), |a| a.to_string()), entry.mac)
}

/// What the peer's flannel wrote on its Node object.
#[derive(Debug, Default)]
struct Published {
    mac: Option<String>,
    public_ip: Option<Ipv4Addr>,
    vni: Option<u32>,
}

/// The value of `backend-data`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BackendData {
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    mac: Option<String>,
}

impl Published {
    fn read(annotations: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| annotations.get(&format!("{ANNOTATION}/{name}"));
        let data: BackendData = value("backend-data").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Self {
            mac: data.mac.map(|mac| clean(&mac.to_ascii_lowercase(), 32)),
            public_ip: value("public-ip").and_then(|text| text.parse().ok()),
            vni: data.vni,
        }
    }
}

fn annotation_facts(facts: &mut Facts, published: &Result<Published, String>, peer: &str) {
    let missing = format!("{peer} has no such flannel annotation, or it cannot be read");
    let reason = published.as_ref().err().map_or(missing, |e| clean(e, 300));
    let published = published.as_ref().ok();
    facts.set_or_unknown("annotation.mac", published.and_then(|p| p.mac.as_deref()), &reason);
    facts.set_or_unknown("annotation.public_ip", published.and_then(|p| p.public_ip).map(|a| a.to_string()), &reason);
    facts.set_or_unknown("annotation.vni", published.and_then(|p| p.vni), &reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{self, Node, two_nodes};
    use serde_json::{Value, json};

    const PEER: &str = "device = 'flannel.1'\npeer = 'calypso'\npod_cidr = '10.42.2.0/24'";

    async fn facts(node: &Node) -> Value {
        testnet::observe("flannel", PEER, node, None).await.facts.to_json()
    }

    #[test]
    fn annotations_as_flannel_writes_them() {
        let annotation = |name: &str, value: &str| (format!("{ANNOTATION}/{name}"), value.to_owned());
        let read = Published::read(&BTreeMap::from([
            annotation("backend-data", r#"{"VNI":1,"VtepMAC":"6A:7c:8c:df:23:2d"}"#),
            annotation("public-ip", "100.64.0.1"),
        ]));
        assert_eq!((read.mac.as_deref(), read.vni), (Some("6a:7c:8c:df:23:2d"), Some(1)));
        assert_eq!(read.public_ip, Some(Ipv4Addr::new(100, 64, 0, 1)));
        let broken = Published::read(&BTreeMap::from([annotation("backend-data", "null"), annotation("public-ip", "x")]));
        assert!(broken.mac.is_none() && broken.vni.is_none() && broken.public_ip.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_a_healthy_peer_is_complete_and_the_annotated_address_is_compared() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let facts = facts(&nodes.tethys).await;
        assert_eq!((&facts["device_present"], &facts["route_present"]), (&json!(true), &json!(true)));
        assert_eq!((&facts["route_device"], &facts["neighbour_present"]), (&json!("flannel.1"), &json!(true)));
        assert_eq!((&facts["neighbour_mac"], &facts["fdb_present"]), (&json!("02:00:00:00:00:02"), &json!(true)));
        assert_eq!(facts["fdb_destination"], json!("100.83.53.38"));
        assert_eq!((&facts["device_routes"], &facts["device_neighbours"], &facts["device_fdb"]), (&json!(1), &json!(1), &json!(1)));

        let probe = Flannel { device: "flannel.1".to_owned(), peer: "calypso".to_owned(), pod_cidr: "10.42.2.0/24".parse().unwrap() };
        let kernel = Kernel::read(&testnet::context(nodes.tethys.vantage.clone(), None), "flannel.1").await.unwrap();
        let published = Published { mac: Some("6a:7c:8c:df:23:2d".to_owned()), public_ip: Some(testnet::CALYPSO), vni: Some(1) };
        let facts = probe.compare(&kernel, Ok(published)).facts.to_json();
        assert_eq!(facts["annotation"], json!({"mac": "6a:7c:8c:df:23:2d", "public_ip": "100.83.53.38", "vni": 1}));
        let facts = probe.compare(&kernel, Err("refused".to_owned())).facts.to_json();
        assert_eq!(facts["annotation"]["mac"], json!({"unknown": "refused"}));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_each_missing_piece_is_seen_by_itself() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.tethys.forget_forwarding().await;
        let without_fdb = facts(&nodes.tethys).await;
        assert_eq!((&without_fdb["neighbour_present"], &without_fdb["fdb_present"]), (&json!(true), &json!(false)));
        assert_eq!((&without_fdb["fdb_destination"], &without_fdb["device_fdb"]), (&json!(""), &json!(0)));
        nodes.tethys.forget_route().await;
        let without_route = facts(&nodes.tethys).await;
        assert_eq!((&without_route["route_present"], &without_route["route_device"]), (&json!(false), &json!("")));
        nodes.tethys.delete("flannel.1").await;
        let without_device = facts(&nodes.tethys).await;
        assert_eq!((&without_device["device_present"], &without_device["route_present"]), (&json!(false), &json!(false)));
        assert_eq!(without_device["neighbour_present"], json!({"unknown": "no such device: flannel.1"}));
    }
}
