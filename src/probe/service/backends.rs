//! What EndpointSlices say about one port of a Service.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
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

/// TCP is the default protocol.
pub(in crate::probe) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|p| p == "TCP")
}

/// Collects the slices' IPv4 addresses. Slices name ports as the Service does; a nameless port has the empty name.
pub(in crate::probe) fn collect(slices: &[EndpointSlice], port_name: Option<&str>) -> Backends {
    let mut backends = Backends::default();
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let named = ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port_name.unwrap_or_default());
        let port = named.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok());
        backends.ports_unset |= ports.is_empty() && slice.endpoints.iter().any(|e| !e.addresses.is_empty());
        for endpoint in &slice.endpoints {
            // No statement about readiness counts as ready (EndpointConditions in discovery.k8s.io/v1).
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            for address in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
                if endpoint.conditions.as_ref().and_then(|c| c.terminating).unwrap_or(false) {
                    backends.terminating.insert(address);
                }
                match (ready, port) {
                    (true, Some(port)) => _ = backends.ready.insert(SocketAddrV4::new(address, port)),
                    (true, None) => {}
                    (false, _) => _ = backends.not_ready.insert(address),
                }
            }
        }
    }
    backends
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(endpoints: serde_json::Value, ports: serde_json::Value) -> EndpointSlice {
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
