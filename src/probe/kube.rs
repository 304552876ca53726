//! `kube`: the Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart.

use super::der;
use super::kube_client::{self, Answer, At, Connected, Failure, KubeApi, OpenError};
use super::net::ms;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart.
pub(super) static KIND: Kind = Kind {
    name: "kube",
    root: "kube",
    about: "The Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart",
    privilege: Some("a kubeconfig"),
    args: &[],
    facts: &[
        fact("source", "text", "kubeconfig that was used"),
        fact("context", "text", "its current context; empty if it has none"),
        fact("credentials", "text", "by what it proves who asks: `client certificate`, `token`, `exec plugin NAME`, `password`, `none`"),
        fact("server", "text", "API server's URL"),
        fact("stage", "text", "where it stopped: config, connect, tls, auth, version, readyz, nodes, or done"),
        fact("error", "text", "what stopped it; empty if nothing"),
        fact("connect_ms", "ms", "time of the TCP handshake"),
        fact("reachable", "bool", "the server answered `/version`"),
        fact("version", "text", "server version"),
        fact("ready", "bool", "`/readyz` answered 200"),
        fact("readyz_failed", "list of text", "checks that `/readyz` names as failed"),
        fact("listed", "bool", "nodes could be listed from the datastore"),
        fact("list_error", "text", "why nodes could not be listed; empty if they could"),
        fact("server_cert_days", "days", "until the server's certificate expires; negative if it has"),
        fact("client_cert_days", "days", "until the kubeconfig's client certificate expires; negative if it has"),
        fact(
            "clock_ahead_s",
            "s",
            "how far the server's clock is ahead of this machine's, by the `Date` of its answers; negative if behind",
        ),
        fact("nodes", "list", "each node: name, ready, why, internal_ip, pod_cidr, kubelet_version, flannel_public_ip, flannel_mac"),
        fact("not_ready", "list of text", "names of nodes that are not ready"),
    ],
    decode: decode::<Kube>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kube {}

#[async_trait]
impl Probe for Kube {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Seen::default();
        match KubeApi::open(cx).await {
            Err(OpenError::NoKubeconfig(reason)) => return Observation::could_not_look(reason),
            Err(OpenError::Unusable { source, failure }) => {
                seen.facts().set("source", source);
                seen.stop("config", &failure);
            }
            Ok(api) => seen.ask(&api).await,
        }
        seen.finish()
    }

    fn target(&self) -> String {
        "Kubernetes API".to_owned()
    }
}

/// The observation as it grows; the first failure decides where it stopped.
#[derive(Default)]
struct Seen {
    observation: Observation,
    stopped: Option<(&'static str, String)>,
}

impl Seen {
    fn facts(&mut self) -> &mut Facts {
        &mut self.observation.facts
    }

    /// Notes a failure at a stage of ours; what failed earlier on the way names its own stage.
    fn stop(&mut self, stage: &'static str, failure: &Failure) {
        let stage = match failure.at {
            At::Config => "config",
            At::Connect => "connect",
            At::Tls => "tls",
            At::Denied => "auth",
            At::Http | At::Status(_) | At::TooLarge | At::NotApi => stage,
        };
        self.observation.note("error", format!("{stage}: {}\n{}", failure.word, failure.detail).trim_end());
        self.stopped.get_or_insert((stage, failure.word.clone()));
    }

    async fn ask(&mut self, api: &KubeApi) {
        self.facts().set("source", api.source.as_str()).set("server", api.server.as_str());
        self.facts().set("context", api.context.as_str()).set("credentials", api.credentials());
        let (server_days, client_days) = futures::future::join(api.server_certificate(), api.client_certificate()).await;
        self.certificate("server_cert_days", server_days, "no TLS session with the server");
        self.certificate("client_cert_days", client_days, "the kubeconfig has no client certificate");
        let connected = match api.connect().await {
            Ok(connected) => connected,
            Err(failure) => {
                if failure.at == At::Connect {
                    self.facts().set("reachable", false);
                }
                return self.stop("connect", &failure);
            }
        };
        self.facts().set_or_unknown("connect_ms", connected.handshake.map(ms), "the server has no IPv4 address");
        let version = connected.get("/version").await;
        let ahead = match &version {
            Ok(answer) => answer.clock_ahead_s,
            Err(failure) if failure.at == At::Tls => api.clock_ahead_s().await,
            Err(_) => None,
        };
        self.facts().set_or_unknown("clock_ahead_s", ahead, "no answer of the server has a date");
        if !self.version(version.and_then(|answer| answer.json("get /version"))) {
            return;
        }
        // Both may wait for a hung datastore, so they wait together.
        let (readyz, nodes) = futures::future::join(connected.get("/readyz?verbose"), nodes(&connected)).await;
        self.readyz(readyz);
        self.nodes(nodes);
    }

