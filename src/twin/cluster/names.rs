//! Names as the kubernetes plugin of CoreDNS answers them (github.com/kubernetes/dns, specification.md; `pods insecure`).

use super::{Objects, Resource, name_of, namespace_of};
use serde_json::Value;
use std::net::Ipv4Addr;

/// Answer to a question for a name's IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name has addresses.
    Addresses(Vec<Ipv4Addr>),
    /// The name exists and has none.
    NoData,
    /// The name does not exist.
    NoSuchName,
}

/// `name` is below the cluster's domain, in any case, without a trailing dot.
pub(super) fn lookup(objects: &Objects, name: &str) -> Lookup {
    let name = name.to_ascii_lowercase();
    let Some(rest) = name.strip_suffix(&objects.domain).filter(|rest| rest.is_empty() || rest.ends_with('.')) else {
        return Lookup::NoSuchName;
    };
    let mut labels: Vec<&str> = rest.split('.').filter(|label| !label.is_empty()).collect();
    labels.reverse();
    let namespace = |name: &str| objects.get(Resource::Namespaces, "", name).is_some();
    match labels[..] {
        [] | ["svc" | "pod"] => Lookup::NoData,
        ["svc" | "pod", ns] if namespace(ns) => Lookup::NoData,
        ["svc", ns, service] => cluster_ip(objects, ns, service),
        // The names of SRV records' targets, and of the records themselves.
        ["svc", ns, service, endpoint] => endpoint_of(objects, ns, service, endpoint),
        ["svc", ns, service, protocol, port] if has_port(objects, ns, service, protocol, port) => cluster_ip(objects, ns, service),
        ["dns", "ns"] => Lookup::NoData,
        ["pod", ns, pod] if namespace(ns) => dashed(pod),
        _ => Lookup::NoSuchName,
    }
}

fn cluster_ip(objects: &Objects, namespace: &str, name: &str) -> Lookup {
    let Some(service) = objects.get(Resource::Services, namespace, name) else { return Lookup::NoSuchName };
    match service["spec"]["clusterIP"].as_str() {
        Some("None") => headless(objects, namespace, name),
        Some(address) => address.parse().map_or(Lookup::NoData, |address| Lookup::Addresses(vec![address])),
        None => Lookup::NoData,
    }
}

/// An endpoint's own name is its address with dashes.
fn endpoint_of(objects: &Objects, namespace: &str, service: &str, endpoint: &str) -> Lookup {
    match (endpoints(objects, namespace, service), dashed(endpoint)) {
        (all, Lookup::Addresses(one)) if one.iter().all(|address| all.contains(address)) => Lookup::Addresses(one),
        _ => Lookup::NoSuchName,
    }
}

fn has_port(objects: &Objects, namespace: &str, service: &str, protocol: &str, port: &str) -> bool {
    let ports = objects.get(Resource::Services, namespace, service).and_then(|service| service["spec"]["ports"].as_array());
    let same = |value: &Value, label: &str| {
        label.strip_prefix('_').is_some_and(|label| value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(label)))
    };
    ports.into_iter().flatten().any(|p| same(&p["name"], port) && same(&p["protocol"], protocol))
}

/// The ready endpoints themselves; without any, the name does not exist.
fn headless(objects: &Objects, namespace: &str, name: &str) -> Lookup {
    let addresses = endpoints(objects, namespace, name);
    if addresses.is_empty() { Lookup::NoSuchName } else { Lookup::Addresses(addresses) }
}

fn endpoints(objects: &Objects, namespace: &str, name: &str) -> Vec<Ipv4Addr> {
    let own = |slice: &&Value| namespace_of(slice) == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == name;
    let slices = objects.list(Resource::EndpointSlices).map(|(_, slice)| slice).filter(own);
    let ready = slices.flat_map(|s| s["endpoints"].as_array().into_iter().flatten()).filter(|e| e["conditions"]["ready"] != false);
    ready.filter_map(|e| e["addresses"][0].as_str()?.parse().ok()).collect()
}

/// `10-42-0-6` is an address, whether or not such a pod exists.
fn dashed(pod: &str) -> Lookup {
    match pod.replace('-', ".").parse() {
        Ok(address) => Lookup::Addresses(vec![address]),
        Err(_) => Lookup::NoSuchName,
    }
}

/// Names of an address, for PTR.
pub(super) fn reverse(objects: &Objects, address: Ipv4Addr) -> Vec<String> {
    let text = address.to_string();
    let full = |prefix: String| format!("{prefix}.svc.{}", objects.domain);
    let service = objects.list(Resource::Services).map(|(_, s)| s).find(|s| s["spec"]["clusterIP"] == text.as_str());
    if let Some(service) = service {
        return vec![full(format!("{}.{}", name_of(service), namespace_of(service)))];
    }
    let has = |slice: &Value| slice["endpoints"].as_array().into_iter().flatten().any(|e| e["addresses"][0] == text.as_str());
    let slices = objects.list(Resource::EndpointSlices).map(|(_, slice)| slice).filter(|slice| has(slice));
    slices
        .filter_map(|slice| {
            let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str()?;
            Some(full(format!("{}.{service}.{}", text.replace('.', "-"), namespace_of(slice))))
        })
        .collect()
}
