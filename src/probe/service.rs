//! `service`: a Service, its EndpointSlices and its pods through the API, and connections to its ClusterIP and straight to a backend.

mod all;
pub(super) mod backends;
mod entry;
mod ladder;
mod selector;
mod unready;

pub use all::{Objects, PortState, Services, every_service};

use super::kube_client::{self, At, Connected, Failure};
use super::net::ms;
use super::tcp::{self, Tried};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use backends::{Backends, SliceText};
use entry::Entry;
use k8s_openapi::api::core::v1 as core;
use ladder::Sides;
use selector::{Labels, Namespace};
use serde::Deserialize;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A Service, its EndpointSlices and its pods through the API, and connections to its ClusterIP and straight to a backend.
pub(super) static KIND: Kind = Kind {
    name: "service",
    root: "service",
    about: "A Service, its EndpointSlices and its pods through the API, and connections to its ClusterIP and straight to a backend",
    privilege: Some("a kubeconfig"),
    args: &[("name", "service name"), ("namespace", "namespace"), ("port", "service port"), ("connect", "`tcp` (default) or `none`")],
    facts: &[
        fact("exists", "bool", "the Service object exists"),
        fact("cluster_ip", "address", "its ClusterIP; `None` for a headless one"),
        fact("selector", "text", "its label selector; empty if it has none"),
        fact("selector_matches", "count", "pods of the namespace that it selects"),
        fact("near_miss", "text", "labels of pods that nearly match, where none matches; empty if none"),
        fact("ready", "count", "ready endpoint addresses with a port"),
        fact("not_ready", "count", "endpoint addresses that are not ready"),
        fact("terminating", "count", "of these, addresses whose pod is being deleted"),
        fact("ports_unset", "bool", "slices have addresses but no ports (the targetPort's name matches nothing)"),
        fact("endpoints", "list of text", "ready endpoints, address:port"),
        fact("target_port", "text", "the port's targetPort: a number or the name of a container's port"),
        fact("type", "text", "`ClusterIP`, `NodePort`, `LoadBalancer`"),
        fact(
            "internal_policy",
            "text",
            "internalTrafficPolicy: `Cluster`, or `Local`: a node leads the ClusterIP to its own endpoints only",
        ),
        fact("external_policy", "text", "externalTrafficPolicy: the same for what comes from outside; empty if nothing can"),
        fact("node_port", "number", "the port that every node opens for it; 0 if none"),
        fact(
            "container_ports",
            "list of text",
            "ports of the selected pods, where the slices have none or pods are not ready: `http 6900/TCP`",
        ),
        fact("unready_because", "text", "failing condition of the pods that are not ready; empty if none"),
        fact("warning", "text", "the last warning event about the first of them; empty if none"),
        fact("connect", "text", "`ok` or the errno of a connection to ClusterIP:port"),
        fact("connect_ms", "ms", "how long that took"),
        fact("direct", "text", "`ok` or the errno of a connection to the first ready endpoint; empty if there is none"),
        fact("direct_ms", "ms", "how long that took"),
        fact(
            "direct_filtered",
            "bool",
            "where it is refused: by an ICMP error, which is a packet filter's; a pod on which nothing listens resets the connection",
        ),
        fact("same_node", "text", "the same for a ready endpoint on the vantage's own node; empty if there is none"),
        fact("other_node", "text", "the same for one on another node; empty if there is none"),
        fact("by_name", "text", "rcode or errno word of the cluster's DNS server for the service's full name"),
        fact("name_matches", "bool", "the name's address is the ClusterIP"),
        fact(
            "entries",
            "list",
            "its node port on each other node, tried from a node: node, address, word (`ok` or the errno), has_endpoint, node_answers (its kubelet's port accepts or resets, or it answers an echo request)",
        ),
        fact("witness.id", "text", "another node from which the same is tried, if one is at hand"),
        fact("witness.connect", "text", "`ok` or the errno of its connection to ClusterIP:port"),
        fact("witness.direct", "text", "the same for the first ready endpoint; empty if there is none"),
        fact("witness.by_name", "text", "what the cluster's DNS server says to it about the name"),
        fact(
            "parts_at",
            "text",
            "where name, ClusterIP and endpoints part, seen from both nodes where there is a witness: `dns`, `kube-proxy`, `cni`, `filter` (refused here and not from the witness), `pod` (nothing listens, or a policy refuses); empty if nowhere",
        ),
    ],
    decode: decode::<Service>,
};

