//! Hosts and links: the internet, the home network, the nodes and their pods, and who else takes part.

use super::nft::{Batch, Hook, Rule};
use super::wire::Wire;
use crate::def::Inventory;
use crate::def::inventory::{Declared, Node};
use crate::vantage::{Net, NetNs};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Address of the home router on the internet: what calypso's own egress looks like.
pub const HOME_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
/// The workstation's address on the internet.
pub(crate) const WORKSTATION: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The CI runner's address on the internet.
const CI: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// WARP's own addresses: cloudflared's end and the workstation's (devices live in 100.96.0.0/12).
pub const WARP: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(100, 96, 0, 1), Ipv4Addr::new(100, 96, 0, 2));
/// MTU of pods: tailscale0's 1280 less VXLAN's 50.
pub const POD_MTU: u32 = 1230;
/// MTU of everything that is no tunnel.
pub(super) const ETHERNET_MTU: u32 = 1500;

/// All hosts by name: `calypso`, `internet`, `pod:apps/argilla`, ...
pub type Hosts = BTreeMap<String, Wire>;

/// The host name of a pod.
pub fn pod_host(namespace: &str, name: &str) -> String {
    format!("pod:{namespace}/{name}")
}

/// The connector of WARP runs as a pod on the node that has a LAN.
pub const CLOUDFLARED: &str = "cloudflared";

/// Builds hosts and links, pods aside.
pub async fn build(inv: &Inventory) -> Result<Hosts> {
    let mut hosts = Hosts::new();
    for name in ["internet", "home", "dgx", "crunchy", "workstation", "ci"] {
        hosts.insert(name.to_owned(), host(name).await?);
    }
    internet(&hosts["internet"], inv).await?;
    for node in inv.nodes.iter().filter(|n| n.state == Declared::Up) {
        hosts.insert(node.name.clone(), host(&node.name).await?);
    }
    home(&hosts, inv).await?;
    for node in inv.nodes.iter().filter(|n| n.state == Declared::Up) {
        attach_node(&hosts, node).await?;
    }
    for database in &inv.databases {
        if let Some(address) = database.address {
            attach_public(&hosts["internet"], &hosts["crunchy"], "crunchy", address).await?;
        }
    }
    attach_public(&hosts["internet"], &hosts["workstation"], "workstation", WORKSTATION).await?;
    attach_public(&hosts["internet"], &hosts["ci"], "ci", CI).await?;
    Ok(hosts)
}

/// Adds pods, and WARP's connector among them. On a node they come after Tailscale: its K3s waits for tailscale0.
pub async fn populate(hosts: &mut Hosts, inv: &Inventory) -> Result<()> {
    pods(hosts, inv).await?;
    warp(hosts, inv).await
}

async fn host(name: &str) -> Result<Wire> {
    let ns = NetNs::create(name).with_context(|| format!("network namespace of {name}"))?;
    Wire::open(name, Net::Ns(ns)).await
}

/// The router that everything public hangs on, and the addresses of the servers that it stands for.
async fn internet(router: &Wire, inv: &Inventory) -> Result<()> {
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.bridge("br0", ETHERNET_MTU).await?;
    for address in super::servers::public_addresses(inv).into_iter().chain([*super::derp::ADDRESS.ip()]) {
        router.address("lo", address, 32).await?;
    }
    for address in super::servers::six::names(inv).into_values().filter(|_| router.has_six()) {
        router.address_six("lo", address, 128).await?;
    }
    Ok(())
}

