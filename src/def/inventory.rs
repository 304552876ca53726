//! The inventory: what the documents say the network is.

use super::endpoint::Endpoint;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddrV4};
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

/// The Kubernetes cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// K3s version, as `kubectl version` prints it.
    pub version: String,
    /// DNS domain of the cluster.
    pub domain: String,
    /// Addresses of all pods.
    pub pod_cidr: Ipv4Net,
    /// Addresses of all ClusterIP services.
    pub service_cidr: Ipv4Net,
    /// The API server inside the cluster.
    pub api: SocketAddrV4,
    /// The API server as agents reach it.
    pub api_endpoint: SocketAddrV4,
    /// Port of the nodes' kubelets, if the cluster has any.
    #[serde(default)]
    pub kubelet_port: Option<u16>,
    /// Where a kubeconfig lies, before the usual places are tried. `~/` is the home directory.
    pub kubeconfig: Option<String>,
    /// The API server reaches the nodes' kubelets, for logs and exec: so in every real cluster, not so where there is none.
    #[serde(default = "yes")]
    pub kubelets: bool,
    /// The NetworkPolicies that the document lists, `namespace/name`; absent if it does not speak of them.
    #[serde(default)]
    pub network_policies: Option<Vec<String>>,
}

fn yes() -> bool {
    true
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

/// What the inventory says about a node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Declared {
    /// It must work.
    Up,
    /// It is documented as down: its absence is no finding.
    Down,
}

/// A cluster node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The short name people use.
    pub name: String,
    /// The name of the Kubernetes Node object.
    pub kube_name: String,
    /// Role, as documented.
    pub role: String,
    /// Declared state.
    pub state: Declared,
    /// Public address, if it has one.
    #[serde(default)]
    pub public: Option<Ipv4Addr>,
    /// Address in a private network, if it has one.
    #[serde(default)]
    pub lan: Option<Ipv4Addr>,
    /// That private network.
    #[serde(default)]
    pub lan_cidr: Option<Ipv4Net>,
    /// Tailscale address.
    #[serde(default)]
    pub tailscale: Option<Ipv4Addr>,
    /// A second Tailscale address that the document gives (see the contradictions).
    #[serde(default)]
    pub tailscale_also: Option<Ipv4Addr>,
    /// Tailscale host name.
    #[serde(default)]
    pub tailscale_name: Option<String>,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
    /// Operating system, as documented.
    #[serde(default)]
    pub os: Option<String>,
    /// GPU, as documented.
    #[serde(default)]
    pub gpu: Option<String>,
    /// How this vantage is reached from here: `netns:NAME`.
    #[serde(default)]
    pub reach: Option<String>,
    /// Path of tailscaled's socket; a leading `@` means an abstract socket.
    #[serde(default)]
    pub tailscale_socket: Option<String>,
}

/// A pod that serves as a vantage or a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Name prefix of the Pod object.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the node that it runs on.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Container ports: name and number.
    #[serde(default)]
    pub ports: Vec<PodPort>,
    /// Nothing asks it and gets an answer: only what it logs tells whether it works.
    #[serde(default)]
    pub told_by_log: bool,
    /// How this vantage is reached from here: `netns:NAME`.
    #[serde(default)]
    pub reach: Option<String>,
}

/// A named container port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodPort {
    /// Port name.
    pub name: String,
    /// Port number.
    pub port: u16,
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

/// A cluster service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// ClusterIP, where the document states one.
    #[serde(default)]
    pub cluster_ip: Option<Ipv4Addr>,
    /// Service port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Target port: a number or a container port's name, as in a Service object.
    #[serde(default)]
    pub target_port: Option<String>,
    /// Label selector.
    #[serde(default)]
    pub selector: std::collections::BTreeMap<String, String>,
    /// An HTTP path that answers 200 when the application behind it works.
    #[serde(default)]
    pub health_path: Option<String>,
    /// From outside it is meant to be let in only by nodes that have an endpoint of it (`externalTrafficPolicy: Local` behind a
    /// balancer that asks for the nodes' health).
    #[serde(default)]
    pub own_nodes_only: bool,
    /// What it is for, with the document's line.
    #[serde(default)]
    pub about: String,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
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

/// How the cluster reaches the outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The one source address that the outside must see.
    pub address: Ipv4Addr,
    /// The IPv6 addresses that the outside may see, if any: by default nothing may leave over IPv6.
    #[serde(default)]
    pub ipv6: Vec<std::net::Ipv6Addr>,
    /// Services that answer with the caller's address, as text.
    pub echoes: Vec<String>,
    /// The same over IPv6, if the others have no IPv6 address.
    #[serde(default)]
    pub echoes_ipv6: Vec<String>,
    /// STUN servers, `HOST:PORT`, asked for the same thing over UDP.
    #[serde(default)]
    pub stun: Vec<Endpoint>,
}

/// A database outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A short name.
    pub name: String,
    /// Host name.
    pub host: String,
    /// Address that the host name must have, where documented.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Port.
    pub port: u16,
    /// Whether TLS is required.
    pub tls: bool,
    /// Source ranges that the database admits.
    #[serde(default)]
    pub allowlist: Vec<AllowlistEntry>,
}

/// One entry of a database's allowlist.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowlistEntry {
    /// Source range.
    pub cidr: Ipv4Net,
    /// What it is for.
    #[serde(default)]
    pub about: String,
    /// Documented as waiting for its removal.
    #[serde(default)]
    pub pending_removal: bool,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpEndpoint {
    /// A short name.
    pub name: String,
    /// URL.
    pub url: String,
    /// Status that means it works.
    #[serde(default = "two_hundred")]
    pub status: u16,
    /// Kinds of vantage that must reach it: `node`, `pod`, `workstation`, `ci`.
    pub from: Vec<crate::vantage::VantageKind>,
    /// What it is for, with the document's line.
    #[serde(default)]
    pub about: String,
}

fn two_hundred() -> u16 {
    200
}

/// An OpenAI-compatible model server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vllm {
    /// A short name.
    pub name: String,
    /// Host address.
    pub address: Ipv4Addr,
    /// API port.
    pub port: u16,
    /// Where `/metrics` is served. The document says 8002; vLLM serves it on the API port (see the contradictions).
    pub metrics_port: u16,
    /// Model name.
    pub model: String,
    /// Longest sequence, in tokens.
    #[serde(default)]
    pub max_model_len: Option<u32>,
    /// GPU, as documented.
    #[serde(default)]
    pub gpu: Option<String>,
    /// The systemd unit that runs it on its host.
    #[serde(default)]
    pub unit: Option<String>,
    /// Vantages that have a path to it.
    pub from: Vec<String>,
}

/// A Cloudflare Worker and what it calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// The URL that it fetches.
    pub fetches: String,
    /// It passes PDF files where the model server takes images.
    #[serde(default)]
    pub sends_pdf_as_image: bool,
    /// What it is for, with the document's line.
    #[serde(default)]
    pub about: String,
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
