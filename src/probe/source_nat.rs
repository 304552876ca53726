//! `source-nat`: how a node forwards a packet, and what its packet filter makes of the source address.
//!
//! The way is the kernel's own answer. Who translates is found by following the rules for a packet that comes in without a mark;
//! where that depends on what is not known here, it is unknown.

use super::net::errno_word;
use super::netlink::{Device, Netlink, Question, selected};
use super::nft::{DeviceName, Packet, SourceNat as Becomes, Walker, Ways, refused};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use serde::Deserialize;
use std::net::Ipv4Addr;

/// How a node forwards a packet, and what its packet filter makes of the source address.
pub(super) static KIND: Kind = Kind {
    name: "source-nat",
    root: "nat",
    about: "How a node forwards a packet, and what its packet filter makes of the source address",
    privilege: Some("CAP_NET_ADMIN for the packet filter"),
    args: &[
        ("to", "destination address"),
        ("port", "TCP port there"),
        ("from", "source address"),
        ("iif", "device that the packet comes in by"),
    ],
    facts: &[
        fact("device", "text", "outgoing device"),
        fact("table", "number", "routing table that decided it; 254 is main"),
        fact("rule", "text", "ip rule that led to this table, as `ip rule` lists it; unknown where it may be several"),
        fact("translation", "text", "`masquerade`, `snat` or `none`: what becomes of the source address in postrouting"),
        fact("address", "address", "source address with which the packet leaves"),
        fact("chains", "list of text", "chains that translate it, as `nft list chain` takes them; empty if none does"),
    ],
    decode: decode::<SourceNat>,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceNat {
    to: Ipv4Addr,
    port: u16,
    from: Ipv4Addr,
    iif: String,
}

#[async_trait]
impl Probe for SourceNat {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(cx).await.unwrap_or_else(Observation::could_not_look)
    }

    fn target(&self) -> String {
        format!("{} to {}:{}", self.from, self.to, self.port)
    }
}

impl SourceNat {
    async fn look(&self, cx: &Context) -> Result<Observation, String> {
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let devices = netlink.devices().await?;
        let out = self.route(&netlink, &devices).await?;
        let mut seen = out.seen;
        let packet = Packet {
            from: Some(self.from),
            iif: Some(device_name(&self.iif)),
            oif: Some(device_name(&out.device.name)),
            ..Packet::to(self.to, self.port, 6)
        };
        let net = cx.vantage.net.clone();
        let followed = tokio::task::spawn_blocking(move || {
            let mut walker = Walker::read(&net).map_err(|e| refused(&e))?;
            walker.forwarded(packet).map_err(|e| format!("cannot follow the rules for {}:{}: {e}", packet.to, packet.port))
        });
        match followed.await.unwrap_or_else(|_| Err("the reader of nftables ended badly".to_owned())) {
            Ok(ways) => {
                let own = netlink.addresses(out.device.index).await?;
                let own = if let [one] = own.as_slice() { Some(one.addr()) } else { None };
                self.record(&mut seen, &ways, own);
            }
            Err(reason) => ["translation", "address", "chains"].iter().for_each(|path| _ = seen.facts.unknown(path, &reason)),
        }
        Ok(seen)
    }

    async fn route(&self, netlink: &Netlink, devices: &[Device]) -> Result<Out, String> {
        let iif = devices.iter().find(|d| d.name == self.iif).ok_or_else(|| format!("there is no device {}", self.iif))?;
        let question = Question { to: self.to, from: Some(self.from), iif: Some(iif.index), mark: None };
        let answer = netlink.lookup(question).await?;
        let route = answer.map_err(|refusal| format!("the kernel would not forward it: {}", errno_word(&refusal)))?;
        let device = devices.iter().find(|d| Some(d.index) == route.device).ok_or("the kernel would forward it by no device")?.clone();
        let rule = netlink.rules().await.and_then(|rules| selected(&rules, &route, &question, Some(&self.iif)).map(|rule| rule.text()));
        let mut seen = Observation::default();
        let name = clean(&device.name, 64);
        seen.note("netlink", format!("to {} from {} iif {}: dev {name} table {}", self.to, self.from, self.iif, route.table));
        seen.facts.set("device", name).set("table", route.table);
        match rule {
            Ok(rule) => seen.facts.set("rule", rule),
            Err(reason) => seen.facts.unknown("rule", reason),
        };
        Ok(Out { seen, device })
    }

    fn record(&self, seen: &mut Observation, ways: &Ways, own: Option<Ipv4Addr>) {
        let shown: Vec<String> = ways.sources.iter().map(|(to, by)| format!("{to:?} by {}", listed(by))).collect();
        let untouched = if ways.untouched { "may leave as it is; " } else { "" };
        seen.note("rules", format!("{untouched}source translated: {}", if shown.is_empty() { "no".to_owned() } else { shown.join("; ") }));
        match self.becomes(ways, own) {
            Ok(fate) => fate.record(&mut seen.facts, ways),
            Err(reason) => ["translation", "address", "chains"].iter().for_each(|path| _ = seen.facts.unknown(path, reason)),
        }
    }