/// Why there is no backend to connect to, where that is known.
const NO_ENDPOINT: &str = "no endpoint is ready";
/// Endpoints that are listed as a fact; the counts are of all.
const MOST_LISTED: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    namespace: String,
    port: u16,
    #[serde(default)]
    connect: Connect,
}

/// Whether to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Connect {
    #[default]
    Tcp,
    None,
}

/// Where to connect to, or why not.
type Target = Result<SocketAddrV4, String>;

#[async_trait]
impl Probe for Service {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        match self.look(cx, &mut seen).await.or_else(|reason| self.without_api(cx, &mut seen, reason)) {
            Err(reason) => return Observation::could_not_look(reason),
            Ok(targets) if self.connect == Connect::Tcp => self.connect(cx, targets, &mut seen).await,
            Ok(_) => of_connections().for_each(|path| _ = seen.facts.unknown(path, "not asked for")),
        }
        seen
    }

    fn target(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// What is connected to.
struct Targets {
    cluster_ip: Target,
    direct: Target,
    sides: Option<Sides>,
    entry: Option<Entry>,
}

impl Service {
    /// The API is one way to know the ClusterIP; the inventory is another, and a connection proves more than both.
    fn without_api(&self, cx: &Context, seen: &mut Observation, reason: String) -> Result<Targets, String> {
        let Some(ip) = self.documented(cx).filter(|_| self.connect == Connect::Tcp) else { return Err(reason) };
        seen.note("error", &reason).note("inventory", format!("ClusterIP {ip} is taken from the inventory"));
        all_unknown(&mut seen.facts, &reason);
        Ok(Targets { cluster_ip: Ok(SocketAddrV4::new(ip, self.port)), direct: Err(reason), sides: None, entry: None })
    }

    /// Connects to the Service and to its endpoints, from here and from the witness.
    async fn connect(&self, cx: &Context, targets: Targets, seen: &mut Observation) {
        let Targets { cluster_ip, direct, sides, entry } = targets;
        let name = ladder::name(cx, &self.namespace, &self.name);
        let witness = ladder::from_witness(cx, &cluster_ip, &direct, (&self.namespace, &self.name));
        let (through, straight, name, witness, entries) =
            futures::join!(attempt(cx, &cluster_ip), attempt(cx, &direct), name, witness, entry::walk(cx, entry));
        seen.facts.set("entries", entries);
        let known = direct.as_ref().ok().zip(straight.as_ref()).map(|(at, tried)| (*at, tried.word().to_owned()));
        let filtered = straight.as_ref().and_then(Tried::filtered);
        seen.facts.set_or_unknown("direct_filtered", filtered, "nobody refuses it");
        record(seen, "connect", &cluster_ip, through);
        record(seen, "direct", &direct, straight);
        ladder::walk(cx, sides.as_ref(), known, seen).await;
        ladder::record(seen, witness, &cluster_ip, &direct);
        self.named(seen, name);
    }

    /// What DNS says, and where the paths part. Of a Service that does not exist nothing is expected.
    fn named(&self, seen: &mut Observation, (rcode, addresses): (String, Vec<Ipv4Addr>)) {
        let cluster_ip = seen.facts.get("cluster_ip").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
        match cluster_ip {
            Some(ip) if rcode == "NOERROR" => _ = seen.facts.set("name_matches", addresses.contains(&ip)),
            Some(_) => _ = seen.facts.unknown("name_matches", format!("the name was not resolved: {rcode}")),
            None => _ = seen.facts.unknown("name_matches", "the ClusterIP is not known"),
        }
        seen.note("dns", format!("{}.{}: {rcode} {addresses:?}", self.name, self.namespace)).facts.set("by_name", rcode);
        let parts = ladder::parts_at(&seen.facts);
        seen.facts.set_or_unknown("parts_at", parts, "the paths do not tell");
    }

    /// The ClusterIP that the inventory states.
    fn documented(&self, cx: &Context) -> Option<Ipv4Addr> {
        cx.inventory.services.iter().find(|s| s.name == self.name && s.namespace == self.namespace)?.cluster_ip
    }

    /// Asks the API; returns the targets of the two connections, or why the API did not say anything about the Service.
    async fn look(&self, cx: &Context, seen: &mut Observation) -> Result<Targets, String> {
        let api = &kube_client::connected(cx).await?;
        let namespace = kube_client::encode(&self.namespace);
        let path = format!("/api/v1/namespaces/{namespace}/services/{}", kube_client::encode(&self.name));
        let service: core::Service = match api.object(&path, "get services").await {
            Ok(service) => service,
            Err(failure) if failure.at == At::Status(404) => return Ok(absent(seen, &failure)),
            Err(failure) => return Err(format!("the Kubernetes API did not give the service: {}", failure.word)),
        };
        seen.facts.set("exists", true);
        let cluster_ip = service.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default();
        seen.facts.set("cluster_ip", clean(&cluster_ip, 64));
        let entry = backends::service_port(&service, self.port);
        let target = entry.map(backends::target_port);
        seen.facts.set_or_unknown("target_port", target, &format!("the service has no port {}", self.port));
        let (slices, ()) = futures::future::join(
            self.slices(api, &namespace),
            select(api, &namespace, service.spec.as_ref().and_then(|s| s.selector.as_ref()), &mut seen.facts),
        )
        .await;
        let node_port = entry::policies(&service, entry, &mut seen.facts);
        let (mut sides, mut way_in) = (None, None);
        let direct = match (slices, entry) {
            (Ok(slices), Some(entry)) => {
                let backends = backends::collect(&slices, entry.name.as_deref());
                sides = ladder::sides(cx, &backends.ready, &slices);
                way_in = entry::entry(node_port.filter(|_| backends::is_tcp(entry)), &backends.ready, &slices);
                let direct = count(seen, &backends);
                self.explain(api, &namespace, &backends, service.spec.as_ref().and_then(|s| s.selector.as_ref()), seen).await;
                direct
            }
            (Ok(_), None) => Err(self.no_such_port(seen)),
            (Err(failure), _) => Err(unlisted(seen, &failure)),
        };
        let tcp = match entry {
            None => Err(format!("the service has no port {}", self.port)),
            Some(entry) if !backends::is_tcp(entry) => Err(format!("port {} is not TCP", self.port)),
            Some(_) => Ok(()),
        };
        let cluster_ip = tcp.clone().and_then(|()| Ok(SocketAddrV4::new(address(&cluster_ip)?, self.port)));
        Ok(Targets { cluster_ip, direct: tcp.and(direct), sides, entry: way_in })
    }

    /// Asks for the pods themselves only where something is wrong with them.
    async fn explain(&self, api: &Connected, namespace: &str, backends: &Backends, labels: Option<&Labels>, seen: &mut Observation) {
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) if backends.ports_unset || !backends.not_ready.is_empty() => {
                unready::explain(api, namespace, labels, &mut seen.facts).await;
            }
            Some(_) => {
                seen.facts
                    .set("unready_because", "")
                    .set("warning", "")
                    .unknown("container_ports", "not asked for: nothing is wrong with the pods");
            }
            None => {
                for path in ["unready_because", "warning", "container_ports"] {
                    seen.facts.unknown(path, "the service has no selector");
                }
            }
        }
    }

    async fn slices(&self, api: &Connected, namespace: &str) -> Result<Vec<SliceText>, Failure> {
        let label = format!("kubernetes.io%2Fservice-name%3D{}", kube_client::encode(&self.name));
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}");
        api.list(&path, "list endpointslices").await
    }

    fn no_such_port(&self, seen: &mut Observation) -> String {
        let reason = format!("the service has no port {}", self.port);
        seen.note("error", &reason);
        of_endpoints(&mut seen.facts, &reason);
        reason
    }
}

