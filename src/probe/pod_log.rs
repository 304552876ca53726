//! `pod-log`: what pods log about what they depend on.

mod words;

use super::kube_client::{self, Connected, Container, encode};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use std::collections::BTreeMap;
use words::{PATTERNS, Said};

/// What pods log about what they depend on.
pub(super) static KIND: Kind = Kind {
    name: "pod-log",
    root: "pod_log",
    about: "What pods log about what they depend on: refused and lost connections, names, server errors, object storage",
    privilege: Some("a kubeconfig"),
    args: &[("namespace", "where the pods are"), ("labels", "labels that they carry")],
    facts: &[
        fact("pods", "count", "pods that carry the labels"),
        fact("restarts", "count", "restarts of their containers"),
        fact("lines", "count", "lines that were read: of the last quarter of an hour, and of the container before"),
        fact("matched", "count", "those with a known pattern, one that calls itself info or debug aside"),
        fact("patterns", "list of text", "the patterns that were found, in the words of the facts below"),
        fact("last", "text", "the last line with a pattern, without secrets; empty if there is none"),
        fact("refused", "count", "lines with a refused connection"),
        fact("unreachable", "count", "lines with no route to a host, or to a network"),
        fact("timeouts", "count", "lines with a timeout"),
        fact("names", "count", "lines with a name that does not resolve"),
        fact("server_errors", "count", "lines with a 5xx"),
        fact("storage_refuses", "count", "lines in which object storage (R2, S3) refuses: credentials, rights, no such bucket"),
        fact("storage_fails", "count", "lines in which object storage itself fails, or asks to slow down"),
        fact("storage_codes", "list of text", "the S3 error codes in those lines"),
    ],
    decode: decode::<PodLog>,
};

/// Pods whose logs are read.
const MOST_PODS: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PodLog {
    namespace: String,
    labels: BTreeMap<String, String>,
}

#[async_trait]
impl Probe for PodLog {
    async fn observe(&self, cx: &Context) -> Observation {
        let api = match kube_client::connected(cx).await {
            Ok(api) => api,
            Err(reason) => return Observation::could_not_look(reason),
        };
        match self.pods(&api).await {
            Ok(pods) => self.look(&api, &pods).await,
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn target(&self) -> String {
        format!("logs of {} in {}", clean(&self.selector(), 100), clean(&self.namespace, 63))
    }
}

/// What matters of a pod object.
struct Seen {
    name: String,
    container: String,
    restarts: u64,
}

impl Seen {
    fn of(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
        Self {
            name: pod.metadata.name.unwrap_or_default(),
            container: pod.spec.and_then(|spec| spec.containers.into_iter().next()).map(|c| c.name).unwrap_or_default(),
            restarts: status.first().map_or(0, |c| u64::try_from(c.restart_count).unwrap_or_default()),
        }
    }
}

impl PodLog {
    fn selector(&self) -> String {
        self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }

    async fn pods(&self, api: &Connected) -> Result<Vec<Seen>, String> {
        if self.labels.is_empty() {
            return Err("no label tells which pods".to_owned());
        }
        let selector = encode(&self.selector());
        let path = format!("/api/v1/namespaces/{}/pods?resourceVersion=0&labelSelector={selector}", encode(&self.namespace));
        let pods: Vec<Pod> = api.list(&path, "list pods").await.map_err(|failure| format!("pods: {}", failure.word))?;
        Ok(pods.into_iter().map(Seen::of).collect())
    }

    async fn look(&self, api: &Connected, pods: &[Seen]) -> Observation {
        let mut seen = Observation::default();
        seen.facts.set("pods", pods.len()).set("restarts", pods.iter().map(|p| p.restarts).fold(0, u64::saturating_add));
        let logs = join_all(pods.iter().take(MOST_PODS).map(|pod| self.log(api, pod))).await;
        match logs.into_iter().try_fold(Said::default(), |so_far, said| Ok::<_, String>(so_far.and(said?))) {
            Ok(said) => record(&said, &mut seen),
            Err(reason) => {
                seen.note("log", &reason);
                let read = KIND.facts.iter().filter(|f| !matches!(f.path, "pods" | "restarts"));
                read.for_each(|f| _ = seen.facts.unknown(f.path, reason.as_str()));
            }
        }
        seen
    }

    async fn log(&self, api: &Connected, pod: &Seen) -> Result<Said, String> {
        let of = Container { namespace: &self.namespace, pod: &pod.name, name: &pod.container, restarted: pod.restarts > 0 };
        let ends = api.ends_of_log(of).await.map_err(|failure| failure.word)?;
        Ok(Said::of(&ends.before).and(Said::of(&ends.now)))
    }
}

fn record(said: &Said, seen: &mut Observation) {
    said.last_lines.iter().for_each(|line| _ = seen.note("log", line));
    let found = PATTERNS.iter().filter(|pattern| said.count(pattern) > 0).copied().collect::<Vec<_>>();
    seen.facts
        .set("lines", said.lines)
        .set("matched", said.matched)
        .set("patterns", found)
        .set("last", said.last_lines.last().cloned().unwrap_or_default())
        .set("storage_codes", said.codes.iter().copied().collect::<Vec<_>>());
    for pattern in PATTERNS {
        seen.facts.set(pattern, said.count(pattern));
    }
}

/// For fuzzers: lines and codes that are kept of a log.
pub(super) fn kept(text: &str) -> usize {
    let said = Said::of(text);
    said.last_lines.len() + said.codes.len()
}

#[cfg(test)]
mod tests;
