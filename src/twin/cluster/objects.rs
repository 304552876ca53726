//! The store: objects by resource, namespace and name.

use super::{Change, name_of, namespace_of};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A kind of object that the twin knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `nodes`.
    Nodes,
    /// `namespaces`.
    Namespaces,
    /// `services`.
    Services,
    /// `pods`.
    Pods,
    /// `configmaps`.
    ConfigMaps,
    /// `events`.
    Events,
    /// `endpointslices` (discovery.k8s.io).
    EndpointSlices,
    /// `networkpolicies` (networking.k8s.io).
    NetworkPolicies,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ConfigMaps,
        Self::Events,
        Self::Namespaces,
        Self::Nodes,
        Self::Pods,
        Self::Services,
        Self::EndpointSlices,
        Self::NetworkPolicies,
    ];

    /// The name in URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Namespaces => "namespaces",
            Self::Services => "services",
            Self::Pods => "pods",
            Self::ConfigMaps => "configmaps",
            Self::Events => "events",
            Self::EndpointSlices => "endpointslices",
            Self::NetworkPolicies => "networkpolicies",
        }
    }

    /// `kind` of one object.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "Node",
            Self::Namespaces => "Namespace",
            Self::Services => "Service",
            Self::Pods => "Pod",
            Self::ConfigMaps => "ConfigMap",
            Self::Events => "Event",
            Self::EndpointSlices => "EndpointSlice",
            Self::NetworkPolicies => "NetworkPolicy",
        }
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            Self::NetworkPolicies => "networking.k8s.io",
            _ => "",
        }
    }

    /// `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io/v1",
            Self::NetworkPolicies => "networking.k8s.io/v1",
            _ => "v1",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(self) -> bool {
        !matches!(self, Self::Nodes | Self::Namespaces)
    }

    /// Names that kubectl accepts in its place.
    pub fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &["no"],
            Self::Namespaces => &["ns"],
            Self::Services => &["svc"],
            Self::Pods => &["po"],
            Self::ConfigMaps => &["cm"],
            Self::Events => &["ev"],
            Self::EndpointSlices => &[],
            Self::NetworkPolicies => &["netpol"],
        }
    }
}

/// All objects, each under `namespace/name` (`name` for cluster-wide ones), in the order in which etcd lists them.
#[derive(Clone, Debug)]
pub struct Objects {
    pub(super) domain: String,
    version: u64,
    stored: BTreeMap<Resource, BTreeMap<String, Value>>,
}

fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

impl Objects {
    pub(super) fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), version: 200, stored: BTreeMap::new() }
    }

    /// The store's `resourceVersion`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One object.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Value> {
        self.stored.get(&resource)?.get(&key(namespace, name))
    }

    /// One object, to change.
    pub fn get_mut(&mut self, resource: Resource, namespace: &str, name: &str) -> Option<&mut Value> {
        self.stored.get_mut(&resource)?.get_mut(&key(namespace, name))
    }

    /// All objects of a resource with their keys, in order.
    pub fn list(&self, resource: Resource) -> impl Iterator<Item = (&str, &Value)> {
        self.stored.get(&resource).into_iter().flatten().map(|(key, object)| (key.as_str(), object))
    }

    /// Calls a function on every object of a resource.
    pub fn each_mut(&mut self, resource: Resource, mut change: impl FnMut(&mut Value)) {
        self.stored.entry(resource).or_default().values_mut().for_each(&mut change);
    }

    /// Stores an object; it gets a uid and a creation time unless it has them.
    pub fn insert(&mut self, resource: Resource, mut object: Value) {
        let key = key(namespace_of(&object), name_of(&object));
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(uid(resource.plural(), &key));
        }
        if metadata["resourceVersion"].is_null() {
            metadata["resourceVersion"] = json!("0");
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(super::build::CREATED);
        }
        self.stored.entry(resource).or_default().insert(key, object);
    }

    /// Removes an object.
    pub fn remove(&mut self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        self.stored.get_mut(&resource)?.remove(&key(namespace, name))
    }

    /// Gives a new `resourceVersion` to every object that differs from an earlier state; returns the changes.
    pub(super) fn stamp(&mut self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (resource, objects) in &mut self.stored {
            let old = before.stored.get(resource);
            for (key, object) in objects.iter_mut() {
                let before = old.and_then(|old| old.get(key));
                if before != Some(object) {
                    self.version += 1;
                    object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                    let (before, after) = (before.cloned(), Some(object.clone()));
                    changes.push(Change { version: self.version, resource: *resource, before, after });
                }
            }
            for (_, gone) in old.into_iter().flatten().filter(|(key, _)| !objects.contains_key(*key)) {
                self.version += 1;
                let mut gone = gone.clone();
                gone["metadata"]["resourceVersion"] = json!(self.version.to_string());
                changes.push(Change { version: self.version, resource: *resource, before: Some(gone), after: None });
            }
        }
        changes
    }
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

/// A uid that is the same in every run, in the form of a random UUID (RFC 9562, version 4).
fn uid(resource: &str, key: &str) -> String {
    let mut bytes = digest(&["uid", resource, key]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

/// A suffix as Kubernetes generates them (k8s.io/apimachinery `rand`: no vowels, no look-alikes), the same in every run.
pub(super) fn suffix(seed: &str, length: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    digest(&["suffix", seed]).iter().take(length).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// A number that is the same in every run.
pub(super) fn number(seed: &str) -> u32 {
    let bytes = digest(&["number", seed]);
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
