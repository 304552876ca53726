//! `coredns-pods`: CoreDNS as the Kubernetes API sees it: pods, their nodes, restarts, the Corefile, and what the logs say.

mod corefile;
mod log;

use super::kube_client::{self, At, Connected, Container, Failure, encode};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use corefile::Corefile;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use log::Said;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// CoreDNS as the Kubernetes API sees it: pods, their nodes, restarts, the Corefile, and what the logs say.
pub(super) static KIND: Kind = Kind {
    name: "coredns-pods",
    root: "pods",
    about: "CoreDNS as the Kubernetes API sees it: pods, their nodes, restarts, the Corefile, and what the logs say",
    privilege: Some("a kubeconfig"),
    args: &[
        ("selector", "labels of the pods (`k8s-app=kube-dns`)"),
        ("namespace", "where they are (`kube-system`)"),
        ("configmap", "ConfigMap with the Corefile (`coredns`)"),
        ("logs", "read the end of each pod's log, and of the container before it (false)"),
    ],
    facts: &[
        fact("pods", "list", "each pod: name, node, address, phase, ready, restarts, waiting, exit_code (of the container before)"),
        fact("known", "count", "pods that carry the labels"),
        fact("ready", "count", "pods whose Ready condition holds"),
        fact("restarts", "count", "restarts of their containers"),
        fact("waiting", "list of text", "why containers wait: CrashLoopBackOff, ImagePullBackOff, ..."),
        fact("nodes", "list of text", "nodes that they are bound to"),
        fact("nodes_not_ready", "list of text", "those of them that are not Ready"),
        fact("on_ready_nodes", "count", "pods on nodes that are Ready"),
        fact("forward", "list of text", "where the Corefile forwards outside names to: addresses, or a resolv.conf"),
        fact("plugins", "list of text", "plugins of the Corefile's server blocks"),
        fact("log_loop", "bool", "a log ends with the loop plugin's verdict: queries come back to CoreDNS"),
        fact(
            "log_upstreams",
            "list of address",
            "upstreams that the logs name as not answering or refusing, in the last quarter of an hour",
        ),
        fact(
            "log_patterns",
            "list of text",
            "known patterns in the logs: loop, upstream-timeout, upstream-refused, upstream-unreachable, api-unreachable, corefile",
        ),
    ],
    decode: decode::<CoreDnsPods>,
};

/// Pods that are looked at.
const MOST_PODS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreDnsPods {
    #[serde(default = "selector")]
    selector: String,
    #[serde(default = "namespace")]
    namespace: String,
    #[serde(default = "configmap")]
    configmap: String,
    #[serde(default)]
    logs: bool,
}

fn selector() -> String {
    "k8s-app=kube-dns".to_owned()
}

fn namespace() -> String {
    "kube-system".to_owned()
}

fn configmap() -> String {
    "coredns".to_owned()
}

#[async_trait]
impl Probe for CoreDnsPods {
    async fn observe(&self, cx: &Context) -> Observation {
        let api = match kube_client::connected(cx).await {
            Ok(api) => api,
            Err(reason) => return Observation::could_not_look(reason),
        };
        let pods = match self.pods(&api).await {
            Ok(pods) => pods,
            Err(failure) => return Observation::could_not_look(format!("pods: {}", failure.word)),
        };
        let mut seen = Observation::default();
        record(&mut seen, &pods);
        let (nodes, corefile, logs) = tokio::join!(nodes(&api, &pods), self.corefile(&api), self.logs(&api, &pods));
        record_nodes(&mut seen, &pods, nodes);
        record_corefile(&mut seen, corefile);
        record_logs(&mut seen, logs);
        seen
    }

    fn target(&self) -> String {
        format!("pods {} in {}", clean(&self.selector, 100), clean(&self.namespace, 63))
    }
}

impl CoreDnsPods {
    /// From the API server's cache (`resourceVersion=0`): it answers also while the datastore hangs.
    async fn pods(&self, api: &Connected) -> Result<Vec<Seen>, Failure> {
        let path =
            format!("/api/v1/namespaces/{}/pods?resourceVersion=0&labelSelector={}", encode(&self.namespace), encode(&self.selector));
        let pods: Vec<Pod> = api.list(&path, "list pods").await?;
        Ok(pods.iter().take(MOST_PODS).map(Seen::of).collect())
    }

    async fn corefile(&self, api: &Connected) -> Result<Corefile, String> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{}", encode(&self.namespace), encode(&self.configmap));
        let map: ConfigMap = api.object(&path, "get configmaps").await.map_err(|failure| failure.word)?;
        let text = map.data.unwrap_or_default().remove("Corefile").ok_or("the ConfigMap has no Corefile")?;
        Ok(Corefile::parse(&text))
    }

    async fn logs(&self, api: &Connected, pods: &[Seen]) -> Result<Said, String> {
        if !self.logs {
            return Err("logs were not asked for".to_owned());
        }
        let said = join_all(pods.iter().map(|pod| self.log(api, pod))).await;
        said.into_iter().try_fold(Said::default(), |so_far, said| Ok(so_far.and(said?)))
    }

    /// The end of a pod's log, and of the container's before it if there was one.
    async fn log(&self, api: &Connected, pod: &Seen) -> Result<Said, String> {
        let of = Container { namespace: &self.namespace, pod: &pod.name, name: &pod.container, restarted: pod.restarts > 0 };
        let ends = api.ends_of_log(of).await.map_err(|failure| failure.word)?;
        Ok(Said::of(&ends.now).and(Said::of(&ends.before)))
    }
}

/// For fuzzers: targets and plugins of a Corefile.
pub(super) fn kept_of_corefile(text: &str) -> usize {
    let corefile = Corefile::parse(text);
    corefile.forward.len() + corefile.plugins.len()
}

