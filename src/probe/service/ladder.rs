//! The paths to a Service: its name, its ClusterIP, an endpoint on this node and one on another. Where they part is the broken part.

use super::attempt;
use super::backends::SliceText;
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

/// Where the paths part, from facts that are known: `dns`, `kube-proxy`, `cni` or `pod`; empty if nowhere. A pod that does not
/// answer from another node may be out of reach or out of order, and what refuses at the pod may be a policy: that is not decided
/// here.
pub(super) fn parts_at(facts: &Facts) -> Option<&'static str> {
    let word = |path: &str| facts.get(path).and_then(|v| v.as_str());
    let (connect, direct) = (word("connect")?, word("direct")?);
    let (same, other) = (word("same_node").unwrap_or(""), word("other_node").unwrap_or(""));
    match (connect, direct) {
        ("ok", _) if word("by_name").is_some_and(|rcode| rcode != "NOERROR") => Some("dns"),
        ("ok", _) => Some(""),
        (_, "ok") if same == "ok" && !matches!(other, "" | "ok") => Some("cni"),
        (_, "ok") => Some("kube-proxy"),
        (_, "ECONNREFUSED") => Some("pod"),
        _ if same == "ok" && other != "ok" => Some("cni"),
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
}