    fn certificate(&mut self, path: &str, certificate: Option<Vec<u8>>, why_not: &str) {
        let ends = certificate.as_deref().and_then(der::not_after);
        let days = ends.map(|at| (at - chrono::Utc::now().naive_utc()).num_minutes() as f64 / 1440.0);
        if let Some(at) = ends {
            self.observation.note("tls", format!("{path}: notAfter {at}"));
        }
        self.facts().set_or_unknown(path, days.map(|d| (d * 10.0).round() / 10.0), why_not);
    }

    /// Returns whether it makes sense to ask on.
    fn version(&mut self, answer: Result<Version, Failure>) -> bool {
        match answer {
            Ok(version) => {
                let text = clean(&version.git_version, 80);
                self.observation.note("http", format!("GET /version: 200 {text}"));
                self.facts().set("reachable", true).set("version", text);
                true
            }
            Err(failure) => {
                let reachable = matches!(failure.at, At::Denied | At::Status(_));
                self.facts().set("reachable", reachable).unknown("version", &failure.word);
                self.stop("version", &failure);
                reachable
            }
        }
    }

    /// 200 is ready; 500 is not and names what; anything else says nothing about readiness.
    fn readyz(&mut self, answer: Result<Answer, Failure>) {
        let failure = match answer {
            Ok(Answer { status: 200, .. }) => {
                self.facts().set("ready", true).set("readyz_failed", json!([]));
                return;
            }
            Ok(Answer { status: status @ 500..=599, body, .. }) if body.starts_with(b"[") => {
                let failed = failed_checks(&String::from_utf8_lossy(&body));
                self.facts().set("ready", false).set("readyz_failed", failed.clone());
                Failure::new(At::Status(status), format!("{status} {}", failed.join(", ")))
            }
            Ok(answer) => answer.failure("get /readyz").unwrap_or_else(|| Failure::new(At::NotApi, "not an API server")),
            Err(failure) => failure,
        };
        self.facts().unknown("ready", &failure.word).unknown("readyz_failed", &failure.word);
        self.stop("readyz", &failure);
    }

    /// Being refused says nothing about the datastore; an error or no answer in time does.
    fn nodes(&mut self, answer: Result<Vec<Node>, Failure>) {
        match answer {
            Ok(nodes) => {
                let nodes: Vec<Value> = nodes.iter().map(node_fact).collect();
                let not_ready: Vec<Value> = nodes.iter().filter(|n| n["ready"] == json!(false)).map(|n| n["name"].clone()).collect();
                self.observation.note("http", format!("GET /api/v1/nodes: 200, {} nodes", nodes.len()));
                self.facts().set("listed", true).set("list_error", "").set("nodes", nodes).set("not_ready", not_ready);
            }
            Err(failure) => {
                self.facts().set("list_error", failure.word.as_str());
                if matches!(failure.at, At::Http | At::Status(500..)) {
                    self.facts().set("listed", false);
                }
                self.stop("nodes", &failure);
            }
        }
    }