/// For fuzzers: upstreams, patterns and lines of a log.
pub(super) fn kept_of_log(text: &str) -> usize {
    let said = Said::of(text);
    said.upstreams.len() + said.patterns.len() + said.lines.len()
}

/// For fuzzers: pods of the items of a list.
pub(super) fn kept_of_pods(bytes: &[u8]) -> usize {
    let pods: Vec<Pod> = serde_json::from_slice(bytes).unwrap_or_default();
    pods.iter().take(MOST_PODS).map(|pod| Seen::of(pod).to_json()).filter(|pod| pod["restarts"].is_u64()).count()
}

/// What matters of a pod object; every text cleaned.
struct Seen {
    name: String,
    container: String,
    node: String,
    address: String,
    phase: String,
    ready: bool,
    restarts: u64,
    waiting: Option<String>,
    exit_code: Option<i32>,
}

impl Seen {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let text = |value: Option<&str>| clean(value.unwrap_or_default(), 253);
        let container = status.container_statuses.iter().flatten().next().cloned();
        let spec = pod.spec.as_ref();
        Self {
            name: text(pod.metadata.name.as_deref()),
            container: text(spec.and_then(|s| s.containers.first()).map(|c| c.name.as_str())),
            node: text(spec.and_then(|s| s.node_name.as_deref())),
            address: text(status.pod_ip.as_deref()),
            phase: text(status.phase.as_deref()),
            ready: status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
            restarts: container.as_ref().map_or(0, |c| u64::try_from(c.restart_count).unwrap_or_default()),
            waiting: container.as_ref().and_then(|c| c.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).map(|r| clean(r, 63)),
            exit_code: container.as_ref().and_then(|c| c.last_state.as_ref()?.terminated.as_ref()).map(|t| t.exit_code),
        }
    }

    fn to_json(&self) -> Value {
        json!({"name": self.name, "node": self.node, "address": self.address, "phase": self.phase, "ready": self.ready,
            "restarts": self.restarts, "waiting": self.waiting.as_deref().unwrap_or_default(), "exit_code": self.exit_code})
    }
}

fn record(seen: &mut Observation, pods: &[Seen]) {
    for pod in pods {
        let waiting = pod.waiting.as_deref().map(|reason| format!(", waiting: {reason}")).unwrap_or_default();
        let ready = if pod.ready { "ready" } else { "not ready" };
        seen.note("api", format!("{} on {}: {}, {ready}, {} restarts{waiting}", pod.name, pod.node, pod.phase, pod.restarts));
    }
    seen.facts
        .set("known", pods.len())
        .set("ready", pods.iter().filter(|p| p.ready).count())
        .set("restarts", pods.iter().map(|p| p.restarts).fold(0, u64::saturating_add))
        .set("waiting", pods.iter().filter_map(|p| p.waiting.clone()).collect::<Vec<_>>())
        .set("pods", pods.iter().map(Seen::to_json).collect::<Vec<_>>());
}

/// Whether each node that the pods are bound to is Ready. A node that is gone is not.
async fn nodes(api: &Connected, pods: &[Seen]) -> Result<BTreeMap<String, bool>, String> {
    let names: std::collections::BTreeSet<&str> = pods.iter().map(|p| p.node.as_str()).filter(|name| !name.is_empty()).collect();
    let asked = names.into_iter().map(|name| async move {
        let node = api.object::<Node>(&format!("/api/v1/nodes/{}", encode(name)), "get nodes").await;
        let ready = |node: Node| node.status.and_then(|s| s.conditions).iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        match node {
            Ok(node) => Ok((name.to_owned(), ready(node))),
            Err(Failure { at: At::Status(404), .. }) => Ok((name.to_owned(), false)),
            Err(failure) => Err(failure.word),
        }
    });
    join_all(asked).await.into_iter().collect()
}

fn record_nodes(seen: &mut Observation, pods: &[Seen], nodes: Result<BTreeMap<String, bool>, String>) {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(reason) => {
            ["nodes", "nodes_not_ready", "on_ready_nodes"].iter().for_each(|path| _ = seen.facts.unknown(path, reason.as_str()));
            return;
        }
    };
    let not_ready: Vec<String> = nodes.iter().filter(|(_, ready)| !**ready).map(|(name, _)| name.clone()).collect();
    seen.facts
        .set("nodes", nodes.keys().cloned().collect::<Vec<_>>())
        .set("nodes_not_ready", not_ready)
        .set("on_ready_nodes", pods.iter().filter(|p| nodes.get(&p.node) == Some(&true)).count());
}

fn record_corefile(seen: &mut Observation, corefile: Result<Corefile, String>) {
    match corefile {
        Ok(corefile) => {
            seen.note("corefile", format!("forward {}", corefile.forward.join(" ")));
            seen.facts.set("forward", corefile.forward).set("plugins", corefile.plugins);
        }
        Err(reason) => _ = seen.facts.unknown("forward", reason.as_str()).unknown("plugins", reason.as_str()),
    }
}

fn record_logs(seen: &mut Observation, said: Result<Said, String>) {
    match said {
        Ok(said) => {
            said.lines.iter().for_each(|line| _ = seen.note("log", line));
            let upstreams: Vec<String> = said.upstreams.iter().map(ToString::to_string).collect();
            seen.facts
                .set("log_loop", said.patterns.contains("loop"))
                .set("log_upstreams", upstreams)
                .set("log_patterns", said.patterns.into_iter().collect::<Vec<_>>());
        }
        Err(reason) => ["log_loop", "log_upstreams", "log_patterns"].iter().for_each(|path| _ = seen.facts.unknown(path, reason.as_str())),
    }
}

#[cfg(test)]
mod tests;
