//! The paths to a Service: its name, its ClusterIP, an endpoint on this node and one on another, and the first three from another
//! node. Where they part is the broken part.

use super::backends::SliceText;
use super::{NO_ENDPOINT, Target, attempt};
use crate::check::{Facts, Observation};
use crate::probe::Context;
use crate::probe::query::{Transport, ask};
use hickory_resolver::proto::rr::Name;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Ready endpoints of one port by where they are.
#[derive(Debug, Default)]
pub(super) struct Sides {
    /// The first one on the vantage's own node.
    pub(super) same: Option<SocketAddrV4>,
    /// The first one on another node.
    pub(super) other: Option<SocketAddrV4>,
}

/// Sorts endpoints by node; `None` if the vantage is on no node.
pub(super) fn sides(cx: &Context, ready: &BTreeSet<SocketAddrV4>, slices: &[SliceText]) -> Option<Sides> {
    let own = cx.inventory.node(cx.vantage.node.as_deref()?)?.kube_name.as_str();
    let node = |at: &SocketAddrV4| slices.iter().find_map(|slice| slice.node_of(*at.ip()));
    Some(Sides {
        same: ready.iter().find(|at| node(at) == Some(own)).copied(),
        other: ready.iter().find(|at| node(at).is_some_and(|node| node != own)).copied(),
    })
}

/// Connects to an endpoint of each side; one that has been connected to already is not connected to again.
pub(super) async fn walk(cx: &Context, sides: Option<&Sides>, direct: Option<(SocketAddrV4, String)>, seen: &mut Observation) {
    let Some(sides) = sides else {
        for path in ["same_node", "other_node"] {
            seen.facts.unknown(path, "this vantage is on no node");
        }
        return;
    };
    let word = async |to: Option<SocketAddrV4>| match (to, &direct) {
        (None, _) => String::new(),
        (Some(to), Some((at, word))) if to == *at => word.clone(),
        (Some(to), _) => attempt(cx, &Ok(to)).await.map(|tried| tried.word().to_owned()).unwrap_or_default(),
    };
    let (same, other) = futures::future::join(word(sides.same), word(sides.other)).await;
    seen.facts.set("same_node", same).set("other_node", other);
}

/// What the cluster's DNS server says about the Service's full name, asked once.
pub(super) async fn name(cx: &Context, namespace: &str, service: &str) -> (String, Vec<Ipv4Addr>) {
    let text = format!("{service}.{namespace}.svc.{}.", cx.inventory.cluster.domain);
    let Ok(name) = Name::from_ascii(&text) else { return ("not a name".to_owned(), Vec::new()) };
    let server = SocketAddrV4::new(cx.inventory.dns.nameserver, 53);
    let reply = ask(&cx.vantage.net, server, &name, Transport::default(), cx.deadline).await;
    let addresses = reply.addresses.into_iter().filter_map(|a| if let std::net::IpAddr::V4(a) = a { Some(a) } else { None }).collect();
    (reply.rcode, addresses)
}

/// What the witness found: its id, and the words for ClusterIP, endpoint and name.
pub(super) struct Witnessed {
    id: String,
    connect: Option<String>,
    direct: Option<String>,
    by_name: String,
}

/// The same paths from the witness; `None` if there is none.
pub(super) async fn from_witness(cx: &Context, cluster_ip: &Target, direct: &Target, service: (&str, &str)) -> Option<Witnessed> {
    let vantage = cx.witness.clone().filter(|witness| witness.id != cx.vantage.id)?;
    let id = vantage.id.clone();
    let there = &Context { vantage, witness: None, ..cx.clone() };
    let word = async |to: &Target| attempt(there, to).await.map(|tried| tried.word().to_owned());
    let (connect, direct, (by_name, _)) = futures::join!(word(cluster_ip), word(direct), name(there, service.0, service.1));
    Some(Witnessed { id, connect, direct, by_name })
}