    /// What is neither known nor explained by then is unknown for the reason it stopped.
    fn finish(mut self) -> Observation {
        let (stage, error) = self.stopped.take().unwrap_or(("done", String::new()));
        let reason = format!("stopped at {stage}: {error}");
        let facts = self.facts();
        facts.set("stage", stage).set("error", error);
        facts.rest_unknown(&KIND, &reason);
        self.observation
    }
}

/// The part of `/version` that every API server has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

async fn nodes(api: &Connected) -> Result<Vec<Node>, Failure> {
    api.list("/api/v1/nodes", "list nodes").await
}

/// Names in lines such as `[-]etcd failed: reason withheld`.
fn failed_checks(body: &str) -> Vec<String> {
    let name = |line: &str| line.strip_prefix("[-]").and_then(|rest| rest.split_whitespace().next()).map(|name| clean(name, 120));
    body.lines().filter_map(name).take(64).collect()
}

fn node_fact(node: &Node) -> Value {
    let status = node.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let ready = condition.is_some_and(|c| c.status == "True");
    let why =
        condition.filter(|_| !ready).map(|c| format!("{}: {}", c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or("")));
    let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP").map(|a| a.address.as_str());
    let annotation = |key: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let text = |value: Option<&str>| clean(value.unwrap_or_default(), 253);
    json!({
        "name": text(node.metadata.name.as_deref()),
        "ready": ready,
        "why": text(why.as_deref()),
        "internal_ip": text(address),
        "pod_cidr": text(node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref())),
        "kubelet_version": text(status.node_info.as_ref().map(|i| i.kubelet_version.as_str())),
        "flannel_public_ip": text(annotation("flannel.alpha.coreos.com/public-ip")),
        "flannel_mac": vtep_mac(annotation("flannel.alpha.coreos.com/backend-data")),
    })
}

/// The MAC address in `{"VNI":1,"VtepMAC":"aa:bb:.."}`; empty if there is none.
fn vtep_mac(backend_data: Option<&str>) -> String {
    let data: Option<Value> = backend_data.and_then(|text| serde_json::from_str(text).ok());
    clean(data.as_ref().and_then(|d| d["VtepMAC"].as_str()).unwrap_or_default(), 17)
}

/// Annotations of a Node object (`node` is the object's name); the error says why they could not be had.
#[allow(dead_code, reason = "the flannel probe uses it")]
pub(crate) async fn node_annotations(cx: &Context, node: &str) -> Result<BTreeMap<String, String>, String> {
    let api = kube_client::connected(cx).await?;
    let path = format!("/api/v1/nodes/{}", kube_client::encode(node));
    let node: Node = api.object(&path, "get nodes").await.map_err(|failure| failure.word)?;
    Ok(node.metadata.annotations.unwrap_or_default())
}

/// The pod CIDR that the API assigns to a node, if any; for probes that compare it.
pub(crate) async fn node_pod_cidr(cx: &Context, node: &str) -> Result<Option<String>, String> {
    let api = kube_client::connected(cx).await?;
    let path = format!("/api/v1/nodes/{}", kube_client::encode(node));
    let node: Node = api.object(&path, "get nodes").await.map_err(|failure| failure.word)?;
    Ok(node.spec.and_then(|spec| spec.pod_cidr))
}

#[cfg(test)]
mod tests {
    use super::kube_client::fake::{Fake, Reply, Tls, context};
    use super::*;
    use crate::vantage::{Net, NetNs, Source};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn healthy() -> Vec<(&'static str, Reply)> {
        vec![
            ("/version", Reply::capture("version")),
            ("/readyz", Reply::capture("readyz-verbose")),
            ("/api/v1/nodes", Reply::capture("list-nodes")),
        ]
    }

    /// The healthy server with one answer changed.
    fn but(path: &'static str, reply: Reply) -> Vec<(&'static str, Reply)> {
        let mut routes = healthy();
        routes.retain(|(p, _)| *p != path);
        routes.push((path, reply));
        routes
    }