/// Facts that the slices would have given.
fn of_endpoints(facts: &mut Facts, reason: &str) {
    let paths = ["ready", "not_ready", "terminating", "ports_unset", "endpoints", "container_ports", "unready_because", "warning"];
    for path in paths {
        facts.unknown(path, reason);
    }
}

/// The API knows no such Service.
fn absent(seen: &mut Observation, failure: &Failure) -> Targets {
    let reason = "the service does not exist".to_owned();
    seen.note("http", &failure.word).facts.set("exists", false);
    all_unknown(&mut seen.facts, &reason);
    Targets { cluster_ip: Err(reason.clone()), direct: Err(reason), sides: None, entry: None }
}

fn address(cluster_ip: &str) -> Result<Ipv4Addr, String> {
    cluster_ip.parse().map_err(|_| match cluster_ip {
        "None" => "a headless service has no ClusterIP".to_owned(),
        _ => "the service has no IPv4 ClusterIP".to_owned(),
    })
}

/// The facts that the API tells come first, then those that connections tell.
fn of_api() -> impl Iterator<Item = &'static str> {
    KIND.facts.iter().map(|doc| doc.path).take_while(|path| *path != "connect")
}

fn of_connections() -> impl Iterator<Item = &'static str> {
    KIND.facts.iter().map(|doc| doc.path).skip_while(|path| *path != "connect")
}

