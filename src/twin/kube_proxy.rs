//! The rules of a node for services: as kube-proxy 1.33 writes them in nftables mode (maps, a chain for each service port and each
//! endpoint), and beside them what flannel and Tailscale masquerade: Tailscale by a mark, as tailscaled's own rules do.

mod node_port;

use super::cluster::ServiceRule;
use super::nft::{Batch, Fate, Hook, Rule, service_key};
use super::wire::Wire;
use crate::def::Inventory;
use crate::def::inventory::{Node, Protocol};
use anyhow::Result;
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The mark of packets that kube-proxy wants masqueraded.
const MASQUERADE: u32 = 0x4000;

/// The bits of the mark that are tailscaled's, and its mark of what came in by its device.
const TAILSCALE: (u32, u32) = (0xff_0000, 0x4_0000);

/// A service as one node sees it.
struct Seen<'a> {
    rule: &'a ServiceRule,
    /// Its endpoints on this node.
    own: Vec<SocketAddrV4>,
}

impl<'a> Seen<'a> {
    fn from(node: &Node, rule: &'a ServiceRule) -> Self {
        let own = rule.endpoints.iter().zip(&rule.homes).filter(|(_, home)| **home == node.kube_name);
        Self { rule, own: own.map(|(endpoint, _)| *endpoint).collect() }
    }

    /// Where its ClusterIP leads.
    fn led(&self) -> &[SocketAddrV4] {
        if self.rule.internal_local { &self.own } else { &self.rule.endpoints }
    }
}

/// Programs services and masquerading: one transaction for each owner.
pub(super) fn program(wire: &Wire, services: &[ServiceRule], inv: &Inventory, node: &Node, exit_node: bool) -> Result<()> {
    let pods = inv.cluster.pod_cidr;
    let batch = bases(Batch::replace("kube-proxy").fresh(), services);
    let services: Vec<Seen> = services.iter().map(|rule| Seen::from(node, rule)).collect();
    let batch = services.iter().zip(1..).fold(batch, |batch, (service, number)| one(batch, service, number, pods));
    let batch = (maps(batch, &services)).rule("services", Rule::new().service_map("service-ips"));
    let batch = batch.rule("service-endpoints-check", Rule::new().service_map("no-endpoint-services"));
    let batch = services.iter().zip(1..).fold(batch, |batch, (service, number)| node_port::open(batch, service, number, node, pods));
    batch
        .rule("cluster-ips-check", Rule::new().to_any_of("cluster-ips").reject())
        .rule("cluster-ips-check", Rule::new().to(inv.cluster.service_cidr, true).drop())
        .commit(&wire.net)?;
    flannel(wire, inv, true)?;
    if exit_node { tailscale(wire, inv) } else { Ok(()) }
}