    async fn observe(tls: Tls, routes: &[(&'static str, Reply)], patience: Duration) -> Value {
        let fake = Fake::start(&Net::Here, tls, routes);
        Kube {}.observe(&fake.context(Net::Here, patience)).await.facts.to_json()
    }

    fn stop(facts: &Value) -> (&str, &str) {
        (facts["stage"].as_str().unwrap(), facts["error"].as_str().unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_healthy_server_is_read_to_the_end() {
        let facts = observe(Tls::Good, &healthy(), PATIENCE).await;
        assert_eq!(stop(&facts), ("done", ""));
        assert_eq!(facts["version"], json!("v1.33.13"));
        assert_eq!((&facts["reachable"], &facts["ready"], &facts["listed"]), (&json!(true), &json!(true), &json!(true)));
        let calypso = facts["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "calypso").unwrap();
        assert_eq!((&calypso["internal_ip"], &calypso["pod_cidr"]), (&json!("100.64.0.2"), &json!("10.42.2.0/24")));
        assert_eq!(calypso["flannel_public_ip"], json!("100.64.0.2"));
        assert_eq!(calypso["flannel_mac"].as_str().unwrap().len(), 17);
        assert_eq!(facts["not_ready"], json!(["srv712695"]));
        assert!(facts["server_cert_days"].as_f64().unwrap() > 0.0);
        assert_eq!(facts["client_cert_days"], json!({"unknown": "the kubeconfig has no client certificate"}));
        let unknown = facts.as_object().unwrap().values().filter(|v| v.get("unknown").is_some());
        // The client certificate, and the clock: the captured answers are given out without their dates.
        assert_eq!(unknown.count(), 2);
        assert_eq!((&facts["context"], &facts["credentials"]), (&json!("c"), &json!("token")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tls_failures_have_words_of_their_own() {
        for (tls, expected) in [
            (Tls::UnknownIssuer, ("tls", "tls: unknown issuer")),
            (Tls::WrongName, ("tls", "tls: wrong name")),
            (Tls::Expired, ("tls", "tls: expired")),
            (Tls::Silent, ("tls", "TIMEOUT")),
            (Tls::Plain, ("version", "not an API server")),
        ] {
            let facts = observe(tls, &healthy(), PATIENCE).await;
            assert_eq!(stop(&facts), expected);
            assert_eq!(facts["reachable"], json!(false));
            assert_eq!(facts["ready"], json!({"unknown": format!("stopped at {}: {}", expected.0, expected.1)}));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hung_datastore_is_neither_down_nor_silent() {
        let mut routes = but("/readyz", Reply::capture("etcd-hung-readyz"));
        routes.retain(|(p, _)| *p != "/api/v1/nodes");
        routes.push(("/api/v1/nodes", Reply::capture("etcd-hung-list")));
        let facts = observe(Tls::Good, &routes, PATIENCE).await;
        assert_eq!(stop(&facts), ("readyz", "500 etcd, etcd-readiness"));
        assert_eq!(facts["readyz_failed"], json!(["etcd", "etcd-readiness"]));
        assert_eq!((&facts["reachable"], &facts["ready"], &facts["listed"]), (&json!(true), &json!(false), &json!(false)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn being_refused_is_neither_down_nor_unready() {
        let refused = Reply::capture("unauthorized-no-cert");
        let all = [("/version", refused.clone()), ("/readyz", refused.clone()), ("/api/v1/nodes", refused)];
        let facts = observe(Tls::Good, &all, PATIENCE).await;
        assert_eq!(stop(&facts), ("auth", "401 Unauthorized"));
        assert_eq!((&facts["reachable"], &facts["ready"]), (&json!(true), &json!({"unknown": "401 Unauthorized"})));

        let facts = observe(Tls::Good, &but("/api/v1/nodes", Reply::capture("forbidden-pods")), PATIENCE).await;
        assert_eq!(stop(&facts), ("auth", "403 Forbidden (list nodes)"));
        assert_eq!(facts["ready"], json!(true));
        assert!(facts["listed"].get("unknown").is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hostile_answers_end_honestly_and_in_time() {
        let big = [br#"{"items":["#.to_vec(), vec![b' '; 11 << 20], b"]}".to_vec()].concat();
        let cases = [
            ("/version", Reply::Body(200, b"<html>Sign in</html>".to_vec()), ("version", "not an API server")),
            ("/version", Reply::Body(403, b"<html>Denied</html>".to_vec()), ("version", "not an API server")),
            ("/version", Reply::Raw(b"\x15\x03\x01 no HTTP\r\n\r\n".to_vec()), ("version", "not an API server")),
            ("/version", Reply::Raw(Vec::new()), ("version", "closed without an answer")),
            (
                "/version",
                Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()),
                ("version", "an answer that was cut short"),
            ),
            ("/version", Reply::Silence, ("version", "TIMEOUT")),
            ("/readyz", Reply::Body(200, Vec::new()), ("done", "")),
            ("/readyz", Reply::Body(500, b"[-]\n[-] \n[-]\x1b[2J failed\n".to_vec()), ("readyz", "500 \\u{1b}[2J")),
            ("/api/v1/nodes", Reply::Body(200, br#"{"items":[{"metadata":{"na"#.to_vec()), ("nodes", "not an API server")),
            ("/api/v1/nodes", Reply::Body(200, br#"{"items":{}}"#.to_vec()), ("nodes", "not an API server")),
            ("/api/v1/nodes", Reply::Body(200, big), ("nodes", "an answer of more than 10 MB")),
            ("/api/v1/nodes", Reply::Drip, ("nodes", "TIMEOUT")),
        ];
        for (path, reply, expected) in cases {
            let began = Instant::now();
            let facts = observe(Tls::Good, &but(path, reply), Duration::from_secs(3)).await;
            assert_eq!(stop(&facts), expected, "{path}");
            assert!(began.elapsed() < Duration::from_secs(5), "{path} took {:?}", began.elapsed());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_kubeconfig_it_says_where_it_looked() {
        let seen = Kube {}.observe(&context(Net::Here, None, PATIENCE)).await;
        assert_eq!(seen.could_not_look.as_deref(), Some("no kubeconfig (tried /nowhere/kubeconfig: no such file)"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broken_kubeconfig_stops_at_config() {
        let seen = Kube {}.observe(&context(Net::Here, Some(Source::Text("current-context: 7".to_owned())), PATIENCE)).await;
        let facts = seen.facts.to_json();
        assert_eq!(stop(&facts).0, "config");
        assert!(facts["reachable"].get("unknown").is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_connections_are_made_inside_the_vantages_network() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let inside = Net::Ns(NetNs::create("inside").unwrap());
        loopback_up(&inside).await;
        let fake = Fake::start(&inside, Tls::Good, &healthy());
        let seen = Kube {}.observe(&fake.context(inside, PATIENCE)).await.facts.to_json();
        assert_eq!(stop(&seen), ("done", ""));
        // The same address is another machine's from here.
        let outside = Kube {}.observe(&fake.context(Net::Here, PATIENCE)).await.facts.to_json();
        assert_eq!(stop(&outside), ("connect", "ECONNREFUSED"));
        assert_eq!(outside["reachable"], json!(false));
        let down = Net::Ns(NetNs::create("down").unwrap());
        let unreachable = Kube {}.observe(&fake.context(down, PATIENCE)).await.facts.to_json();
        assert_eq!(stop(&unreachable), ("connect", "ENETUNREACH"));
    }

    async fn loopback_up(net: &Net) {
        let (connection, handle, _) = net.with(rtnetlink::new_connection).unwrap().unwrap();
        tokio::spawn(connection);
        handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn annotations_of_a_node_are_handed_on() {
        let node = br#"{"kind":"Node","apiVersion":"v1","metadata":{"annotations":{"a/b":"c"}}}"#.to_vec();
        let fake = Fake::start(&Net::Here, Tls::Good, &[("/api/v1/nodes/calypso", Reply::Body(200, node))]);
        let cx = fake.context(Net::Here, PATIENCE);
        assert_eq!(node_annotations(&cx, "calypso").await.unwrap()["a/b"], "c");
        assert_eq!(node_annotations(&cx, "tethys").await.unwrap_err(), "404 not found");
    }

    #[test]
    fn the_mac_is_read_from_flannels_annotation() {
        assert_eq!(vtep_mac(Some(r#"{"VNI":1,"VtepMAC":"8a:31:00:00:00:01"}"#)), "8a:31:00:00:00:01");
        assert_eq!(vtep_mac(Some("null")), "");
        assert_eq!(vtep_mac(None), "");
    }
}
