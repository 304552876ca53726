//! Kubernetes objects of the twin: nodes, services, pods, and what controllers derive from them.
//!
//! Objects are JSON values, because that is what the API serves. Every change goes through [`Cluster::update`], which then
//! does the endpoint slice controller's work and moves `resourceVersion` on for whatever has changed.

mod app_logs;
mod build;
mod endpoints;
mod history;
mod logs;
mod names;
mod objects;

pub use endpoints::{NodePort, ServiceRule};
pub use history::Change;
pub use logs::{Logs, Wanted as LogsWanted};
pub use names::{Lookup, Service as DnsService};
pub use objects::{Objects, Resource};

use crate::def::Inventory;
use history::History;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A handle on the cluster's objects; clones share them.
#[derive(Clone, Debug)]
pub struct Cluster {
    objects: Arc<Mutex<Objects>>,
    history: Arc<Mutex<History>>,
    version: Arc<watch::Sender<u64>>,
    logs: Logs,
}

impl Cluster {
    /// The documented cluster, healthy: every pod of a node that is declared up is ready.
    pub fn from_inventory(inventory: &Inventory) -> Self {
        let cluster = Self {
            objects: Arc::new(Mutex::new(Objects::new(&inventory.cluster.domain))),
            logs: Logs::default(),
            history: Arc::default(),
            version: Arc::new(watch::Sender::new(0)),
        };
        cluster.update(|objects| build::build(inventory, objects));
        app_logs::begin(&cluster.logs, inventory);
        cluster.compact();
        cluster
    }