/// Base chains, the chains they share, and what these do to every service alike.
fn bases(batch: Batch, services: &[ServiceRule]) -> Batch {
    let shared = [
        "services",
        "service-endpoints-check",
        "nodeport-endpoints-check",
        "cluster-ips-check",
        "masquerading",
        "mark-for-masquerade",
        "reject-chain",
    ];
    let batch = shared.iter().fold(batch, |batch, name| batch.inner_chain(name));
    let mut addresses: Vec<Ipv4Addr> = services.iter().map(|s| s.cluster_ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let check = |chain: &str| Rule::new().new_connection().jump(chain);
    batch
        .addresses("cluster-ips", ADDRESSES, &addresses)
        .chain("filter-input", "filter", Hook::Input, 0)
        .chain("filter-forward", "filter", Hook::Forward, 0)
        .chain("filter-output", "filter", Hook::Output, 0)
        .chain("nat-prerouting", "nat", Hook::Prerouting, -100)
        .chain("nat-output", "nat", Hook::Output, -100)
        .chain("nat-postrouting", "nat", Hook::Postrouting, 100)
        .rule("filter-input", check("nodeport-endpoints-check"))
        .rule("filter-input", check("service-endpoints-check"))
        .rule("filter-forward", check("service-endpoints-check"))
        .rule("filter-forward", check("cluster-ips-check"))
        .rule("filter-output", check("service-endpoints-check"))
        .rule("filter-output", check("cluster-ips-check"))
        .rule("nat-prerouting", Rule::new().jump("services"))
        .rule("nat-output", Rule::new().jump("services"))
        .rule("nat-postrouting", Rule::new().jump("masquerading"))
        .rule("masquerading", Rule::new().return_without_mark(MASQUERADE))
        .rule("masquerading", Rule::new().set_mark(u32::MAX, MASQUERADE))
        .rule("masquerading", Rule::new().masquerade_fully_random())
        .rule("mark-for-masquerade", Rule::new().set_mark(!MASQUERADE, MASQUERADE))
        .rule("reject-chain", Rule::new().reject())
}

/// Numbers of the named sets within the transaction; those of services follow.
const ADDRESSES: u32 = 1001;
const SERVICES: u32 = 1002;
const WITHOUT_ENDPOINTS: u32 = 1003;

/// Which service goes to which chain.
fn maps(batch: Batch, services: &[Seen]) -> Batch {
    let key = |s: &Seen| service_key(s.rule.cluster_ip, protocol(s.rule), s.rule.port);
    let (with, without): (Vec<&Seen>, Vec<&Seen>) = services.iter().partition(|s| !s.led().is_empty());
    let with: Vec<_> = with.into_iter().map(|s| (key(s), Fate::Goto(service_chain(s.rule)))).collect();
    let without: Vec<_> = without.into_iter().map(|s| (key(s), nowhere(s.rule))).collect();
    batch.services("service-ips", SERVICES, &with).services("no-endpoint-services", WITHOUT_ENDPOINTS, &without)
}

/// What becomes of a connection that is led to no endpoint: refused if there is none at all, dropped if a policy of `Local` leaves out
/// those of other nodes (pkg/proxy/nftables: `hasInternalEndpoints`, `hasExternalEndpoints`).
fn nowhere(service: &ServiceRule) -> Fate {
    if service.endpoints.is_empty() { Fate::Goto("reject-chain".to_owned()) } else { Fate::Drop }
}

/// The chains of one service port: one for each endpoint, and one that chooses among those that the ClusterIP leads to.
fn one(batch: Batch, seen: &Seen, number: u32, pods: Ipv4Net) -> Batch {
    let service = seen.rule;
    let all = service.endpoints.iter().map(|endpoint| (endpoint, endpoint_chain(service, *endpoint)));
    let batch = all.fold(batch, |batch, (endpoint, chain)| {
        // A backend that calls its own service must see an answer from the node, or it would answer itself.
        let hairpin = Rule::new().from(Ipv4Net::from(*endpoint.ip()), true).jump("mark-for-masquerade");
        let dnat = Rule::new().protocol(protocol(service)).dnat(*endpoint.ip(), endpoint.port());
        batch.inner_chain(&chain).rule(&chain, hairpin).rule(&chain, dnat)
    });
    if seen.led().is_empty() {
        return batch;
    }
    let name = service_chain(service);
    let to_service = Rule::new().to(Ipv4Net::from(service.cluster_ip), true).protocol(protocol(service)).port(service.port);
    // A client that is no pod reaches an endpoint under the node's address.
    let batch = batch.inner_chain(&name).rule(&name, to_service.from(pods, false).jump("mark-for-masquerade"));
    one_of(batch, &name, service, seen.led(), number)
}

/// Ends a chain with the choice of one endpoint; the set of that number must be free.
fn one_of(batch: Batch, chain: &str, service: &ServiceRule, endpoints: &[SocketAddrV4], set: u32) -> Batch {
    let chains: Vec<String> = endpoints.iter().map(|endpoint| endpoint_chain(service, *endpoint)).collect();
    let count = u32::try_from(chains.len()).unwrap_or(u32::MAX);
    batch.numbered(set, &chains).rule(chain, Rule::new().random_of(count, set))
}

fn protocol(service: &ServiceRule) -> u8 {
    if service.protocol == Protocol::Udp { 17 } else { 6 }
}

fn port_name(service: &ServiceRule) -> String {
    let protocol = if service.protocol == Protocol::Udp { "udp" } else { "tcp" };
    format!("{}/{}/{protocol}/{}", service.namespace, service.name, service.port_name)
}

fn service_chain(service: &ServiceRule) -> String {
    let name = port_name(service);
    format!("service-{}-{name}", hash(&name))
}

fn endpoint_chain(service: &ServiceRule, endpoint: SocketAddrV4) -> String {
    let name = format!("{}__{}/{}", port_name(service), endpoint.ip(), endpoint.port());
    format!("endpoint-{}-{name}", hash(&name))
}

/// Eight letters of base32, which keep long names apart.
fn hash(name: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    Sha256::digest(name).iter().take(8).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// What flannel masquerades; its pods only if they are asked for.
pub(super) fn flannel(wire: &Wire, inv: &Inventory, of_pods: bool) -> Result<()> {
    let pods = inv.cluster.pod_cidr;
    let mut batch = Batch::replace("flannel-ipv4").fresh().chain("postrtg", "nat", Hook::Postrouting, 100);
    if of_pods {
        batch = batch.rule("postrtg", Rule::new().from(pods, true).to(pods, false).masquerade());
    }
    if !wire.has_sysctl("net/bridge/bridge-nf-call-iptables") {
        // Without br_netfilter the answer of a pod on the same bridge would bypass the translation back.
        let same_bridge = Rule::new().from(pods, true).to(pods, true).destination_was_translated().out_by(&inv.overlay.bridge);
        batch = batch.rule("postrtg", same_bridge.masquerade());
    }
    Ok(batch.commit(&wire.net)?)
}

/// What tailscaled masquerades on an exit node: what it has marked on its way in.
fn tailscale(wire: &Wire, inv: &Inventory) -> Result<()> {
    let (mask, mark) = TAILSCALE;
    let batch = Batch::replace("tailscale")
        .fresh()
        .chain("ts-forward", "filter", Hook::Forward, 0)
        .chain("ts-postrouting", "nat", Hook::Postrouting, 100)
        .rule("ts-forward", Rule::new().in_by(&inv.tailnet.device).counted().set_mark(!mask, mark))
        .rule("ts-postrouting", Rule::new().with_mark(mark, mask).counted().masquerade());
    Ok(batch.commit(&wire.net)?)
}
