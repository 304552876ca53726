//! What kube-proxy and flannel's masquerading would program on a node, in nftables.

use super::cluster::ServiceRule;
use super::nft::{Batch, Hook, Rule};
use super::wire::Wire;
use crate::def::Inventory;
use crate::def::inventory::Protocol;
use anyhow::Result;
use ipnet::Ipv4Net;

/// Programs services, and the masquerading rules, in one transaction.
pub(super) fn program(wire: &Wire, services: &[ServiceRule], inv: &Inventory, exit_node: bool) -> Result<()> {
    let mut batch = Batch::replace("kube-proxy")
        .fresh()
        .chain("services-pre", "nat", Hook::Prerouting, -100)
        .chain("services-out", "nat", Hook::Output, -100)
        .chain("reject-in", "filter", Hook::Input, 0)
        .chain("reject-forward", "filter", Hook::Forward, 0)
        .chain("reject-out", "filter", Hook::Output, 0)
        .chain("masquerade", "nat", Hook::Postrouting, 100);
    for service in services {
        let to_service = || {
            let protocol = if service.protocol == Protocol::Udp { 17 } else { 6 };
            Rule::new().to(Ipv4Net::from(service.cluster_ip), true).protocol(protocol).port(service.port)
        };
        batch = match service.endpoints.first() {
            Some(endpoint) => {
                let dnat = to_service().counted().dnat(*endpoint.ip(), endpoint.port());
                let own = Ipv4Net::from(*endpoint.ip());
                // A backend that calls its own service must see an answer from the node, or it would answer itself.
                let hairpin = Rule::new().from(own, true).to(own, true).destination_was_translated().masquerade();
                batch.rule("services-pre", dnat.clone()).rule("services-out", dnat).rule("masquerade", hairpin)
            }
            None => {
                ["reject-in", "reject-forward", "reject-out"].iter().fold(batch, |b, chain| b.rule(chain, to_service().counted().reject()))
            }
        };
    }
    let pods = inv.cluster.pod_cidr;
    // KUBE-MARK-MASQ: a client that is no pod reaches an endpoint under the node's address on the way there.
    batch = batch
        .rule("masquerade", Rule::new().from(pods, false).destination_was_translated().masquerade())
        .rule("masquerade", Rule::new().from(pods, true).to(pods, false).masquerade());
    if !wire.has_sysctl("net/bridge/bridge-nf-call-iptables") {
        // Without br_netfilter the answer of a pod on the same bridge would bypass the translation back.
        batch = batch.rule(
            "masquerade",
            Rule::new().from(pods, true).to(pods, true).destination_was_translated().out_by(&inv.overlay.bridge).masquerade(),
        );
    }
    if exit_node {
        // ts-postrouting on an exit node.
        batch = batch.rule("masquerade", Rule::new().from(inv.tailnet.cidr, true).out_by("eth0").masquerade());
    }
    Ok(batch.commit(&wire.net)?)
}
