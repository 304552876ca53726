//! `kube`: the Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart.

mod node;

use super::der;
use super::kube_client::{Answer, At, Connected, Failure, KubeApi, OpenError};
use super::net::ms;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use node::node_fact;
pub(crate) use node::{node_annotations, node_pod_cidr};
use serde::Deserialize;
use serde_json::{Value, json};

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

#[cfg(test)]
mod tests;
