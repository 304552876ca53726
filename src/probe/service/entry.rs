//! A Service's ways in: its traffic policies, and the node ports of other nodes.

use super::attempt;
use super::backends::SliceText;
use crate::check::{Facts, clean};
use crate::def::inventory::Declared;
use crate::probe::Context;
use crate::probe::icmp::Echo;
use crate::vantage::VantageKind;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What is open on every node.
#[derive(Debug)]
pub(super) struct Entry {
    port: u16,
    /// Kubernetes' names of the nodes with a ready endpoint.
    homes: BTreeSet<String>,
}

/// Records type and policies; returns the entry's node port, if it has one.
pub(super) fn policies(service: &Service, entry: Option<&ServicePort>, facts: &mut Facts) -> Option<u16> {
    let spec = service.spec.clone().unwrap_or_default();
    let text = |value: Option<String>| clean(&value.unwrap_or_default(), 32);
    let port = entry.and_then(|entry| entry.node_port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    facts
        .set("type", text(spec.type_))
        .set("internal_policy", text(spec.internal_traffic_policy))
        .set("external_policy", text(spec.external_traffic_policy))
        .set("node_port", port.unwrap_or(0));
    port
}

/// The entry of a node port; `None` for a service without one.
pub(super) fn entry(port: Option<u16>, ready: &BTreeSet<SocketAddrV4>, slices: &[SliceText]) -> Option<Entry> {
    let home = |at: &SocketAddrV4| slices.iter().find_map(|slice| slice.node_of(*at.ip())).map(str::to_owned);
    Some(Entry { port: port?, homes: ready.iter().filter_map(home).collect() })
}

/// Whether an address answers one of two echo requests; without the privilege to send any it does not.
async fn echoes(cx: &Context, to: Ipv4Addr) -> bool {
    match Echo::open(&cx.vantage.net) {
        Ok(echo) => echo.run(to, 2, &[0; 56], cx.deadline).await.received() > 0,
        Err(_) => false,
    }
}

/// Connects to the port on every other node that is declared up; that the node is there is told by its kubelet or by an echo. From a
/// node only: pods are not subject to the policy, and who is outside of the tailnet has no way to these addresses.
pub(super) async fn walk(cx: &Context, entry: Option<Entry>) -> Vec<Value> {
    let entry = entry.filter(|_| cx.vantage.kind == VantageKind::Node);
    let Some(Entry { port, homes }) = entry else { return Vec::new() };
    let others = cx.inventory.nodes.iter().filter(|n| n.state == Declared::Up && cx.vantage.node.as_ref() != Some(&n.name));
    let tried = others.filter_map(|node| Some((node, node.tailscale?))).map(async |(node, address)| {
        let at = |port| Ok(SocketAddrV4::new(address, port));
        let word = async |port| attempt(cx, &at(port)).await.map(|tried| tried.word().to_owned()).unwrap_or_default();
        let kubelet = async {
            match cx.inventory.cluster.kubelet_port {
                Some(kubelet) => matches!(word(kubelet).await.as_str(), "ok" | "ECONNREFUSED"),
                None => false,
            }
        };
        let (word, kubelet, echoes) = futures::join!(word(port), kubelet, echoes(cx, address));
        json!({"node": node.name, "address": format!("{address}:{port}"), "word": word,
            "has_endpoint": homes.contains(&node.kube_name), "node_answers": kubelet || echoes})
    });
    join_all(tried).await
}
