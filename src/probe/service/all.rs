//! Every Service of a cluster from three lists: which lead nowhere, and why.

use super::backends::{self, Backends};
use super::selector::{self, Labels};
use crate::check::clean;
use crate::probe::Context;
use crate::probe::kube_client::{self, Connected, Failure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands behind one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortState {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Ready endpoint addresses with a port.
    pub ready: usize,
    /// Endpoint addresses that are not ready.
    pub not_ready: usize,
    /// Why it leads nowhere: `endpoints-empty-selector`, `endpoints-not-ready`, `targetport-name-mismatch`, `no-endpoints`;
    /// empty if it leads somewhere.
    pub problem: &'static str,
    /// One clause of evidence; empty if there is no problem.
    pub detail: String,
}

#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
}

#[derive(Deserialize)]
struct PodMetadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<Labels>,
}

type Key = (String, String);

/// Lists Services, EndpointSlices and pods of all namespaces (metadata only), and judges every port of every Service that has
/// endpoints at all: ExternalName ones have none. The error names what the API refused.
pub async fn every_service(cx: &Context) -> Result<Vec<PortState>, String> {
    let api = kube_client::connected(cx).await?;
    let lists = tokio::join!(services(&api), slices(&api), pods(&api));
    let (services, slices) = (lists.0.map_err(|f| f.word)?, lists.1.map_err(|f| f.word)?);
    let pods = lists.2.map_err(|f| f.word);
    Ok(services.iter().flat_map(|service| judge(service, &slices, pods.as_ref())).collect())
}

async fn services(api: &Connected) -> Result<Vec<Service>, Failure> {
    api.list("/api/v1/services", "list services").await
}

async fn slices(api: &Connected) -> Result<BTreeMap<Key, Vec<EndpointSlice>>, Failure> {
    let all: Vec<EndpointSlice> = api.list("/apis/discovery.k8s.io/v1/endpointslices", "list endpointslices").await?;
    let mut by_service: BTreeMap<Key, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in all {
        let name = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).cloned();
        if let (Some(namespace), Some(name)) = (slice.metadata.namespace.clone(), name) {
            by_service.entry((namespace, name)).or_default().push(slice);
        }
    }
    Ok(by_service)
}

async fn pods(api: &Connected) -> Result<BTreeMap<String, Vec<Labels>>, Failure> {
    let all: Vec<Pod> = api.list_metadata("/api/v1/pods", "list pods").await?;
    let mut by_namespace: BTreeMap<String, Vec<Labels>> = BTreeMap::new();
    for pod in all {
        by_namespace.entry(pod.metadata.namespace).or_default().push(pod.metadata.labels.unwrap_or_default());
    }
    Ok(by_namespace)
}

fn judge(
    service: &Service,
    slices: &BTreeMap<Key, Vec<EndpointSlice>>,
    pods: Result<&BTreeMap<String, Vec<Labels>>, &String>,
) -> Vec<PortState> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let key = (service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone().unwrap_or_default());
    let own = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
    let selector = spec.selector.unwrap_or_default();
    let in_namespace = pods.map(|all| all.get(&key.0).map(Vec::as_slice).unwrap_or_default());
    let state = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let backends = backends::collect(own, port.name.as_deref());
        let (problem, detail) = problem(&backends, &selector, in_namespace);
        PortState {
            namespace: clean(&key.0, 63),
            service: clean(&key.1, 63),
            port: u16::try_from(port.port).unwrap_or_default(),
            protocol: clean(port.protocol.as_deref().unwrap_or("TCP"), 8),
            ready: backends.ready.len(),
            not_ready: backends.not_ready.len(),
            problem,
            detail,
        }
    };
    spec.ports.iter().flatten().map(state).collect()
}

fn problem(backends: &Backends, selector: &Labels, pods: Result<&[Labels], &String>) -> (&'static str, String) {
    if !backends.ready.is_empty() {
        return ("", String::new());
    }
    if backends.ports_unset {
        return ("targetport-name-mismatch", "the slices have addresses and no ports".to_owned());
    }
    if !backends.not_ready.is_empty() {
        return ("endpoints-not-ready", format!("{} addresses are not ready", backends.not_ready.len()));
    }
    if selector.is_empty() {
        return ("no-endpoints", "it has no selector, and nobody has written a slice".to_owned());
    }
    match pods {
        Err(word) => ("no-endpoints", format!("pods could not be listed: {word}")),
        Ok(pods) if pods.iter().any(|labels| selector::selects(selector, labels)) => {
            ("targetport-name-mismatch", "pods carry its labels, and no slice has this port".to_owned())
        }
        Ok(pods) => {
            let near = selector::near_miss(selector, pods);
            let near = if near.is_empty() { near } else { format!("; {near}") };
            ("endpoints-empty-selector", format!("no pod carries {}{near}", selector::text(selector)))
        }
    }
}
