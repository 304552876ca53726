//! `service`: a Service, its EndpointSlices and its pods through the API, and connections to its ClusterIP and straight to a backend.

mod all;
pub(super) mod backends;
mod selector;

pub use all::{Objects, PortState, Services, every_service};

use super::kube_client::{self, At, Connected, Failure};
use super::net::{self, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use backends::{Backends, SliceText};
use k8s_openapi::api::core::v1 as core;
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
        fact("connect", "text", "`ok` or the errno of a connection to ClusterIP:port"),
        fact("connect_ms", "ms", "how long that took"),
        fact("direct", "text", "`ok` or the errno of a connection to the first ready endpoint; empty if there is none"),
        fact("direct_ms", "ms", "how long that took"),
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
        let (cluster_ip, direct) = match self.look(cx, &mut seen).await {
            Ok(targets) => targets,
            // The API is one way to know the ClusterIP; the inventory is another, and a connection proves more than both.
            Err(reason) => match self.documented(cx).filter(|_| self.connect == Connect::Tcp) {
                None => return Observation::could_not_look(reason),
                Some(ip) => {
                    seen.note("error", &reason).note("inventory", format!("ClusterIP {ip} is taken from the inventory"));
                    all_unknown(&mut seen.facts, &reason);
                    (Ok(SocketAddrV4::new(ip, self.port)), Err(reason))
                }
            },
        };
        if self.connect == Connect::None {
            for path in ["connect", "connect_ms", "direct", "direct_ms"] {
                seen.facts.unknown(path, "not asked for");
            }
        } else {
            let (through, straight) = futures::future::join(attempt(cx, &cluster_ip), attempt(cx, &direct)).await;
            record(&mut seen, "connect", &cluster_ip, through);
            record(&mut seen, "direct", &direct, straight);
        }
        seen
    }

    fn target(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl Service {
    /// The ClusterIP that the inventory states.
    fn documented(&self, cx: &Context) -> Option<Ipv4Addr> {
        cx.inventory.services.iter().find(|s| s.name == self.name && s.namespace == self.namespace)?.cluster_ip
    }

    /// Asks the API; returns the targets of the two connections, or why the API did not say anything about the Service.
    async fn look(&self, cx: &Context, seen: &mut Observation) -> Result<(Target, Target), String> {
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
        let (slices, ()) = futures::future::join(
            self.slices(api, &namespace),
            select(api, &namespace, service.spec.as_ref().and_then(|s| s.selector.as_ref()), &mut seen.facts),
        )
        .await;
        let direct = match (slices, entry) {
            (Ok(slices), Some(entry)) => count(seen, &backends::collect(&slices, entry.name.as_deref())),
            (Ok(_), None) => Err(self.no_such_port(seen)),
            (Err(failure), _) => Err(unlisted(seen, &failure)),
        };
        let tcp = match entry {
            None => Err(format!("the service has no port {}", self.port)),
            Some(entry) if !backends::is_tcp(entry) => Err(format!("port {} is not TCP", self.port)),
            Some(_) => Ok(()),
        };
        let through = tcp.clone().and_then(|()| match cluster_ip.parse() {
            Ok(ip) => Ok(SocketAddrV4::new(ip, self.port)),
            Err(_) if cluster_ip == "None" => Err("a headless service has no ClusterIP".to_owned()),
            Err(_) => Err("the service has no IPv4 ClusterIP".to_owned()),
        });
        Ok((through, tcp.and(direct)))
    }

    async fn slices(&self, api: &Connected, namespace: &str) -> Result<Vec<SliceText>, Failure> {
        let label = format!("kubernetes.io%2Fservice-name%3D{}", kube_client::encode(&self.name));
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}");
        api.list(&path, "list endpointslices").await
    }

    fn no_such_port(&self, seen: &mut Observation) -> String {
        let reason = format!("the service has no port {}", self.port);
        seen.note("error", &reason);
        for path in ["ready", "not_ready", "terminating", "ports_unset", "endpoints"] {
            seen.facts.unknown(path, &reason);
        }
        reason
    }
}

/// The API knows no such Service.
fn absent(seen: &mut Observation, failure: &Failure) -> (Target, Target) {
    let reason = "the service does not exist".to_owned();
    seen.note("http", &failure.word).facts.set("exists", false);
    all_unknown(&mut seen.facts, &reason);
    (Err(reason.clone()), Err(reason))
}

