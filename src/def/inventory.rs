//! The inventory: what the documents say the network is.

mod cluster;
mod outside;

pub use cluster::{Cluster, Declared, Node, Pod, PodPort, Protocol, Service};
use ipnet::Ipv4Net;
pub use outside::{AllowlistEntry, Database, Egress, HttpEndpoint, Vllm, Worker};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Everything the architecture document states. The Oceanid one is built in (`assets/oceanid.toml`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// A short name, for reports.
    pub name: String,
    /// The document it was taken from.
    pub document: String,
    /// The Kubernetes cluster.
    pub cluster: Cluster,
    /// The pod overlay.
    pub overlay: Overlay,
    /// The Tailscale network.
    pub tailnet: Tailnet,
    /// Cluster nodes.
    #[serde(default, rename = "node")]
    pub nodes: Vec<Node>,
    /// Pods that serve as vantages and targets.
    #[serde(default, rename = "pod")]
    pub pods: Vec<Pod>,
    /// Other vantages: a workstation, a CI runner.
    #[serde(default, rename = "vantage")]
    pub vantages: Vec<OtherVantage>,
    /// Cluster services.
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
    /// DNS inside the cluster.
    pub dns: Dns,
    /// Cloudflare WARP.
    pub warp: Option<Warp>,
    /// How the cluster reaches the outside.
    pub egress: Egress,
    /// Databases outside.
    #[serde(default, rename = "database")]
    pub databases: Vec<Database>,
    /// HTTP endpoints outside, or asked for by name from inside.
    #[serde(default, rename = "http")]
    pub https: Vec<HttpEndpoint>,
    /// The OCR model servers.
    #[serde(default, rename = "vllm")]
    pub vllms: Vec<Vllm>,
    /// Cloudflare Workers that call something of this network.
    #[serde(default, rename = "worker")]
    pub workers: Vec<Worker>,
    /// Places where the document contradicts itself, both claims with their line.
    #[serde(default, rename = "contradiction")]
    pub contradictions: Vec<Contradiction>,
}

/// The pod overlay (flannel VXLAN).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// The VXLAN device.
    pub device: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Outer UDP port.
    pub port: u16,
    /// The device that carries the outer packets.
    pub parent: String,
    /// Bytes that encapsulation takes from the parent's MTU (50 for VXLAN over IPv4).
    pub overhead_bytes: u32,
    /// The bridge of a node's own pods.
    pub bridge: String,
    /// Where flannel writes the node's subnet down, if it does.
    #[serde(default)]
    pub subnet_env: Option<String>,
}

/// The Tailscale network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tailnet {
    /// Tailnet name.
    pub name: String,
    /// Addresses of all tailnet nodes.
    pub cidr: Ipv4Net,
    /// The TUN device.
    pub device: String,
    /// The routing table Tailscale fills.
    pub table: u32,
    /// Name of the node that is the exit node, if one is documented.
    pub exit_node: Option<String>,
}

/// A vantage that is neither node nor pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherVantage {
    /// Its name: `workstation`, `ci`.
    pub name: String,
    /// Its kind: `workstation` or `ci`.
    pub kind: crate::vantage::VantageKind,
    /// How this vantage is reached from here: `netns:NAME`.
    #[serde(default)]
    pub reach: Option<String>,
}

/// DNS inside the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// The cluster's nameserver.
    pub nameserver: Ipv4Addr,
    /// Search domains of pods in the documented namespace.
    pub search: Vec<String>,
    /// Names with fewer dots than this are tried with the search domains first (resolv.conf(5)).
    pub ndots: u8,
    /// Resolvers that CoreDNS forwards to, as documented.
    pub upstream: Vec<Ipv4Addr>,
    /// A short name that must resolve through the search domains.
    pub internal_name: String,
    /// The candidate that must answer for it.
    pub internal_answer: String,
    /// An outside name that must resolve.
    pub external_name: String,
}

/// Cloudflare WARP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warp {
    /// Zero Trust organisation.
    pub organization: String,
    /// Ranges that must go through WARP.
    pub routes: Vec<Ipv4Net>,
    /// WARP's device on the workstation.
    pub device: String,
}

/// A place where the document contradicts itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contradiction {
    /// What it is about.
    pub about: String,
    /// The claims, each with its line.
    pub claims: Vec<Claim>,
    /// Which one this inventory goes by, and why.
    pub taken: String,
}

/// One claim of the document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What it says.
    pub says: String,
    /// Its line in the document.
    pub line: u32,
}

impl Inventory {
    /// The inventory as expressions see it.
    pub fn value(&self) -> Arc<Value> {
        Arc::new(serde_json::to_value(self).unwrap_or_default())
    }

    /// The address of a node's VXLAN tunnel endpoint: of the tailnet if the overlay runs through it, else its own.
    pub fn vtep(&self, node: &Node) -> Option<Ipv4Addr> {
        if self.overlay.parent == self.tailnet.device { node.tailscale } else { node.public.or(node.lan) }
    }

    /// The node of a name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// A service's name as a fully qualified DNS name without the trailing dot.
    pub fn service_dns_name(&self, service: &Service) -> String {
        format!("{}.{}.svc.{}", service.name, service.namespace, self.cluster.domain)
    }
}