    /// The one thing that can become of the source.
    fn becomes(&self, ways: &Ways, own: Option<Ipv4Addr>) -> Result<Fate, &'static str> {
        if ways.unread {
            return Err("a rule translates the destination first");
        }
        match (ways.sources.keys().collect::<Vec<_>>().as_slice(), ways.untouched) {
            ([], true) => Ok(Fate { translation: "none", address: Some(self.from) }),
            ([Becomes::Masqueraded], false) => Ok(Fate { translation: "masquerade", address: own }),
            ([Becomes::To(address)], false) => Ok(Fate { translation: "snat", address: Some(*address) }),
            ([Becomes::Unread], false) => Ok(Fate { translation: "snat", address: None }),
            ([], false) => Err("the rules let nothing through"),
            _ => Err("it depends on a mark, or on what else is not known of the packet"),
        }
    }
}

/// The way out, and what is already seen of it.
struct Out {
    seen: Observation,
    device: Device,
}

struct Fate {
    translation: &'static str,
    address: Option<Ipv4Addr>,
}

impl Fate {
    fn record(self, facts: &mut Facts, ways: &Ways) {
        let why = "the rule leaves the choice among several addresses";
        facts.set("translation", self.translation).set_or_unknown("address", self.address.map(|a| a.to_string()), why);
        facts.set("chains", ways.sources.values().flatten().cloned().collect::<Vec<_>>());
    }
}

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn device_name(name: &str) -> DeviceName {
    std::array::from_fn(|n| name.as_bytes().get(n).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{self, two_nodes};
    use crate::twin::nft::{Batch, Hook, Rule};
    use serde_json::json;
    use std::collections::{BTreeMap, BTreeSet};

    const POD: &str = "to = '203.0.113.9'\nport = 443\nfrom = '10.42.2.7'\niif = 'flannel.1'";

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_the_way_out_and_who_translates() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let node = &nodes.tethys;
        let refused = testnet::observe("source-nat", POD, node, None).await;
        assert_eq!(refused.could_not_look.as_deref(), Some("the kernel would not forward it: ENETUNREACH"));
        node.default_route_in_table(52, "tailscale0").await;
        node.rule(5270, None, 52, None).await;
        node.rule(5269, Some("10.42.0.0/16"), 254, None).await;
        let look = async || testnet::observe("source-nat", POD, node, None).await.facts.to_json();
        let bare = look().await;
        assert_eq!(
            (&bare["device"], &bare["table"], &bare["rule"]),
            (&json!("tailscale0"), &json!(52), &json!("5270: from all lookup 52"))
        );
        assert_eq!((&bare["translation"], &bare["address"], &bare["chains"]), (&json!("none"), &json!("10.42.2.7"), &json!([])));
        let pods = "10.42.0.0/16".parse().unwrap();
        let rule = Rule::new().from(pods, true).to(pods, false).masquerade();
        Batch::replace("edge").fresh().chain("out", "nat", Hook::Postrouting, 100).rule("out", rule).commit(&node.vantage.net).unwrap();
        let translated = look().await;
        assert_eq!((&translated["translation"], &translated["chains"]), (&json!("masquerade"), &json!(["ip edge out"])));
        assert_eq!(translated["address"], json!("100.95.51.125"));
        let elsewhere = testnet::observe("source-nat", &POD.replace("flannel.1", "cni9"), node, None).await;
        assert_eq!(elsewhere.could_not_look.as_deref(), Some("there is no device cni9"));
    }

    #[test]
    fn what_may_be_one_thing_or_another_is_unknown() {
        let nat = SourceNat { to: Ipv4Addr::new(203, 0, 113, 9), port: 443, from: Ipv4Addr::new(10, 42, 2, 7), iif: "cni0".to_owned() };
        let facts = |sources: &[Becomes], untouched: bool, unread: bool| {
            let sources = sources.iter().map(|to| (*to, BTreeSet::from(["ip nat out".to_owned()]))).collect::<BTreeMap<_, _>>();
            let mut seen = Observation::default();
            nat.record(&mut seen, &Ways { sources, untouched, unread, ..Ways::default() }, None);
            seen.facts.to_json()
        };
        let to = Becomes::To(Ipv4Addr::new(192, 0, 2, 1));
        let one = facts(&[to], false, false);
        assert_eq!((&one["translation"], &one["address"]), (&json!("snat"), &json!("192.0.2.1")));
        assert_eq!(
            facts(&[Becomes::Masqueraded], false, false)["address"]["unknown"],
            "the rule leaves the choice among several addresses"
        );
        assert_eq!(facts(&[Becomes::Unread], false, false)["translation"], "snat");
        for (sources, untouched, unread) in
            [(&[to][..], true, false), (&[to, Becomes::Masqueraded], false, false), (&[], false, false), (&[], true, true)]
        {
            assert!(facts(sources, untouched, unread)["translation"]["unknown"].is_string(), "{sources:?} {untouched} {unread}");
        }
    }
}
