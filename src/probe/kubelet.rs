//! `kubelet`: a pod's log through the API, which only the node's kubelet has, and that kubelet's port.

use super::kube_client::{self, At, Connected, Failure, encode};
use super::{Context, Kind, Probe, decode, fact, net};
use crate::check::{Facts, Observation, clean};
use crate::vantage::VantageKind;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A pod's log through the API, which only the node's kubelet has, and that kubelet's port.
pub(super) static KIND: Kind = Kind {
    name: "kubelet",
    root: "kubelet",
    about: "A pod's log through the API, which only the node's kubelet has, and that kubelet's port",
    privilege: Some("a kubeconfig"),
    args: &[("node", "Kubernetes node name"), ("port", "the kubelets' port")],
    facts: &[
        fact("node_ready", "bool", "the node's Ready condition is True: its kubelet reaches the API"),
        fact("address", "address", "the node's InternalIP"),
        fact("pod", "text", "the pod whose log was asked for"),
        fact("answered", "bool", "the log came; what is in it is not kept"),
        fact("failure", "text", "empty, or where it failed: `tunnel` (no session of the agent), `certificate`, `dial`, `timeout`, `other`"),
        fact("error", "text", "what the API said; empty if the log came"),
        fact(
            "port_open",
            "bool",
            "the kubelet's port takes connections from this node; otherwise unknown: then not only logs are affected",
        ),
    ],
    decode: decode::<Kubelet>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kubelet {
    node: String,
    port: u16,
}

/// The first page of a list is enough.
#[derive(Deserialize)]
struct FirstPage {
    items: Vec<Pod>,
}

#[async_trait]
impl Probe for Kubelet {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        if let Err(reason) = self.ask(cx, &mut seen).await {
            seen.note("error", &reason);
            if seen.facts.is_empty() {
                return Observation::could_not_look(reason);
            }
            seen.rest_unknown(&KIND, &reason);
        }
        seen
    }

    fn target(&self) -> String {
        format!("kubelet of {}", self.node)
    }
}

impl Kubelet {
    async fn ask(&self, cx: &Context, seen: &mut Observation) -> Result<(), String> {
        let api = kube_client::connected(cx).await?;
        let node: Node = api.object(&format!("/api/v1/nodes/{}", encode(&self.node)), "get nodes").await.map_err(|f| f.word)?;
        let status = node.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP").map(|a| a.address.as_str());
        seen.facts.set("node_ready", ready).set_or_unknown("address", address.map(|a| clean(a, 64)), "the node has no InternalIP");
        let address = address.and_then(|a| a.parse().ok());
        let asked = self.log(&api, &mut seen.facts).await;
        self.port(cx, address, seen).await;
        asked
    }

    /// Asks for one byte of the last line of a running pod's log.
    async fn log(&self, api: &Connected, facts: &mut Facts) -> Result<(), String> {
        let running = format!("spec.nodeName={},status.phase=Running", self.node);
        let path = format!("/api/v1/pods?limit=1&fieldSelector={}", encode(&running));
        let pods: FirstPage = api.object(&path, "list pods").await.map_err(|failure| failure.word)?;
        let pod = pods.items.into_iter().next().ok_or("no pod runs on the node")?;
        let (namespace, name) = (pod.metadata.namespace.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
        facts.set("pod", clean(&format!("{namespace}/{name}"), 320));
        let container = pod.spec.and_then(|s| s.containers.into_iter().next()).map(|c| c.name).unwrap_or_default();
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/log?tailLines=1&limitBytes=1&container={}",
            encode(&namespace),
            encode(&name),
            encode(&container)
        );
        let answer = api.get(&path).await;
        let failure = match answer {
            Ok(answer) => answer.failure("get pods/log"),
            Err(failure) => Some(failure),
        };
        match failure {
            None => _ = facts.set("answered", true).set("failure", "").set("error", ""),
            Some(failure) if failure.at == At::Denied => return Err(failure.word),
            Some(failure) => {
                let text = if failure.detail.is_empty() { failure.word.clone() } else { failure.detail.clone() };
                facts.set("answered", false).set("failure", place(&failure)).set("error", text);
            }
        }
        Ok(())
    }