    /// Looks at the objects.
    pub fn read<R>(&self, look: impl FnOnce(&Objects) -> R) -> R {
        look(&self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes objects; endpoint slices follow, and `resourceVersion` moves on for what has changed.
    pub fn update<R>(&self, change: impl FnOnce(&mut Objects) -> R) -> R {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let before = objects.clone();
        let result = change(&mut objects);
        endpoints::reconcile(&mut objects);
        let changes = objects.stamp(&before);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).add(changes);
        self.version.send_replace(objects.version());
        result
    }

    /// The changes after a version; the error is the oldest version that can be asked for.
    pub fn changes_since(&self, version: u64) -> Result<Vec<Arc<Change>>, u64> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).since(version)
    }

    /// The store's version as it moves on.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Forgets the changes so far, as etcd does every five minutes: what goes on from an older version gets 410.
    pub fn compact(&self) {
        let version = self.read(Objects::version);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).compact(version);
    }

    /// Writes flannel's annotations on a node, as flannel does when it has made its device.
    pub fn annotate_flannel(&self, kube_name: &str, mac: &str, public_ip: Ipv4Addr) {
        let backend = format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}");
        self.update(|objects| {
            if let Some(node) = objects.get_mut(Resource::Nodes, "", kube_name) {
                let annotations = &mut node["metadata"]["annotations"];
                annotations["flannel.alpha.coreos.com/backend-data"] = json!(backend);
                annotations["flannel.alpha.coreos.com/backend-type"] = json!("vxlan");
                annotations["flannel.alpha.coreos.com/kube-subnet-manager"] = json!("true");
                annotations["flannel.alpha.coreos.com/public-ip"] = json!(public_ip.to_string());
            }
        });
    }

    /// Replaces a service's selector.
    pub fn set_selector(&self, namespace: &str, service: &str, selector: BTreeMap<String, String>) {
        self.update(|objects| {
            if let Some(service) = objects.get_mut(Resource::Services, namespace, service) {
                service["spec"]["selector"] = json!(selector);
            }
        });
    }

    /// Replaces the target port of a service's port: a number or a container port's name.
    pub fn set_target_port(&self, namespace: &str, service: &str, port: u16, target: &str) {
        self.update(|objects| {
            let Some(ports) = objects.get_mut(Resource::Services, namespace, service).and_then(|s| s["spec"]["ports"].as_array_mut())
            else {
                return;
            };
            for entry in ports.iter_mut().filter(|entry| entry["port"] == port) {
                entry["targetPort"] = build::target_port(target);
            }
        });
    }

    /// Sets the `internalTrafficPolicy` of a service.
    pub fn set_internal_policy(&self, namespace: &str, service: &str, policy: &str) {
        self.update(|objects| {
            if let Some(service) = objects.get_mut(Resource::Services, namespace, service) {
                service["spec"]["internalTrafficPolicy"] = json!(policy);
            }
        });
    }

    /// Opens a port on every node for a service's first port, or closes it.
    pub fn set_node_port(&self, namespace: &str, service: &str, open: Option<NodePort>) {
        self.update(|objects| {
            let Some(spec) = objects.get_mut(Resource::Services, namespace, service).map(|s| &mut s["spec"]) else { return };
            spec["type"] = json!(if open.is_some() { "NodePort" } else { "ClusterIP" });
            let Some(spec) = spec.as_object_mut() else { return };
            spec.shift_remove("externalTrafficPolicy");
            if let Some(NodePort { local, .. }) = open {
                spec.insert("externalTrafficPolicy".to_owned(), json!(if local { "Local" } else { "Cluster" }));
            }
            if let Some(port) = spec.get_mut("ports").and_then(|ports| ports[0].as_object_mut()) {
                port.shift_remove("nodePort");
                port.extend(open.map(|open| ("nodePort".to_owned(), json!(open.port))));
            }
        });
    }

    /// Sets the Ready condition of the pods whose name begins with a prefix.
    pub fn set_pod_ready(&self, namespace: &str, pod_prefix: &str, ready: bool) {
        self.update(|objects| {
            let mut events = Vec::new();
            objects.each_mut(Resource::Pods, |pod| {
                if pod["metadata"]["namespace"] == namespace && name_of(pod).starts_with(pod_prefix) {
                    build::set_pod_ready(pod, ready);
                    events.push(build::unhealthy(pod));
                }
            });
            for event in events.into_iter().filter(|_| !ready) {
                objects.insert(Resource::Events, event);
            }
        });
    }

    /// Makes the containers of pods whose name begins with a prefix end and start over, again and again, or run.
    pub fn set_crash_loop(&self, namespace: &str, pod_prefix: &str, crashing: bool) {
        self.update(|objects| {
            objects.each_mut(Resource::Pods, |pod| {
                if pod["metadata"]["namespace"] == namespace && name_of(pod).starts_with(pod_prefix) {
                    build::set_crash_loop(pod, crashing);
                }
            });
        });
    }

    /// Binds the pods whose name begins with a prefix to another node, under another address there.
    pub fn move_pod(&self, namespace: &str, pod_prefix: &str, node: &str, address: Ipv4Addr, ready: bool) {
        self.update(|objects| {
            objects.each_mut(Resource::Pods, |pod| {
                if pod["metadata"]["namespace"] == namespace && name_of(pod).starts_with(pod_prefix) {
                    pod["spec"]["nodeName"] = json!(node);
                    pod["status"]["podIP"] = json!(address);
                    pod["status"]["podIPs"] = json!([{"ip": address}]);
                    build::set_pod_ready(pod, ready);
                }
            });
        });
    }

    /// What containers have written.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Marks the pods whose name begins with a prefix as being deleted, or takes the mark back.
    pub fn set_pod_terminating(&self, namespace: &str, pod_prefix: &str, terminating: bool) {
        self.update(|objects| {
            objects.each_mut(Resource::Pods, |pod| {
                if pod["metadata"]["namespace"] != namespace || !name_of(pod).starts_with(pod_prefix) {
                    return;
                }
                if terminating {
                    pod["metadata"]["deletionTimestamp"] = json!(chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
                } else if let Some(metadata) = pod["metadata"].as_object_mut() {
                    metadata.shift_remove("deletionTimestamp");
                }
            });
        });
    }

    /// Assigns a pod CIDR to a node, or none.
    pub fn set_pod_cidr(&self, kube_name: &str, cidr: Option<String>) {
        self.update(|objects| {
            if let Some(spec) = objects.get_mut(Resource::Nodes, "", kube_name).and_then(|node| node["spec"].as_object_mut()) {
                spec.retain(|name, _| name != "podCIDR" && name != "podCIDRs");
                if let Some(cidr) = cidr {
                    spec.insert("podCIDR".to_owned(), json!(cidr));
                    spec.insert("podCIDRs".to_owned(), json!([cidr]));
                }
            }
        });
    }

    /// Sets the Ready condition of a node. A node that is not ready has stopped posting its status: its conditions become
    /// Unknown, it is tainted, and its pods are marked not ready, as the node lifecycle controller does.
    pub fn set_node_ready(&self, kube_name: &str, ready: bool) {
        self.update(|objects| {
            if let Some(node) = objects.get_mut(Resource::Nodes, "", kube_name) {
                build::set_node_ready(node, ready, chrono::Utc::now());
            }
            objects.each_mut(Resource::Pods, |pod| {
                if pod["spec"]["nodeName"] == kube_name {
                    build::set_pod_ready(pod, ready);
                }
            });
        });
    }

    /// What kube-proxy would program: each service port with its ready endpoints.
    pub fn service_rules(&self) -> Vec<ServiceRule> {
        self.read(endpoints::service_rules)
    }

    /// What the kubernetes plugin of CoreDNS answers for the IPv4 address of a name below the cluster's domain (without trailing dot).
    pub fn dns_lookup(&self, name: &str) -> Lookup {
        self.read(|objects| names::lookup(objects, name))
    }

    /// What an SRV query for a name below the cluster's domain (without trailing dot, in small letters) gets.
    pub fn dns_services(&self, name: &str) -> Vec<DnsService> {
        self.read(|objects| names::services(objects, name))
    }

    /// The names that a PTR query for an address gets; empty for an address that is neither a service's nor an endpoint's.
    pub fn dns_reverse(&self, address: Ipv4Addr) -> Vec<String> {
        self.read(|objects| names::reverse(objects, address))
    }

    /// The cluster's DNS domain.
    pub fn domain(&self) -> String {
        self.read(|objects| objects.domain.clone())
    }
}

/// An object's name.
pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("")
}

/// An object's namespace; empty for cluster-wide ones.
pub(crate) fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("")
}

#[cfg(test)]
pub(crate) mod tests;
