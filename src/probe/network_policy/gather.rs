//! What the judgement needs, from the API: all policies, the endpoint, and who has the two addresses. Asked for only as far as needed.

use super::NetworkPolicy;
use super::judge::{End, Flow, Pod, Who};
use super::policy::{Labels, Policy};
use crate::check::{Observation, clean};
use crate::def::inventory::Protocol;
use crate::probe::Context;
use crate::probe::kube_client::{self, At, Connected, encode};
use crate::probe::net::source_address;
use crate::probe::service::backends::{self, SliceText};
use crate::vantage::{Net, VantageKind};
use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// API groups of policy engines whose objects are not NetworkPolicies and are not read here. They add to those or come before them.
const OTHER_ENGINES: [&str; 7] = [
    "cilium.io",
    "crd.projectcalico.org",
    "projectcalico.org",
    "crd.antrea.io",
    "k8s.ovn.org",
    "policy.networking.k8s.io",
    "policy.kubeovn.io",
];

/// What there is to judge.
pub(super) struct Gathered {
    pub(super) policies: Vec<Policy>,
    pub(super) flow: Flow,
    /// Kubernetes node of the pod; empty if the endpoint is no pod.
    pub(super) pod_node: String,
    /// Seconds since the younger of both pods has started.
    pub(super) age_s: Option<f64>,
    /// Why the policies that were read need not be all; empty if they are.
    pub(super) not_all: String,
}

/// What the API offers (`/apis`).
#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
}

/// Which of [`OTHER_ENGINES`] the API serves. Their definitions alone block nothing: it is the cluster's right to have them.
async fn other_engines(api: &Connected) -> Result<Vec<String>, String> {
    let offered: Groups = api.object("/apis", "get /apis").await.map_err(|failure| failure.word)?;
    let known = |group: &Group| OTHER_ENGINES.contains(&group.name.as_str());
    Ok(offered.groups.into_iter().filter(known).map(|group| group.name).collect())
}

fn not_all(others: &Result<Vec<String>, String>) -> String {
    match others {
        Ok(engines) if engines.is_empty() => String::new(),
        Ok(engines) => format!("policies of {} may decide as well, and are not read", engines.join(", ")),
        Err(reason) => format!("whether other policy engines decide as well could not be read: {reason}"),
    }
}

/// Reads it; `None` if the cluster has no policies and nobody else can have any. Records `policies`, `address`, `pod`, `client` as they become known.
pub(super) async fn gather(probe: &NetworkPolicy, cx: &Context, seen: &mut Observation) -> Result<Option<Gathered>, String> {
    let api = connected(cx, seen).await?;
    let policies: Vec<Policy> =
        api.list("/apis/networking.k8s.io/v1/networkpolicies", "list networkpolicies").await.map_err(|failure| failure.word)?;
    seen.facts.set("policies", policies.len());
    let others = other_engines(&api).await;
    match &others {
        Ok(engines) => seen.facts.set("other_engines", engines.clone()),
        Err(reason) => seen.facts.unknown("other_engines", reason.as_str()),
    };
    if policies.is_empty() && others.as_ref().is_ok_and(Vec::is_empty) {
        return Ok(None);
    }
    let at = endpoint(probe, &api).await?;
    seen.facts.set("address", at.to_string());
    let (server, client) = tokio::join!(pod_at(&api, cx, *at.ip()), client(&api, cx, at));
    let (mut server, mut client) = (server?, client?);
    let node = if let Found::Pod(_, at) = &server { at.node.clone() } else { String::new() };
    let age_s = [&server, &client.1].into_iter().filter_map(Found::age_s).reduce(f64::min);
    let own = cx.vantage.node.as_deref().and_then(|name| cx.inventory.node(name)).map(|node| node.kube_name.as_str());
    let own_node = cx.vantage.kind == VantageKind::Node && own.is_some_and(|own| own == node);
    if policies.iter().any(|policy| policy.spec().is_ok_and(|spec| spec.reads_namespaces())) {
        tokio::join!(name_space(&api, &mut server), name_space(&api, &mut client.1));
    }
    seen.facts.set("pod", server.name());
    match &client.1 {
        Found::Pod(..) => _ = seen.facts.set("client", format!("pod {}", client.1.name())),
        Found::Host => _ = seen.facts.set("client", client.0.as_ref().map_or("node".to_owned(), |at| format!("node {at}"))),
        Found::Unknown(reason) => _ = seen.facts.unknown("client", reason.as_str()),
    }
    let flow = Flow {
        from: End { address: client.0, who: client.1.who() },
        to: End { address: Ok(*at.ip()), who: server.who() },
        port: at.port(),
        protocol: if probe.protocol == Protocol::Udp { "UDP" } else { "TCP" },
        own_node,
    };
    Ok(Some(Gathered { policies, flow, pod_node: node, age_s, not_all: not_all(&others) }))
}

/// The API from here, or from the witness: a policy may keep this very pod from it.
async fn connected(cx: &Context, seen: &mut Observation) -> Result<Connected, String> {
    let reason = match kube_client::connected(cx).await {
        Ok(api) => return Ok(api),
        Err(reason) => reason,
    };
    let Some(witness) = cx.witness.as_ref().filter(|witness| witness.id != cx.vantage.id) else { return Err(reason) };
    let api = kube_client::connected(&Context { vantage: witness.clone(), ..cx.clone() }).await.map_err(|_| reason.clone())?;
    seen.note("api", format!("asked from {}: {reason}", witness.id));
    Ok(api)
}