    /// Only nodes reach kubelets directly.
    async fn port(&self, cx: &Context, address: Option<Ipv4Addr>, seen: &mut Observation) {
        let Some(address) = address.filter(|_| cx.vantage.kind == VantageKind::Node) else {
            seen.facts.unknown("port_open", "only nodes reach kubelets directly");
            return;
        };
        let at = SocketAddrV4::new(address, self.port);
        match net::connect(&cx.vantage.net, at, cx.deadline).await {
            Ok(_) => _ = seen.note("connect", format!("{at}: ok")).facts.set("port_open", true),
            Err(error) => {
                let reason = format!("{at} gives {} from here: not only logs are affected", error.word);
                seen.note("connect", &reason).facts.unknown("port_open", reason);
            }
        }
    }
}

/// Where on the way from the API server to the log it failed, by the words of the server and of K3s' tunnel.
fn place(failure: &Failure) -> &'static str {
    let text = format!("{} {}", failure.word, failure.detail).to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match () {
        () if has(&["proxy error from", "failed to find session", "502 bad gateway"]) => "tunnel",
        () if has(&["x509:", "failed to verify certificate"]) => "certificate",
        () if has(&["dial tcp"]) => "dial",
        () if has(&["timeout"]) => "timeout",
        () => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::kube_client::fake::{Fake, Reply, Tls};
    use super::*;
    use crate::vantage::Net;
    use serde_json::{Value, json};
    use std::time::Duration;

    const NODE: &str = "/api/v1/nodes/calypso";
    const PODS: &str = "/api/v1/pods";
    const LOG: &str = "/api/v1/namespaces/apps/pods/argilla-1/log";

    async fn observe(log: Reply) -> Value {
        let node = json!({"metadata": {"name": "calypso"}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
        let pod = json!({"metadata": {"name": "argilla-1", "namespace": "apps"}, "spec": {"containers": [{"name": "c"}]}});
        let routes = [(NODE, Reply::json(&node)), (PODS, Reply::json(&json!({"metadata": {}, "items": [pod]}))), (LOG, log)];
        let fake = Fake::start(&Net::Here, Tls::Good, &routes);
        let probe = (KIND.decode)(&toml::from_str("node = 'calypso'\nport = 1").unwrap()).unwrap();
        probe.observe(&fake.context(Net::Here, Duration::from_secs(9))).await.facts.to_json()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_place_where_a_log_fails_is_told() {
        let said = |message: &str| Reply::Body(500, json!({"kind": "Status", "message": message}).to_string().into_bytes());
        let get = "Get \"https://100.64.0.2:10250/containerLogs/apps/argilla-1/c\"";
        for (reply, expected) in [
            (Reply::Body(200, b"x".to_vec()), ""),
            (Reply::capture("pod-log-kubelet-refused"), "dial"),
            (Reply::capture("pod-log-kubelet-dropped"), "dial"),
            (said(&format!("{get}: proxy error from 127.0.0.1:6443 while dialing 100.64.0.2:10250, code 502: 502 Bad Gateway")), "tunnel"),
            (said(&format!("{get}: x509: certificate is valid for 127.0.0.1, not 100.64.0.2")), "certificate"),
            (said("something else"), "other"),
        ] {
            let facts = observe(reply).await;
            assert_eq!((&facts["answered"], &facts["failure"]), (&json!(expected.is_empty()), &json!(expected)));
            assert!(facts["port_open"]["unknown"].as_str().unwrap().contains("ECONNREFUSED"), "{facts}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_may_not_read_logs_is_told_so() {
        let facts = observe(Reply::capture("forbidden-pods")).await;
        assert_eq!(facts["answered"], json!({"unknown": "403 Forbidden (get pods/log)"}));
        assert_eq!(facts["node_ready"], json!(true));
    }
}