fn all_unknown(facts: &mut Facts, reason: &str) {
    for doc in KIND.facts.iter().filter(|doc| !doc.path.starts_with("connect") && !doc.path.starts_with("direct")) {
        facts.unknown(doc.path, reason);
    }
}

fn unlisted(seen: &mut Observation, failure: &Failure) -> String {
    seen.note("error", format!("{}\n{}", failure.word, failure.detail).trim_end());
    for path in ["ready", "not_ready", "terminating", "ports_unset", "endpoints"] {
        seen.facts.unknown(path, &failure.word);
    }
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

/// The word for a connection, and how long it took.
async fn attempt(cx: &Context, target: &Target) -> Option<(String, f64)> {
    match net::connect(&cx.vantage.net, *target.as_ref().ok()?, cx.deadline).await {
        Ok((_, after)) => Some(("ok".to_owned(), ms(after))),
        Err(error) => Some((error.word, ms(error.after))),
    }
}

fn record(seen: &mut Observation, path: &str, target: &Target, outcome: Option<(String, f64)>) {
    let in_ms = format!("{path}_ms");
    match (outcome, target) {
        (Some((word, after)), Ok(address)) => {
            seen.note("connect", format!("{address}: {word} after {after} ms"));
            seen.facts.set(path, word).set(&in_ms, after);
        }
        (_, Err(reason)) if reason == NO_ENDPOINT => _ = seen.facts.set(path, "").unknown(&in_ms, reason),
        (_, Err(reason)) => _ = seen.facts.unknown(path, reason).unknown(&in_ms, reason),
        (None, Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::kube_client::fake::{Fake, Reply, Tls, context};
    use super::*;
    use crate::vantage::Net;
    use serde_json::json;
    use std::time::Duration;

    const SERVICE: &str = "/api/v1/namespaces/apps/services/argilla";
    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/apps/endpointslices";
    const PODS: &str = "/api/v1/namespaces/apps/pods";

    /// The captured Service with another ClusterIP, port and selector, so that nothing but loopback is connected to.
    fn service(cluster_ip: &str, port: u16, name: &str) -> Reply {
        let Reply::Body(_, body) = Reply::capture("list-services") else { unreachable!() };
        let list: Value = serde_json::from_slice(&body).unwrap();
        let mut service = list["items"].as_array().unwrap().iter().find(|s| s["metadata"]["name"] == "argilla").unwrap().clone();
        service["spec"]["clusterIP"] = json!(cluster_ip);
        service["spec"]["ports"][0]["port"] = json!(port);
        service["spec"]["selector"] = json!({"app.kubernetes.io/name": name});
        Reply::Body(200, service.to_string().into_bytes())
    }

    /// The captured slice with its ready endpoint on loopback.
    fn slices(port: u16) -> Reply {
        let Reply::Body(_, body) = Reply::capture("list-endpointslices-label") else { unreachable!() };
        let text = String::from_utf8(body).unwrap();
        Reply::Body(200, text.replace("10.42.0.6", "127.0.0.1").replace("6900", &port.to_string()).into_bytes())
    }

    fn probe(port: u16, connect: &str) -> Box<dyn Probe> {
        let with = format!("name = 'argilla'\nnamespace = 'apps'\nport = {port}\nconnect = '{connect}'");
        (KIND.decode)(&toml::from_str(&with).unwrap()).unwrap()
    }

    async fn observe(routes: &[(&'static str, Reply)], port: u16, connect: &str) -> Value {
        let fake = Fake::start(&Net::Here, Tls::Good, routes);
        probe(port, connect).observe(&fake.context(Net::Here, Duration::from_secs(9))).await.facts.to_json()
    }

    /// A port on loopback that accepts, and the listener that must live as long.
    fn open_port() -> (std::net::TcpListener, u16) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_healthy_service_is_counted_and_connected_to() {
        let (_listener, port) = open_port();
        let routes = [(SERVICE, service("127.0.0.1", port, "argilla")), (SLICES, slices(port)), (PODS, Reply::capture("list-pods-rv0"))];
        let facts = observe(&routes, port, "tcp").await;
        assert_eq!((&facts["exists"], &facts["cluster_ip"]), (&json!(true), &json!("127.0.0.1")));
        assert_eq!(facts["selector"], json!("app.kubernetes.io/name=argilla"));
        assert_eq!((&facts["near_miss"], &facts["ports_unset"]), (&json!(""), &json!(false)));
        assert!(facts["selector_matches"].as_i64().unwrap() >= 1);
        assert_eq!((&facts["ready"], &facts["endpoints"]), (&json!(1), &json!([format!("127.0.0.1:{port}")])));
        assert_eq!((&facts["connect"], &facts["direct"]), (&json!("ok"), &json!("ok")));
        assert!(facts["connect_ms"].is_f64() && facts["direct_ms"].is_f64());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_misspelt_selector_has_no_matches_but_a_near_miss() {
        let empty = Reply::Body(200, br#"{"kind":"EndpointSliceList","metadata":{},"items":[]}"#.to_vec());
        let routes = [(SERVICE, service("127.0.0.1", 1, "argila")), (SLICES, empty), (PODS, Reply::capture("list-pods-rv0"))];
        let facts = observe(&routes, 1, "tcp").await;
        assert_eq!((&facts["selector_matches"], &facts["ready"]), (&json!(0), &json!(0)));
        assert!(facts["near_miss"].as_str().unwrap().ends_with("app.kubernetes.io/name=argilla"), "{facts}");
        assert_eq!((&facts["connect"], &facts["direct"]), (&json!("ECONNREFUSED"), &json!("")));
        assert_eq!(facts["direct_ms"], json!({"unknown": "no endpoint is ready"}));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pods_that_may_not_be_listed_leave_only_their_facts_unknown() {
        let routes = [(SERVICE, service("None", 80, "argilla")), (SLICES, slices(6900)), (PODS, Reply::capture("forbidden-pods"))];
        let facts = observe(&routes, 80, "none").await;
        for path in ["selector_matches", "near_miss"] {
            assert_eq!(facts[path], json!({"unknown": "403 Forbidden (list pods)"}));
        }
        assert_eq!((&facts["cluster_ip"], &facts["ready"]), (&json!("None"), &json!(1)));
        assert_eq!(facts["connect"], json!({"unknown": "not asked for"}));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_headless_service_has_nothing_to_connect_to_but_its_backends() {
        let (_listener, port) = open_port();
        let routes = [(SERVICE, service("None", port, "argilla")), (SLICES, slices(port)), (PODS, Reply::capture("list-pods-rv0"))];
        let facts = observe(&routes, port, "tcp").await;
        assert_eq!(facts["connect"], json!({"unknown": "a headless service has no ClusterIP"}));
        assert_eq!(facts["direct"], json!("ok"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_does_not_exist_is_a_fact() {
        let facts = observe(&[(SERVICE, Reply::capture("get-service-404"))], 80, "tcp").await;
        assert_eq!(facts["exists"], json!(false));
        for path in ["ready", "selector_matches", "connect", "direct_ms"] {
            assert_eq!(facts[path], json!({"unknown": "the service does not exist"}), "{path}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_api_a_documented_cluster_ip_is_still_connected_to() {
        let (_listener, port) = open_port();
        let fake = Fake::start(&Net::Here, Tls::Good, &[(SERVICE, Reply::Silence)]);
        let mut cx = fake.context(Net::Here, Duration::from_secs(9));
        let seen = probe(port, "tcp").observe(&cx).await;
        assert_eq!(seen.could_not_look.unwrap(), "the Kubernetes API did not give the service: TIMEOUT");
        cx.deadline = tokio::time::Instant::now() + Duration::from_secs(9);
        let documented = format!("name = 'argilla'\nnamespace = 'apps'\ncluster_ip = '127.0.0.1'\nport = {port}\nprotocol = 'tcp'");
        let mut inventory = (*cx.inventory).clone();
        inventory.services.push(toml::from_str(&documented).unwrap());
        cx.inventory = std::sync::Arc::new(inventory);
        let facts = probe(port, "tcp").observe(&cx).await.facts.to_json();
        assert_eq!(facts["connect"], json!("ok"));
        assert_eq!(facts["exists"], json!({"unknown": "the Kubernetes API did not give the service: TIMEOUT"}));
        let nowhere = context(Net::Here, None, Duration::from_secs(9));
        assert!(probe(port, "tcp").observe(&nowhere).await.could_not_look.unwrap().starts_with("no kubeconfig"));
    }

    #[test]
    fn arguments_are_typed_and_closed() {
        let decode = |text: &str| (KIND.decode)(&toml::from_str(text).unwrap()).map(|p| p.target());
        assert_eq!(decode("name = 'a'\nnamespace = 'b'\nport = 80").unwrap(), "b/a:80");
        assert!(decode("name = 'a'\nnamespace = 'b'\nport = 80\nconnect = 'udp'").is_err());
        assert!(decode("name = 'a'\nnamespace = 'b'\nport = 80\nx = 1").is_err());
    }
}
