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

/// What an SRV record says: a port of a host, and the host's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port; 0 for a pod, which has none of its own.
    pub port: u16,
    /// The host's name, absolute without its trailing dot.
    pub host: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// The services behind a name below the cluster's domain, one for each port (and, without a ClusterIP, each endpoint).
pub(super) fn services(objects: &Objects, name: &str) -> Vec<Service> {
    let Some(rest) = name.strip_suffix(&objects.domain).and_then(|rest| rest.strip_suffix('.')) else { return Vec::new() };
    let mut labels: Vec<&str> = rest.split('.').collect();
    labels.reverse();
    match (&labels[..], lookup(objects, name)) {
        (["pod", _, _], Lookup::Addresses(one)) => {
            one.into_iter().map(|address| Service { port: 0, host: name.to_owned(), address }).collect()
        }
        (["svc", ns, service], Lookup::Addresses(_)) => ports_of(objects, ns, service, |_| true, None),
        (["svc", ns, service, endpoint], Lookup::Addresses(_)) => ports_of(objects, ns, service, |_| true, Some(endpoint)),
        (["svc", ns, service, protocol, port], Lookup::Addresses(_)) => {
            ports_of(objects, ns, service, |entry| names_port(entry, protocol, port), None)
        }
        _ => Vec::new(),
    }
}

/// Ports of a service's ClusterIP, or of its endpoints: of one of these where it is asked for by its name.
fn ports_of(objects: &Objects, namespace: &str, name: &str, wanted: impl Fn(&Value) -> bool, endpoint: Option<&str>) -> Vec<Service> {
    let Some(service) = objects.get(Resource::Services, namespace, name) else { return Vec::new() };
    let host = format!("{name}.{namespace}.svc.{}", objects.domain);
    let number = |entry: &Value| entry["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    if let (Some(address), None) = (service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok()), endpoint) {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten().filter(|entry| wanted(entry));
        return ports.filter_map(|entry| Some(Service { port: number(entry)?, host: host.clone(), address })).collect();
    }
    let mut found = Vec::new();
    for slice in slices(objects, namespace, name) {
        for address in ready(slice) {
            let dashed = address.to_string().replace('.', "-");
            if endpoint.is_some_and(|endpoint| endpoint != dashed) {
                continue;
            }
            let ports = slice["ports"].as_array().into_iter().flatten().filter(|entry| wanted(entry));
            found.extend(ports.filter_map(|entry| Some(Service { port: number(entry)?, host: format!("{dashed}.{host}"), address })));
        }
    }
    found
}

/// Whether an entry of `ports` is the one of `_PORT._PROTOCOL`.
fn names_port(entry: &Value, protocol: &str, port: &str) -> bool {
    let same = |value: &Value, label: &str| {
        label.strip_prefix('_').is_some_and(|label| value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(label)))
    };
    same(&entry["name"], port) && same(&entry["protocol"], protocol)
}

fn has_port(objects: &Objects, namespace: &str, service: &str, protocol: &str, port: &str) -> bool {
    let ports = objects.get(Resource::Services, namespace, service).and_then(|service| service["spec"]["ports"].as_array());
    ports.into_iter().flatten().any(|entry| names_port(entry, protocol, port))
}

/// The ready endpoints themselves; without any, the name does not exist.
fn headless(objects: &Objects, namespace: &str, name: &str) -> Lookup {
    let addresses = endpoints(objects, namespace, name);
    if addresses.is_empty() { Lookup::NoSuchName } else { Lookup::Addresses(addresses) }
}

fn endpoints(objects: &Objects, namespace: &str, name: &str) -> Vec<Ipv4Addr> {
    slices(objects, namespace, name).flat_map(ready).collect()
}

fn slices<'a>(objects: &'a Objects, namespace: &'a str, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let own = move |slice: &&Value| namespace_of(slice) == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == name;
    objects.list(Resource::EndpointSlices).map(|(_, slice)| slice).filter(own)
}

/// Addresses of a slice's ready endpoints.
fn ready(slice: &Value) -> impl Iterator<Item = Ipv4Addr> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten().filter(|e| e["conditions"]["ready"] != false);
    endpoints.filter_map(|e| e["addresses"][0].as_str()?.parse().ok())
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