/// First host address of an address's /24: the router's.
fn router_of(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// Connects a host to the internet with a public address.
async fn attach_public(router: &Wire, host: &Wire, name: &str, address: Ipv4Addr) -> Result<()> {
    let port = format!("to-{name}");
    router.veth(&port, host, "eth0", ETHERNET_MTU).await?;
    router.enslave(&port, "br0").await?;
    // Hosts may share a /24, and then the router's address.
    let _ = router.address("br0", router_of(address), 24).await;
    host.address("eth0", address, 24).await?;
    host.route(Ipv4Net::default(), Some(router_of(address)), "eth0", 254).await
}

/// The home network: a NAT router, and the model server behind it.
async fn home(hosts: &Hosts, inv: &Inventory) -> Result<()> {
    let router = &hosts["home"];
    router.sysctl("net/ipv4/ip_forward", "1")?;
    let internet = &hosts["internet"];
    internet.veth("to-home", router, "wan", ETHERNET_MTU).await?;
    internet.enslave("to-home", "br0").await?;
    internet.address("br0", router_of(HOME_PUBLIC), 24).await?;
    router.address("wan", HOME_PUBLIC, 24).await?;
    router.route(Ipv4Net::default(), Some(router_of(HOME_PUBLIC)), "wan", 254).await?;
    router.bridge("lan", ETHERNET_MTU).await?;
    if let Some(cidr) = inv.nodes.iter().find_map(|n| n.lan_cidr) {
        router.address("lan", router_of(cidr.network()), cidr.prefix_len()).await?;
    }
    for vllm in &inv.vllms {
        attach_lan(hosts, &hosts["dgx"], "dgx", vllm.address).await?;
    }
    Batch::replace("home")
        .fresh()
        .chain("nat", "nat", Hook::Postrouting, 100)
        .rule("nat", Rule::new().out_by("wan").masquerade())
        .commit(&router.net)?;
    Ok(())
}

async fn attach_lan(hosts: &Hosts, host: &Wire, name: &str, address: Ipv4Addr) -> Result<()> {
    let port = format!("to-{name}");
    hosts["home"].veth(&port, host, "eth0", ETHERNET_MTU).await?;
    hosts["home"].enslave(&port, "lan").await?;
    host.address("eth0", address, 24).await?;
    host.route(Ipv4Net::default(), Some(router_of(address)), "eth0", 254).await
}

async fn attach_node(hosts: &Hosts, node: &Node) -> Result<()> {
    let wire = &hosts[&node.name];
    wire.sysctl("net/ipv4/ip_forward", "1")?;
    match (node.public, node.lan) {
        (Some(public), _) => attach_public(&hosts["internet"], wire, &node.name, public).await,
        (None, Some(lan)) => attach_lan(hosts, wire, &node.name, lan).await,
        (None, None) => anyhow::bail!("node {} has neither a public nor a LAN address", node.name),
    }
}

/// Every node's bridge, and its pods on it.
async fn pods(hosts: &mut Hosts, inv: &Inventory) -> Result<()> {
    for node in inv.nodes.iter().filter(|n| n.state == Declared::Up) {
        let wire = &hosts[&node.name];
        wire.bridge(&inv.overlay.bridge, POD_MTU).await?;
        wire.address(&inv.overlay.bridge, gateway(node), node.pod_cidr.prefix_len()).await?;
        if wire.has_sysctl("net/bridge/bridge-nf-call-iptables") {
            wire.sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
        }
    }
    for pod in &inv.pods {
        if let Some(node) = inv.node(&pod.node) {
            pod_on(hosts, inv, node, &pod_host(&pod.namespace, &pod.name), pod.address).await?;
        }
    }
    Ok(())
}

/// The bridge's address: the first of the node's subnet.
fn gateway(node: &Node) -> Ipv4Addr {
    node.pod_cidr.hosts().next().unwrap_or(node.pod_cidr.network())
}

async fn pod_on(hosts: &mut Hosts, inv: &Inventory, node: &Node, name: &str, address: Ipv4Addr) -> Result<()> {
    let pod = host(name).await?;
    let wire = &hosts[&node.name];
    let [_, _, _, last] = address.octets();
    let port = format!("veth{last}");
    wire.veth(&port, &pod, "eth0", POD_MTU).await?;
    wire.enslave(&port, &inv.overlay.bridge).await?;
    wire.hairpin(&port).await?;
    pod.address("eth0", address, node.pod_cidr.prefix_len()).await?;
    pod.route(Ipv4Net::default(), Some(gateway(node)), "eth0", 254).await?;
    hosts.insert(name.to_owned(), pod);
    Ok(())
}

/// WARP: a tunnel from the workstation to cloudflared, which runs as a pod on the node with the LAN and passes
/// connections on under its own address.
async fn warp(hosts: &mut Hosts, inv: &Inventory) -> Result<()> {
    let Some(warp) = &inv.warp else { return Ok(()) };
    let Some(node) = inv.nodes.iter().find(|n| n.state == Declared::Up && n.lan.is_some()) else { return Ok(()) };
    let address = node.pod_cidr.hosts().nth(9).unwrap_or(node.pod_cidr.broadcast());
    pod_on(hosts, inv, node, CLOUDFLARED, address).await?;
    let (connector, workstation) = (&hosts[CLOUDFLARED], &hosts["workstation"]);
    connector.sysctl("net/ipv4/ip_forward", "1")?;
    connector.veth("warp", workstation, &warp.device, MTU_WARP).await?;
    connector.address("warp", WARP.0, 24).await?;
    workstation.address(&warp.device, WARP.1, 24).await?;
    for route in &warp.routes {
        workstation.route(*route, Some(WARP.0), &warp.device, 254).await?;
    }
    Batch::replace("warp")
        .fresh()
        .chain("nat", "nat", Hook::Postrouting, 100)
        .rule("nat", Rule::new().out_by("eth0").masquerade())
        .commit(&connector.net)?;
    Ok(())
}

/// MTU of WARP's tunnel: pods behind it take no more.
const MTU_WARP: u32 = POD_MTU;