/// The first ready endpoint of the Service's port.
async fn endpoint(probe: &NetworkPolicy, api: &Connected) -> Result<SocketAddrV4, String> {
    let (namespace, name) = (encode(&probe.namespace), encode(&probe.name));
    let service = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let slices =
        format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}");
    let (service, slices) =
        tokio::join!(api.object::<core::Service>(&service, "get services"), api.list::<SliceText>(&slices, "list endpointslices"));
    let service = service.map_err(|failure| match failure.at {
        At::Status(404) => "the service does not exist".to_owned(),
        _ => failure.word,
    })?;
    let udp = probe.protocol == Protocol::Udp;
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let entry = ports.find(|p| p.port == i32::from(probe.port) && backends::is_tcp(p) != udp);
    let entry = entry.ok_or_else(|| format!("the service has no port {}", probe.port))?;
    let slices = slices.map_err(|failure| failure.word)?;
    backends::collect(&slices, entry.name.as_deref()).ready.first().copied().ok_or_else(|| "no endpoint is ready".to_owned())
}

/// Who has an address.
enum Found {
    /// A pod, and where it runs since when.
    Pod(Pod, Running),
    Host,
    Unknown(String),
}

struct Running {
    node: String,
    since: Option<DateTime<Utc>>,
}

impl Found {
    /// Seconds since the pod has started; a clock that is behind the start tells nothing.
    fn age_s(&self) -> Option<f64> {
        let Self::Pod(_, Running { since: Some(since), .. }) = self else { return None };
        let age = (Utc::now() - since).num_milliseconds();
        (age >= 0).then(|| age as f64 / 1000.0)
    }

    fn name(&self) -> String {
        if let Self::Pod(pod, _) = self { clean(&format!("{}/{}", pod.namespace, pod.name), 320) } else { String::new() }
    }

    fn who(self) -> Who {
        match self {
            Self::Pod(pod, _) => Who::Pod(pod),
            Self::Host => Who::Host,
            Self::Unknown(reason) => Who::Unknown(reason),
        }
    }
}

/// The address that a connection to the endpoint would have, and who has it.
async fn client(api: &Connected, cx: &Context, to: SocketAddrV4) -> Result<(Result<Ipv4Addr, String>, Found), String> {
    let source = source_of(&cx.vantage.net, to).map_err(|e| format!("no source address for {to}: {}", crate::probe::net::errno_word(&e)));
    Ok(match (cx.vantage.kind, source) {
        (VantageKind::Node, source) => (source, Found::Host),
        (VantageKind::Pod, Ok(address)) => {
            let found = match pod_at(api, cx, address).await? {
                Found::Host => Found::Unknown(format!("no pod has this vantage's address {address}")),
                found => found,
            };
            (Ok(address), found)
        }
        (VantageKind::Pod, Err(reason)) => (Err(reason.clone()), Found::Unknown(reason)),
        (VantageKind::Workstation | VantageKind::Ci, _) => {
            let reason = "from outside of the cluster: under whose address such a connection arrives is not known here";
            (Err(reason.to_owned()), Found::Unknown(reason.to_owned()))
        }
    })
}

fn source_of(net: &Net, to: SocketAddrV4) -> io::Result<Ipv4Addr> {
    match source_address(net, to.into())? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The pod with an address and a network of its own.
async fn pod_at(api: &Connected, cx: &Context, address: Ipv4Addr) -> Result<Found, String> {
    let path = format!("/api/v1/pods?fieldSelector=status.podIP%3D{address}");
    let pods: Vec<core::Pod> = api.list(&path, "list pods").await.map_err(|failure| failure.word)?;
    // Pods that have ended keep the address that another may have by now.
    let lives = |pod: &&core::Pod| !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let living: Vec<&core::Pod> = pods.iter().filter(lives).collect();
    let own: Vec<&&core::Pod> = living.iter().filter(|pod| pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true))).collect();
    Ok(match (own.as_slice(), living.is_empty()) {
        ([pod], _) => pod_of(pod),
        ([], true) if cx.inventory.cluster.pod_cidr.contains(&address) => Found::Unknown(format!("no pod has the address {address}")),
        ([], _) => Found::Host,
        _ => Found::Unknown(format!("several pods have the address {address}")),
    })
}

fn pod_of(pod: &core::Pod) -> Found {
    let spec = pod.spec.clone().unwrap_or_default();
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((port.name.clone()?, protocol, u16::try_from(port.container_port).ok()?))
    });
    let read = Pod {
        name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        namespace_labels: Err("the labels of its namespace were not asked for".to_owned()),
        ports: ports.collect(),
    };
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let since = started.and_then(|time| DateTime::parse_from_rfc3339(&time.0.to_string()).ok()).map(|time| time.to_utc());
    Found::Pod(read, Running { node: spec.node_name.unwrap_or_default(), since })
}

/// Adds the labels of a pod's namespace.
async fn name_space(api: &Connected, found: &mut Found) {
    let Found::Pod(pod, _) = found else { return };
    let path = format!("/api/v1/namespaces/{}", encode(&pod.namespace));
    let read: Result<core::Namespace, _> = api.object(&path, "get namespaces").await;
    pod.namespace_labels = read.map(|n| Labels::from_iter(n.metadata.labels.unwrap_or_default())).map_err(|failure| failure.word);
}
