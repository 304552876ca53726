//! Why a Service's pods are not ready: the failing condition, what the container waits for, and the last warning about the pod.

use super::selector::{self, Labels};
use crate::check::{Facts, clean};
use crate::probe::kube_client::{Connected, Failure, encode};
use k8s_openapi::api::core::v1::{Event, Pod};

/// Pods whose reasons are told.
const MOST_PODS: usize = 3;

/// Records `unready_because`, `warning` and `container_ports` of the pods that a selector selects.
pub(super) async fn explain(api: &Connected, namespace: &str, labels: &Labels, facts: &mut Facts) {
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", encode(&selector::text(labels)));
    let pods: Vec<Pod> = match api.list(&path, "list pods").await {
        Ok(pods) => pods,
        Err(failure) => return unknown(facts, &["unready_because", "warning", "container_ports"], &failure.word),
    };
    let unready: Vec<&Pod> = pods.iter().filter(|pod| !is_ready(pod)).collect();
    let reasons: Vec<String> = unready.iter().take(MOST_PODS).map(|pod| reason(pod)).collect();
    facts.set("unready_because", clean(&reasons.join("; "), 500)).set("container_ports", ports(&pods));
    let Some(name) = unready.first().and_then(|pod| pod.metadata.name.as_deref()) else {
        facts.set("warning", "");
        return;
    };
    match warning(api, namespace, name).await {
        Ok(text) => _ = facts.set("warning", text),
        Err(failure) => unknown(facts, &["warning"], &failure.word),
    }
}

fn unknown(facts: &mut Facts, paths: &[&str], reason: &str) {
    for path in paths {
        facts.unknown(path, reason);
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// `argilla-1: ContainersNotReady: containers with unready status: [argilla], waiting: CrashLoopBackOff`.
fn reason(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "Ready" && c.status != "True");
    let mut parts = vec![pod.metadata.name.clone().unwrap_or_default()];
    match condition {
        Some(c) => parts.extend([c.reason.clone(), c.message.clone()].into_iter().flatten()),
        None => parts.extend(status.phase.clone()),
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let text = parts.join(": ");
    waiting.map_or_else(|| text.clone(), |waits| format!("{text}, waiting: {waits}"))
}

/// The last warning about a pod: `Unhealthy: Readiness probe failed: ..`; empty if there is none.
async fn warning(api: &Connected, namespace: &str, pod: &str) -> Result<String, Failure> {
    let about = format!("involvedObject.kind=Pod,involvedObject.name={pod},type=Warning");
    let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector={}", encode(&about));
    let events: Vec<Event> = api.list(&path, "list events").await?;
    let time = |e: &Event| {
        let seen = e.last_timestamp.as_ref().map(|t| t.0.to_string());
        seen.or_else(|| e.event_time.as_ref().map(|t| t.0.to_string())).unwrap_or_default()
    };
    let last = events.iter().max_by_key(|e| time(e));
    let text = |e: &Event| format!("{}: {}", e.reason.as_deref().unwrap_or(""), e.message.as_deref().unwrap_or("").trim());
    Ok(clean(&last.map(text).unwrap_or_default(), 300))
}

/// Names and numbers of the pods' ports: `http 6900/TCP`.
fn ports(pods: &[Pod]) -> Vec<String> {
    let containers = pods.iter().flat_map(|p| p.spec.iter().flat_map(|s| &s.containers));
    let text = |p: &k8s_openapi::api::core::v1::ContainerPort| {
        let name = p.name.as_deref().unwrap_or("nameless");
        clean(&format!("{name} {}/{}", p.container_port, p.protocol.as_deref().unwrap_or("TCP")), 80)
    };
    let all: std::collections::BTreeSet<String> = containers.flat_map(|c| c.ports.iter().flatten().map(text)).collect();
    all.into_iter().take(16).collect()
}
