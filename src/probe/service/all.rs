//! Every Service of a cluster from three lists: which lead nowhere, and why.
//!
//! Of the lists only what the judgement needs is kept, so that tens of thousands of objects fit into a few megabytes.

use super::backends::{Backends, Grouped, SliceText};
use super::selector::{self, Labels, Namespace};
use crate::check::clean;
use crate::probe::Context;
use crate::probe::kube_client::{self, Connected, Failure, MOST_SEEN, Shape};
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

/// All Services, and how much was read for it.
#[derive(Debug, Default, Serialize)]
pub struct Services {
    /// Every port of every Service that was read.
    pub ports: Vec<PortState>,
    /// Services, EndpointSlices and pods that were read.
    pub objects: Objects,
    /// Requests that were sent.
    pub requests: usize,
    /// What could not be read, or not to the end, and why. Empty: everything was.
    pub unknown: Vec<String>,
}

/// How many objects of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Objects {
    /// Services.
    pub services: usize,
    /// EndpointSlices.
    pub endpoint_slices: usize,
    /// Pods.
    pub pods: usize,
}

/// A Service in place of what is needed of it.
#[derive(Deserialize)]
struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize, Default)]
struct Spec {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    selector: Option<Labels>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    port: u16,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
}

type Slices = BTreeMap<(String, String), Grouped>;
type Pods = BTreeMap<String, Namespace>;

/// Services that are judged before others get a turn.
const AT_A_STRETCH: usize = 100;

/// Lists Services, EndpointSlices and pods of all namespaces (of pods the metadata), and judges every port of every Service that
/// has endpoints at all: ExternalName ones have none. What the API refuses or cuts is named in [`Services::unknown`]; without
/// all slices nothing is judged. The error says why the API was not asked.
pub async fn every_service(cx: &Context) -> Result<Services, String> {
    let api = kube_client::connected(cx).await?;
    let (mut services, mut slices, mut pods) = (Vec::new(), Slices::new(), Pods::new());
    let lists = tokio::join!(
        list(&api, "/api/v1/services", "list services", Shape::Whole, |service: Service| services.push(service)),
        list(&api, "/apis/discovery.k8s.io/v1/endpointslices", "list endpointslices", Shape::Whole, |slice| group(&mut slices, &slice)),
        list(&api, "/api/v1/pods", "list pods", Shape::Metadata, |pod: Pod| {
            pods.entry(pod.metadata.namespace).or_default().add(pod.metadata.labels.unwrap_or_default());
        }),
    );
    let mut all = Services { requests: api.requests(), ..Services::default() };
    all.objects = Objects { services: all.read(&lists.0), endpoint_slices: all.read(&lists.1), pods: all.read(&lists.2) };
    if lists.1.is_ok() {
        let pods = lists.2.map(|_| &pods).map_err(|failure| failure.word);
        for some in services.chunks(AT_A_STRETCH) {
            all.ports.extend(some.iter().flat_map(|service| judge(service, &slices, pods.as_ref().copied())));
            tokio::task::yield_now().await;
        }
    }
    Ok(all)
}

impl Services {
    /// How many objects a list had; a failure is put down as unknown.
    fn read(&mut self, list: &Result<usize, Failure>) -> usize {
        match list {
            Ok(objects) => *objects,
            Err(failure) => {
                self.unknown.push(failure.word.clone());
                0
            }
        }
    }
}

async fn list<T: serde::de::DeserializeOwned>(
    api: &Connected,
    path: &str,
    what: &str,
    shape: Shape,
    take: impl FnMut(T),
) -> Result<usize, Failure> {
    let mut listed = api.each(path, what, shape, MOST_SEEN, take).await;
    if let Err(failure) = &mut listed
        && !failure.word.contains(what)
    {
        failure.word = format!("{} ({what})", failure.word);
    }
    listed
}

fn group(slices: &mut Slices, slice: &SliceText) {
    if let Some(key) = slice.service() {
        slices.entry(key).or_default().add(slice);
    }
}

fn judge(service: &Service, slices: &Slices, pods: Result<&Pods, &String>) -> Vec<PortState> {
    if service.spec.kind.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
    let own = slices.get(&(namespace.clone(), name.clone()));
    let selector = service.spec.selector.clone().unwrap_or_default();
    let in_namespace = pods.map(|all| all.get(namespace));
    let state = |port: &Port| {
        let backends = own.map(|slices| slices.of(port.name.as_deref().unwrap_or_default())).unwrap_or_default();
        let (problem, detail) = problem(&backends, &selector, in_namespace);
        PortState {
            namespace: clean(namespace, 63),
            service: clean(name, 63),
            port: port.port,
            protocol: clean(port.protocol.as_deref().unwrap_or("TCP"), 8),
            ready: backends.ready.len(),
            not_ready: backends.not_ready.len(),
            problem,
            detail,
        }
    };
    service.spec.ports.iter().flatten().map(state).collect()
}

fn problem(backends: &Backends, selector: &Labels, pods: Result<Option<&Namespace>, &String>) -> (&'static str, String) {
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
    let empty = Namespace::default();
    match pods.map(|pods| pods.unwrap_or(&empty)) {
        Err(word) => ("no-endpoints", format!("pods could not be listed: {word}")),
        Ok(pods) if pods.matches(selector) > 0 => {
            ("targetport-name-mismatch", "pods carry its labels, and no slice has this port".to_owned())
        }
        Ok(pods) => {
            let near = pods.near_miss(selector);
            let near = if near.is_empty() { near } else { format!("; {near}") };
            ("endpoints-empty-selector", format!("no pod carries {}{near}", selector::text(selector)))
        }
    }
}

#[cfg(test)]
mod tests;