fn all_unknown(facts: &mut Facts, reason: &str) {
    for path in of_api() {
        facts.unknown(path, reason);
    }
}

fn unlisted(seen: &mut Observation, failure: &Failure) -> String {
    seen.note("error", format!("{}\n{}", failure.word, failure.detail).trim_end());
    of_endpoints(&mut seen.facts, &failure.word);
    format!("the endpoints could not be listed: {}", failure.word)
}

/// Pods in place of what is needed of them.
#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
}

#[derive(Deserialize)]
struct PodMetadata {
    #[serde(default)]
    labels: Option<Labels>,
}

/// Facts about the selector and the namespace's pods.
async fn select(api: &Connected, namespace: &str, selector: Option<&Labels>, facts: &mut Facts) {
    let selector = selector.cloned().unwrap_or_default();
    facts.set("selector", selector::text(&selector));
    if selector.is_empty() {
        facts.unknown("selector_matches", "the service has no selector").unknown("near_miss", "the service has no selector");
        return;
    }
    match api.list_metadata::<Pod>(&format!("/api/v1/namespaces/{namespace}/pods"), "list pods").await {
        Ok(pods) => {
            let pods: Namespace = pods.into_iter().map(|p| p.metadata.labels.unwrap_or_default()).collect();
            let matches = pods.matches(&selector);
            let near = if matches == 0 { pods.near_miss(&selector) } else { String::new() };
            facts.set("selector_matches", matches).set("near_miss", near);
        }
        Err(failure) => {
            facts.unknown("selector_matches", &failure.word).unknown("near_miss", &failure.word);
        }
    }
}

/// Facts about the endpoints; returns the first ready one.
fn count(seen: &mut Observation, backends: &Backends) -> Target {
    let listed: Vec<Value> = backends.ready.iter().take(MOST_LISTED).map(|e| e.to_string().into()).collect();
    let facts = &mut seen.facts;
    facts.set("ready", backends.ready.len()).set("not_ready", backends.not_ready.len());
    facts.set("terminating", backends.terminating.len());
    facts.set("ports_unset", backends.ports_unset).set("endpoints", listed);
    backends.ready.first().copied().ok_or_else(|| NO_ENDPOINT.to_owned())
}

async fn attempt(cx: &Context, target: &Target) -> Option<Tried> {
    Some(tcp::connect(&cx.vantage.net, *target.as_ref().ok()?, cx.deadline).await)
}

fn record(seen: &mut Observation, path: &str, target: &Target, outcome: Option<Tried>) {
    let in_ms = format!("{path}_ms");
    match (outcome, target) {
        (Some(tried), Ok(address)) => {
            let (word, after) = (tried.word(), ms(tried.after));
            let by = tried.refused_by().map(|hop| format!(", by an ICMP error of {hop}")).unwrap_or_default();
            seen.note("connect", format!("{address}: {word} after {after} ms{by}"));
            seen.facts.set(path, word).set(&in_ms, after);
        }
        (_, Err(reason)) if reason == NO_ENDPOINT => _ = seen.facts.set(path, "").unknown(&in_ms, reason),
        (_, Err(reason)) => _ = seen.facts.unknown(path, reason).unknown(&in_ms, reason),
        (None, Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests;
