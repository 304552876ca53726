//! The digital twin: the documented network in network namespaces of this machine.
//!
//! [`topology`] makes hosts and links, [`overlay`] puts Tailscale ([`tailscaled`]) and flannel on the nodes,
//! `kube_proxy` programs the services, [`servers`] starts what answers on them, and [`fault`] breaks it.
//! Everything is held by file descriptors and threads of this process: when it ends, however it ends, nothing is left.
//! The diagnosis never looks in here: it sees the twin only through probes.

pub mod cluster;
mod commands;
mod conntrack;
mod damage;
pub mod derp;
mod device;
pub mod fault;
mod kube_proxy;
pub mod nft;
pub mod overlay;
#[cfg(test)]
mod secrets;
pub mod servers;
pub mod service;
mod shape;
mod six;
pub mod tailscaled;
pub mod topology;
pub mod warp;
pub mod wire;

#[cfg(test)]
pub(crate) use device::finish_checksums;

use crate::def::Inventory;
use crate::def::inventory::Node;
use crate::vantage::{HostFiles, Net, Transport, UnixAddress, Vantage, VantageKind};
use anyhow::{Context, Result};
use cluster::Cluster;
use overlay::Overlay;
use servers::Servers;
use std::sync::Arc;
use topology::{Hosts, pod_host};

/// Name of tailscaled's socket on the twin's nodes. It is abstract: it belongs to the node's namespace.
pub(crate) const TAILSCALE_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// The running twin.
pub struct Twin {
    /// What it was built from.
    pub inventory: Arc<Inventory>,
    /// Kubernetes objects.
    pub cluster: Cluster,
    /// Tailscale and flannel of each node.
    pub overlays: Vec<Overlay>,
    /// The servers.
    pub servers: Servers,
    hosts: Hosts,
    _derp: derp::Derp,
}

impl Twin {
    /// Builds the healthy twin and applies faults. Must run in private namespaces ([`crate::vantage::netns::enter_private`]).
    pub async fn start(inventory: Arc<Inventory>, faults: &[&'static fault::Fault]) -> Result<Self> {
        let mut hosts = topology::build(&inventory).await?;
        let derp = derp::start(hosts.get("internet").context("the twin has no internet")?)?;
        let overlays = overlay::build(&hosts, &inventory).await?;
        topology::populate(&mut hosts, &inventory).await?;
        let cluster = Cluster::from_inventory(&inventory);
        for overlay in &overlays {
            cluster.annotate_flannel(&overlay.node.kube_name, &overlay::mac_text(overlay.vtep_mac), overlay.vtep()?);
        }
        let servers = Servers::start(&hosts, &cluster, &inventory, &overlays)?;
        let twin = Self { inventory, cluster, overlays, servers, hosts, _derp: derp };
        twin.sync()?;
        for fault in faults {
            fault.apply(&twin).await.with_context(|| format!("fault {}", fault.id))?;
        }
        Ok(twin)
    }

    /// Brings kube-proxy's rules and tailscaled's account of itself into line with cluster and preferences.
    pub fn sync(&self) -> Result<()> {
        let services = self.cluster.service_rules();
        for overlay in &self.overlays {
            self.program_services(&overlay.node.name, &services)?;
            self.servers.sync_tailscale(overlay, &self.overlays, &self.inventory);
        }
        Ok(())
    }

    /// Writes a node's service rules anew.
    pub(crate) fn program_services(&self, node: &str, services: &[cluster::ServiceRule]) -> Result<()> {
        let exit_node = self.inventory.tailnet.exit_node.as_deref() == Some(node);
        let overlay = self.overlay(node)?;
        kube_proxy::program(&overlay.wire, services, &self.inventory, &overlay.node, exit_node)
    }

    /// A host's namespace with a netlink connection into it.
    pub fn host(&self, name: &str) -> Result<&wire::Wire> {
        self.hosts.get(name).with_context(|| format!("the twin has no host {name}"))
    }

    /// Tailscale and flannel of a node.
    pub fn overlay(&self, node: &str) -> Result<&Overlay> {
        self.overlays.iter().find(|o| o.node.name == node).with_context(|| format!("the twin has no node {node}"))
    }

    /// Lays a route of the workstation into WARP's tunnel.
    pub async fn warp_route(&self, to: ipnet::Ipv4Net) -> Result<()> {
        let warp = self.inventory.warp.as_ref().context("the inventory has no WARP")?;
        self.host("workstation")?.route(to, Some(topology::WARP.0), &warp.device, 254).await
    }

    /// A host's network.
    pub fn net(&self, name: &str) -> Option<&Net> {
        self.hosts.get(name).map(|w| &w.net)
    }

    /// All hosts.
    pub fn host_names(&self) -> Vec<&str> {
        self.hosts.keys().map(String::as_str).collect()
    }

    /// Every place of the twin that fathom can look from.
    pub fn vantages(&self) -> Vec<Vantage> {
        let inv = &self.inventory;
        let nodes = self.overlays.iter().map(|o| self.node(&o.node));
        let pods = inv.pods.iter().map(|p| {
            let id = pod_host(&p.namespace, &p.name);
            self.vantage(&id, VantageKind::Pod, Some(p.node.clone()), self.servers.pod_files(inv))
        });
        let others = inv.vantages.iter().map(|v| self.vantage(&v.name, v.kind, None, self.servers.outside_files(inv, v.kind)));
        nodes.chain(others).chain(pods).collect()
    }

    /// The model servers' own host, as who sits there looks from it. It stands for the workstation: no other kind of place asks them.
    pub fn model_host(&self) -> Option<Vantage> {
        let workstation = self.inventory.vantages.iter().find(|v| v.kind == VantageKind::Workstation)?;
        let files = self.servers.model_host_files(&self.inventory);
        let mut vantage = self.vantage(&workstation.name, workstation.kind, None, files);
        vantage.net = self.net("dgx")?.clone();
        Some(vantage)
    }

    fn node(&self, node: &Node) -> Vantage {
        let mut files = self.servers.node_files(&self.inventory, node);
        files.tailscale_socket = Some(UnixAddress::Abstract(TAILSCALE_SOCKET.to_owned()));
        files.subnet_env = self.overlay(&node.name).ok().map(Overlay::subnet_env);
        self.vantage(&node.name, VantageKind::Node, Some(node.name.clone()), files)
    }

    fn vantage(&self, id: &str, kind: VantageKind, node: Option<String>, files: HostFiles) -> Vantage {
        let net = self.hosts.get(id).map(|w| w.net.clone()).unwrap_or_default();
        Vantage { id: id.to_owned(), kind, transport: Transport::Twin, why: "a host of the digital twin".to_owned(), node, net, files }
    }
}
