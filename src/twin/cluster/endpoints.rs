//! The endpoint slice controller and kube-proxy's view.

use super::objects::suffix;
use super::{Objects, Resource, name_of, namespace_of};
use crate::def::inventory::Protocol;
use serde_json::{Map, Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};

/// One port of a service, as kube-proxy programs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// Its ClusterIP.
    pub cluster_ip: Ipv4Addr,
    /// The service port.
    pub port: u16,
    /// The port's name; empty if it has none.
    pub port_name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Ready endpoints; without one kube-proxy rejects.
    pub endpoints: Vec<SocketAddrV4>,
    /// Kubernetes' names of the nodes that they are on, in the same order; empty for one that is on none.
    pub homes: Vec<String>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// What the nodes open for it to the outside, if anything.
    pub node_port: Option<NodePort>,
}

/// A port that is open on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// Its number.
    pub port: u16,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
}

/// Makes every slice follow its service's selector and the pods.
pub(super) fn reconcile(objects: &mut Objects) {
    let services: Vec<Value> = objects.list(Resource::Services).map(|(_, s)| s.clone()).collect();
    for service in services {
        let Some(selector) = service["spec"]["selector"].as_object() else { continue };
        let pods: Vec<&Value> = objects.list(Resource::Pods).map(|(_, pod)| pod).filter(|pod| selects(&service, selector, pod)).collect();
        let endpoints = if pods.is_empty() { Value::Null } else { json!(pods.iter().map(|pod| endpoint(pod)).collect::<Vec<_>>()) };
        let ports = ports(&service, &pods);
        write_slice(objects, &service, endpoints, ports);
    }
}

fn selects(service: &Value, selector: &Map<String, Value>, pod: &Value) -> bool {
    namespace_of(pod) == namespace_of(service)
        && !selector.is_empty()
        && selector.iter().all(|(label, value)| pod["metadata"]["labels"].get(label) == Some(value))
}

/// Whether a pod's Ready condition is True.
fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn endpoint(pod: &Value) -> Value {
    let terminating = pod["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null());
    json!({
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready(pod) && !terminating, "serving": ready(pod), "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": pod["metadata"]["uid"]},
        "nodeName": pod["spec"]["nodeName"],
    })
}

/// The slice's ports: a target port by name that no selected pod has is left out; `null` if none is left.
fn ports(service: &Value, pods: &[&Value]) -> Value {
    let Some(first) = pods.first() else { return Value::Null };
    let resolved: Vec<Value> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| Some(json!({"name": port["name"], "protocol": port["protocol"], "port": target(port, first)?})))
        .collect();
    if resolved.is_empty() { Value::Null } else { json!(resolved) }
}

fn target(port: &Value, pod: &Value) -> Option<u64> {
    match &port["targetPort"] {
        Value::String(name) => pod["spec"]["containers"].as_array()?.iter().find_map(|container| {
            let ports = container["ports"].as_array()?;
            ports.iter().find(|p| p["name"] == name.as_str() && p["protocol"] == port["protocol"])?["containerPort"].as_u64()
        }),
        number => number.as_u64(),
    }
}

fn write_slice(objects: &mut Objects, service: &Value, endpoints: Value, ports: Value) {
    let (namespace, name) = (namespace_of(service), name_of(service));
    let slice_name = format!("{name}-{}", suffix(&format!("slice/{namespace}/{name}"), 5));
    match objects.get_mut(Resource::EndpointSlices, namespace, &slice_name) {
        None => objects.insert(Resource::EndpointSlices, new_slice(service, &slice_name, endpoints, ports)),
        Some(slice) if slice["endpoints"] != endpoints || slice["ports"] != ports => {
            slice["endpoints"] = endpoints;
            slice["ports"] = ports;
            slice["metadata"]["generation"] = json!(slice["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
            slice["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] = now();
        }
        Some(_) => {}
    }
}

fn now() -> Value {
    json!(chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

fn new_slice(service: &Value, slice_name: &str, endpoints: Value, ports: Value) -> Value {
    let (namespace, name) = (namespace_of(service), name_of(service));
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert("endpointslice.kubernetes.io/managed-by".into(), json!("endpointslice-controller.k8s.io"));
    labels.insert("kubernetes.io/service-name".into(), json!(name));
    labels.sort_keys();
    json!({
        "metadata": {"name": slice_name, "generateName": format!("{name}-"), "namespace": namespace, "uid": null, "resourceVersion": null,
            "generation": 1, "creationTimestamp": null, "labels": labels,
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": now()},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": service["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true}]},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// What kube-proxy would program.
pub(super) fn service_rules(objects: &Objects) -> Vec<ServiceRule> {
    objects.list(Resource::Services).flat_map(|(_, service)| rules_of(objects, service)).collect()
}

fn rules_of(objects: &Objects, service: &Value) -> Vec<ServiceRule> {
    let Some(cluster_ip) = service["spec"]["clusterIP"].as_str().and_then(|a| a.parse().ok()) else { return Vec::new() };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|port| {
            let (endpoints, homes) = ready_endpoints(objects, service, port).into_iter().unzip();
            Some(ServiceRule {
                namespace: namespace_of(service).to_owned(),
                name: name_of(service).to_owned(),
                cluster_ip,
                port: u16::try_from(port["port"].as_u64()?).ok()?,
                port_name: port["name"].as_str().unwrap_or_default().to_owned(),
                protocol: if port["protocol"] == "UDP" { Protocol::Udp } else { Protocol::Tcp },
                endpoints,
                homes,
                internal_local: service["spec"]["internalTrafficPolicy"] == "Local",
                node_port: port["nodePort"].as_u64().and_then(|number| {
                    let local = service["spec"]["externalTrafficPolicy"] == "Local";
                    Some(NodePort { port: u16::try_from(number).ok()?, local })
                }),
            })
        })
        .collect()
}

fn ready_endpoints(objects: &Objects, service: &Value, port: &Value) -> Vec<(SocketAddrV4, String)> {
    let slices = objects.list(Resource::EndpointSlices).map(|(_, slice)| slice).filter(|slice| {
        namespace_of(slice) == namespace_of(service) && slice["metadata"]["labels"]["kubernetes.io/service-name"] == name_of(service)
    });
    let slices: Vec<&Value> = slices.collect();
    let which = |condition: &str| slices.iter().flat_map(|slice| slice_endpoints(slice, port, condition)).collect::<Vec<_>>();
    // Without a ready endpoint kube-proxy falls back to those that terminate and still serve (KEP-1669).
    Some(which("ready")).filter(|ready| !ready.is_empty()).unwrap_or_else(|| which("serving"))
}

fn slice_endpoints(slice: &Value, port: &Value, condition: &str) -> Vec<(SocketAddrV4, String)> {
    let number = slice["ports"].as_array().into_iter().flatten().find(|p| p["name"] == port["name"]).and_then(|p| p["port"].as_u64());
    let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|endpoint| endpoint["conditions"][condition] == true)
        .filter_map(|endpoint| {
            let address = endpoint["addresses"][0].as_str()?.parse().ok()?;
            Some((SocketAddrV4::new(address, number), endpoint["nodeName"].as_str().unwrap_or_default().to_owned()))
        })
        .collect()
}
