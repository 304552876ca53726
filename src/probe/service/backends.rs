//! What EndpointSlices say about one port of a Service.

use crate::check::clean;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Endpoint addresses behind a Service's port.
#[derive(Debug, Default)]
pub(in crate::probe) struct Backends {
    /// Ready addresses with a port, in order of address.
    pub(in crate::probe) ready: BTreeSet<SocketAddrV4>,
    /// Addresses that are not ready.
    pub(in crate::probe) not_ready: BTreeSet<Ipv4Addr>,
    /// Addresses of pods that are being deleted.
    pub(in crate::probe) terminating: BTreeSet<Ipv4Addr>,
    /// Some slice has addresses but no ports: the target port's name matches no container port.
    pub(in crate::probe) ports_unset: bool,
}

/// The Service's entry for a port: the TCP one where a number is used for both protocols, as for DNS.
pub(in crate::probe) fn service_port(service: &Service, port: u16) -> Option<&ServicePort> {
    let mut ports: Vec<&ServicePort> = service.spec.iter().flat_map(|s| s.ports.iter().flatten()).collect();
    ports.retain(|p| p.port == i32::from(port));
    ports.iter().copied().find(|p| is_tcp(p)).or(ports.first().copied())
}

/// A port's target as text: a number or a name; a port without one is its own target.
pub(super) fn target_port(port: &ServicePort) -> String {
    match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => clean(name, 63),
        None => port.port.to_string(),
    }
}

/// TCP is the default protocol.
pub(in crate::probe) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|p| p == "TCP")
}

/// Collects the slices' IPv4 addresses. Slices name ports as the Service does; a nameless port has the empty name.
pub(in crate::probe) fn collect(slices: &[SliceText], port_name: Option<&str>) -> Backends {
    let mut all = Grouped::default();
    slices.iter().for_each(|slice| all.add(slice));
    all.of(port_name.unwrap_or_default())
}

/// An EndpointSlice in place of what is needed of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::probe) struct SliceText {
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    hints: Option<serde::de::IgnoredAny>,
}

impl SliceText {
    /// Some endpoint has topology hints: a node need not use all of them.
    pub(in crate::probe) fn is_hinted(&self) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| endpoint.hints.is_some())
    }
}

/// No statement about readiness counts as ready (EndpointConditions in discovery.k8s.io/v1).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl SliceText {
    /// Namespace and name of the Service that it belongs to.
    pub(in crate::probe) fn service(&self) -> Option<(String, String)> {
        let name = self.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
        Some((self.metadata.namespace.clone(), name.clone()))
    }

    /// The node of the endpoint with an address, where the slice says it.
    pub(in crate::probe) fn node_of(&self, address: Ipv4Addr) -> Option<&str> {
        let own = |e: &&Endpoint| e.addresses.iter().any(|a| a.parse() == Ok(address));
        self.endpoints.iter().flatten().find(own)?.node_name.as_deref()
    }
}

/// The slices of one Service, as few bytes.
#[derive(Debug, Default)]
pub(in crate::probe) struct Grouped(Vec<Slice>);

#[derive(Debug)]
struct Slice {
    ports: Vec<(String, u16)>,
    no_ports: bool,
    ready: Vec<Ipv4Addr>,
    not_ready: Vec<Ipv4Addr>,
    terminating: Vec<Ipv4Addr>,
}

impl Grouped {
    /// Adds a slice; other address families than IPv4 are left out.
    pub(in crate::probe) fn add(&mut self, slice: &SliceText) {
        if slice.address_type != "IPv4" {
            return;
        }
        let ports = slice.ports.as_deref().unwrap_or_default();
        let addresses = |which: fn(Conditions) -> bool| -> Vec<Ipv4Addr> {
            let endpoints = slice.endpoints.iter().flatten().filter(|e| which(e.conditions));
            endpoints.flat_map(|e| e.addresses.iter().filter_map(|a| a.parse().ok())).collect()
        };
        self.0.push(Slice {
            ports: ports.iter().filter_map(|p| Some((p.name.clone().unwrap_or_default(), p.port?))).collect(),
            no_ports: ports.is_empty(),
            ready: addresses(|c| c.ready.unwrap_or(true)),
            not_ready: addresses(|c| !c.ready.unwrap_or(true)),
            terminating: addresses(|c| c.terminating.unwrap_or(false)),
        });
    }

    /// What stands behind the port of a name.
    pub(in crate::probe) fn of(&self, port_name: &str) -> Backends {
        let mut backends = Backends::default();
        for slice in &self.0 {
            backends.ports_unset |= slice.no_ports && !(slice.ready.is_empty() && slice.not_ready.is_empty());
            backends.not_ready.extend(&slice.not_ready);
            backends.terminating.extend(&slice.terminating);
            if let Some((_, port)) = slice.ports.iter().find(|(name, _)| name == port_name) {
                backends.ready.extend(slice.ready.iter().map(|address| SocketAddrV4::new(*address, *port)));
            }
        }
        backends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(endpoints: serde_json::Value, ports: serde_json::Value) -> SliceText {
        let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {},
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        serde_json::from_value(slice).unwrap()
    }

    #[test]
    fn addresses_without_ports_are_told_from_no_addresses() {
        let address = json!([{"addresses": ["10.42.0.6"], "conditions": {"ready": true}}]);
        let unset = collect(&[slice(address, json!(null))], None);
        assert!(unset.ports_unset && unset.ready.is_empty());
        let empty = collect(&[slice(json!([]), json!(null))], None);
        assert!(!empty.ports_unset && empty.ready.is_empty());
    }

    #[test]
    fn ports_are_matched_by_name_and_an_address_counts_once() {
        let endpoints = json!([{"addresses": ["10.42.0.6"]}, {"addresses": ["10.42.0.7"], "conditions": {"ready": false}}]);
        let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9153}]);
        let twice = [slice(endpoints.clone(), ports.clone()), slice(endpoints, ports)];
        let backends = collect(&twice, Some("metrics"));
        assert_eq!(backends.ready.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.42.0.6:9153"]);
        assert_eq!(backends.not_ready.len(), 1);
        assert!(collect(&twice, Some("http")).ready.is_empty());
    }
}