/// Records it.
pub(super) fn record(seen: &mut Observation, witnessed: Option<Witnessed>, cluster_ip: &Target, direct: &Target) {
    let Some(Witnessed { id, connect, direct: straight, by_name }) = witnessed else {
        for path in ["witness.id", "witness.connect", "witness.direct", "witness.by_name"] {
            seen.facts.unknown(path, "no other node is at hand");
        }
        return;
    };
    let shown = |word: &Option<String>| word.clone().unwrap_or_else(|| "not tried".to_owned());
    seen.note("witness", format!("from {id}: ClusterIP {}, endpoint {}, name {by_name}", shown(&connect), shown(&straight)));
    seen.facts.set("witness.id", id).set("witness.by_name", by_name);
    for (path, word, target) in [("witness.connect", connect, cluster_ip), ("witness.direct", straight, direct)] {
        match (word, target) {
            (Some(word), _) => _ = seen.facts.set(path, word),
            (None, Err(reason)) if reason == NO_ENDPOINT => _ = seen.facts.set(path, ""),
            (None, Err(reason)) => _ = seen.facts.unknown(path, reason.as_str()),
            (None, Ok(_)) => {}
        }
    }
}

/// Where the paths part, from facts that are known: `dns`, `kube-proxy`, `cni`, `filter` or `pod`; empty if nowhere. A pod that does
/// not answer from another node may be out of reach or out of order, unless a witness reaches it; and what refuses at the pod may be a
/// policy: that is not decided here.
pub(super) fn parts_at(facts: &Facts) -> Option<&'static str> {
    let word = |path: &str| facts.get(path).and_then(|v| v.as_str());
    let (connect, direct) = (word("connect")?, word("direct")?);
    let (same, other) = (word("same_node").unwrap_or(""), word("other_node").unwrap_or(""));
    let witness = word("witness.direct").unwrap_or("");
    match (connect, direct) {
        ("ok", _) if word("by_name").is_some_and(|rcode| rcode != "NOERROR") => Some("dns"),
        ("ok", _) => Some(""),
        (_, "ok") if same == "ok" && !matches!(other, "" | "ok") => Some("cni"),
        (_, "ok") => Some("kube-proxy"),
        (_, "ECONNREFUSED") if witness == "ok" => Some("filter"),
        (_, "ECONNREFUSED") => Some("pod"),
        (_, "") => None,
        _ if same == "ok" && other != "ok" => Some("cni"),
        _ if witness == "ok" => Some("cni"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_paths_part_is_the_broken_part() {
        let at = |connect: &str, direct: &str, same: &str, other: &str, name: &str| {
            let mut facts = Facts::new();
            facts.set("connect", connect).set("direct", direct).set("same_node", same).set("other_node", other).set("by_name", name);
            parts_at(&facts)
        };
        assert_eq!(at("ok", "ok", "ok", "", "NOERROR"), Some(""));
        assert_eq!(at("ok", "ok", "ok", "", "SERVFAIL"), Some("dns"));
        assert_eq!(at("TIMEOUT", "ok", "", "ok", "NOERROR"), Some("kube-proxy"));
        assert_eq!(at("TIMEOUT", "ok", "ok", "TIMEOUT", "TIMEOUT"), Some("cni"));
        assert_eq!(at("ECONNREFUSED", "ECONNREFUSED", "", "ECONNREFUSED", "NOERROR"), Some("pod"));
        assert_eq!(at("TIMEOUT", "TIMEOUT", "", "TIMEOUT", "NOERROR"), None);
        assert_eq!(parts_at(&Facts::new()), None);
    }

    #[test]
    fn a_witness_tells_a_pod_out_of_reach_from_one_out_of_order() {
        let at = |connect: &str, direct: &str, witness: &str| {
            let mut facts = Facts::new();
            facts.set("connect", connect).set("direct", direct).set("by_name", "NOERROR").set("witness.direct", witness);
            parts_at(&facts)
        };
        assert_eq!(at("TIMEOUT", "TIMEOUT", "ok"), Some("cni"));
        assert_eq!(at("TIMEOUT", "TIMEOUT", "TIMEOUT"), None);
        assert_eq!(at("ECONNREFUSED", "ECONNREFUSED", "ok"), Some("filter"));
        assert_eq!(at("ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"), Some("pod"));
        assert_eq!(at("ECONNREFUSED", "", ""), None);
        assert_eq!(at("TIMEOUT", "ok", "ok"), Some("kube-proxy"));
    }
}
