//! What the documents say of the Kubernetes cluster: its API, nodes, pods and services.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

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
    pub labels: BTreeMap<String, String>,
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
    pub selector: BTreeMap<String, String>,
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
