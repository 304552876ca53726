//! Objects from the inventory.

use super::objects::{number, suffix};
use super::{Objects, Resource};
use crate::def::Inventory;
use crate::def::inventory::{Declared, Node, Pod, Protocol, Service};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// When everything was created: the day on which the document says that the cluster was set up this way.
pub(super) const CREATED: &str = "2025-10-13T09:00:00Z";

/// The Corefile that K3s installs.
const COREFILE: &str = ".:53 {
    errors
    health
    ready
    kubernetes DOMAIN in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    hosts /etc/coredns/NodeHosts {
      ttl 60
      reload 15s
      fallthrough
    }
    prometheus :9153
    cache 30
    loop
    reload
    loadbalance
    import /etc/coredns/custom/*.override
    forward . /etc/resolv.conf
}
import /etc/coredns/custom/*.server
";

/// Fills the store.
pub(super) fn build(inventory: &Inventory, objects: &mut Objects) {
    for namespace in namespaces(inventory) {
        objects.insert(Resource::Namespaces, namespace_object(&namespace));
    }
    for node in &inventory.nodes {
        objects.insert(Resource::Nodes, node_object(inventory, node));
    }
    for pod in &inventory.pods {
        objects.insert(Resource::Pods, pod_object(inventory, pod));
    }
    objects.insert(Resource::ConfigMaps, coredns_config(inventory));
    objects.insert(Resource::Services, kubernetes_service(inventory));
    objects.insert(Resource::EndpointSlices, kubernetes_slice(inventory));
    objects.insert(Resource::Services, kube_dns_service(inventory));
    let mut taken = stated_addresses(inventory);
    for service in inventory.services.iter().filter(|s| !built_in(s)) {
        let address = service.cluster_ip.unwrap_or_else(|| allocate(inventory, service, &mut taken));
        objects.insert(Resource::Services, service_object(service, address));
    }
}

fn time(at: DateTime<Utc>) -> Value {
    json!(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn namespaces(inventory: &Inventory) -> BTreeSet<String> {
    let standard = ["default", "kube-node-lease", "kube-public", "kube-system"].map(str::to_owned);
    let used = inventory.pods.iter().map(|p| p.namespace.clone()).chain(inventory.services.iter().map(|s| s.namespace.clone()));
    used.chain(standard).collect()
}

fn namespace_object(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": null, "resourceVersion": null, "creationTimestamp": null,
            "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

/// The address by which the cluster knows a node: Tailscale's where it has one.
fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    node.tailscale.or(node.public).or(node.lan)
}

fn node_object(inventory: &Inventory, node: &Node) -> Value {
    let address = internal_ip(node).map(|a| a.to_string()).unwrap_or_default();
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "k3s",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": node.kube_name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s",
    });
    if node.role.to_lowercase().contains("control") {
        labels["node-role.kubernetes.io/control-plane"] = json!("true");
        labels["node-role.kubernetes.io/master"] = json!("true");
    }
    let size = json!({"cpu": "4", "memory": "16Gi", "pods": "110"});
    let mut object = json!({
        "metadata": {"name": node.kube_name, "uid": null, "resourceVersion": null, "creationTimestamp": null, "labels": labels,
            "annotations": {
                "k3s.io/hostname": node.kube_name,
                "k3s.io/internal-ip": address,
                "node.alpha.kubernetes.io/ttl": "0",
            }},
        "spec": {"podCIDR": node.pod_cidr.to_string(), "podCIDRs": [node.pod_cidr.to_string()], "providerID": format!("k3s://{}", node.kube_name)},
        "status": {
            "capacity": size,
            "allocatable": size,
            "conditions": [],
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": node.kube_name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": "0",
                "systemUUID": "0",
                "bootID": "0",
                "kernelVersion": "6.14.0-28-generic",
                "osImage": node.os.as_deref().unwrap_or("Linux"),
                "containerRuntimeVersion": "containerd://2.0.5-k3s2",
                "kubeletVersion": inventory.cluster.version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    });
    match node.state {
        Declared::Up => set_node_ready(&mut object, true, Utc::now()),
        Declared::Down => set_node_ready(&mut object, false, Utc::now() - TimeDelta::days(3)),
    }
    object
}

/// Writes a node's conditions and taints; `at` is when it became so.
pub(super) fn set_node_ready(node: &mut Value, ready: bool, at: DateTime<Utc>) {
    let heartbeat = if ready { Utc::now() } else { at };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "lastHeartbeatTime": time(heartbeat), "lastTransitionTime": time(at), "reason": reason, "message": message});
    let silent = |kind: &str| condition(kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
    node["status"]["conditions"] = if ready {
        json!([
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ])
    } else {
        json!([silent("MemoryPressure"), silent("DiskPressure"), silent("PIDPressure"), silent("Ready")])
    };
    if ready {
        if let Some(spec) = node["spec"].as_object_mut() {
            spec.shift_remove("taints");
        }
    } else {
        let taint = |effect: &str| json!({"key": "node.kubernetes.io/unreachable", "effect": effect, "timeAdded": time(at)});
        node["spec"]["taints"] = json!([taint("NoSchedule"), taint("NoExecute")]);
    }
}

fn pod_object(inventory: &Inventory, pod: &Pod) -> Value {
    let seed = format!("{}/{}", pod.namespace, pod.name);
    let node = inventory.node(&pod.node);
    let host = node.and_then(internal_ip).map(|a| a.to_string()).unwrap_or_default();
    let address = pod.address.to_string();
    let image = format!("example/{}:1", pod.name);
    let ports: Vec<Value> =
        pod.ports.iter().map(|p| json!({"name": p.name, "containerPort": p.port, "protocol": pod_protocol(&p.name)})).collect();
    let mut object = json!({
        "metadata": {
            "name": format!("{}-{}-{}", pod.name, suffix(&seed, 10), suffix(&format!("{seed}/pod"), 5)),
            "generateName": format!("{}-{}-", pod.name, suffix(&seed, 10)),
            "namespace": pod.namespace, "uid": null, "resourceVersion": null, "generation": 1, "creationTimestamp": null, "labels": pod.labels,
        },
        "spec": {
            "containers": [{"name": pod.name, "image": image, "ports": ports, "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "nodeName": node.map_or(pod.node.as_str(), |n| n.kube_name.as_str()),
            "securityContext": {}, "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "phase": "Running", "conditions": [], "hostIP": host, "podIP": address, "podIPs": [{"ip": address}], "startTime": CREATED,
            "containerStatuses": [{"name": pod.name, "state": {"running": {"startedAt": CREATED}}, "lastState": {}, "ready": true,
                "restartCount": 0, "image": image, "imageID": "", "started": true}],
            "qosClass": "BestEffort",
        },
    });
    set_pod_ready(&mut object, node.is_none_or(|n| n.state == Declared::Up));
    object
}

/// `dns` is the one UDP port of the documented pods.
fn pod_protocol(port_name: &str) -> &'static str {
    if port_name == "dns" { "UDP" } else { "TCP" }
}

/// Writes a pod's conditions.
pub(super) fn set_pod_ready(pod: &mut Value, ready: bool) {
    let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or("").to_owned();
    let condition = |kind: &str, status: bool| {
        let mut condition =
            json!({"type": kind, "status": if status { "True" } else { "False" }, "lastProbeTime": null, "lastTransitionTime": CREATED});
        if !status {
            condition["reason"] = json!("ContainersNotReady");
            condition["message"] = json!(format!("containers with unready status: [{container}]"));
        }
        condition
    };
    pod["status"]["conditions"] = json!([
        condition("PodReadyToStartContainers", true),
        condition("Initialized", true),
        condition("Ready", ready),
        condition("ContainersReady", ready),
        condition("PodScheduled", true),
    ]);
    pod["status"]["containerStatuses"][0]["ready"] = json!(ready);
}

/// Writes the state of a container that exits soon after each start, or of one that runs as if it had never ended.
pub(super) fn set_crash_loop(pod: &mut Value, crashing: bool) {
    let name = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned();
    let container = &mut pod["status"]["containerStatuses"][0];
    if crashing {
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": CREATED, "finishedAt": time(Utc::now())}});
        let message = format!("back-off 2m40s restarting failed container={name}");
        container["state"] = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
        container["lastState"] = ended;
        container["restartCount"] = json!(5);
        container["started"] = json!(false);
    } else {
        container["state"] = json!({"running": {"startedAt": CREATED}});
        container["lastState"] = json!({});
        container["restartCount"] = json!(0);
        container["started"] = json!(true);
    }
    set_pod_ready(pod, !crashing);
}

/// The event that a kubelet writes when a readiness probe fails.
pub(super) fn unhealthy(pod: &Value) -> Value {
    let (namespace, name) = (super::namespace_of(pod), super::name_of(pod));
    let now = time(Utc::now());
    json!({
        "metadata": {"name": format!("{name}.{}", suffix(&format!("event/{namespace}/{name}"), 16)), "namespace": namespace,
            "uid": null, "resourceVersion": null, "creationTimestamp": now},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": name, "uid": pod["metadata"]["uid"], "apiVersion": "v1"},
        "reason": "Unhealthy", "message": "Readiness probe failed: HTTP probe failed with statuscode: 503", "type": "Warning",
        "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]}, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "eventTime": null, "reportingComponent": "kubelet", "reportingInstance": pod["spec"]["nodeName"],
    })
}

fn coredns_config(inventory: &Inventory) -> Value {
    let hosts: String = inventory.nodes.iter().filter_map(|n| Some(format!("{} {}\n", internal_ip(n)?, n.kube_name))).collect();
    json!({
        "metadata": {"name": "coredns", "namespace": "kube-system", "uid": null, "resourceVersion": null, "creationTimestamp": null,
            "annotations": {"objectset.rio.cattle.io/owner-name": "coredns"}},
        "data": {"Corefile": COREFILE.replace("DOMAIN", &inventory.cluster.domain), "NodeHosts": hosts},
    })
}

/// Services that every K3s cluster has; they are made here whether or not the inventory names them.
fn built_in(service: &Service) -> bool {
    matches!((service.namespace.as_str(), service.name.as_str()), ("default", "kubernetes") | ("kube-system", "kube-dns"))
}

fn stated_addresses(inventory: &Inventory) -> BTreeSet<Ipv4Addr> {
    inventory.services.iter().filter_map(|s| s.cluster_ip).chain([*inventory.cluster.api.ip(), inventory.dns.nameserver]).collect()
}

/// A ClusterIP for a service without a stated one: the same in every run, free, and outside the range's lower band, which
/// Kubernetes keeps for stated addresses.
fn allocate(inventory: &Inventory, service: &Service, taken: &mut BTreeSet<Ipv4Addr>) -> Ipv4Addr {
    let network = inventory.cluster.service_cidr;
    let base = u32::from(network.network());
    let size = u32::from(network.broadcast()) - base;
    let band = (size / 16).clamp(1, 256);
    let seed = number(&format!("{}/{}", service.namespace, service.name));
    let room = size.saturating_sub(band + 1).max(1);
    let candidates = (0..room).map(|step| Ipv4Addr::from(base + band + seed.wrapping_add(step) % room));
    let address = candidates.into_iter().find(|a| !taken.contains(a)).unwrap_or(network.network());
    taken.insert(address);
    address
}

/// A target port as JSON: a number where it is one.
pub(super) fn target_port(text: &str) -> Value {
    text.parse::<u16>().map_or_else(|_| json!(text), |number| json!(number))
}

fn spec(ports: Value, selector: Value, address: Ipv4Addr) -> Value {
    let mut spec = json!({"ports": ports});
    if !selector.is_null() {
        spec["selector"] = selector;
    }
    for (name, value) in [
        ("clusterIP", json!(address)),
        ("clusterIPs", json!([address])),
        ("type", json!("ClusterIP")),
        ("sessionAffinity", json!("None")),
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
        ("internalTrafficPolicy", json!("Cluster")),
    ] {
        spec[name] = value;
    }
    spec
}

fn service_with(name: &str, namespace: &str, labels: Value, spec: Value) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace, "uid": null, "resourceVersion": null, "creationTimestamp": null});
    if !labels.is_null() {
        metadata["labels"] = labels;
    }
    json!({"metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}})
}

fn service_object(service: &Service, address: Ipv4Addr) -> Value {
    let (name, protocol) = match service.protocol {
        Protocol::Tcp => ("http", "TCP"),
        Protocol::Udp => ("udp", "UDP"),
    };
    let target = service.target_port.as_deref().map_or(json!(service.port), target_port);
    let ports = json!([{"name": name, "protocol": protocol, "port": service.port, "targetPort": target}]);
    let labels = if service.selector.is_empty() { Value::Null } else { json!(service.selector) };
    service_with(&service.name, &service.namespace, labels.clone(), spec(ports, labels, address))
}

fn kubernetes_service(inventory: &Inventory) -> Value {
    let api = inventory.cluster.api;
    let ports = json!([{"name": "https", "protocol": "TCP", "port": api.port(), "targetPort": inventory.cluster.api_endpoint.port()}]);
    service_with("kubernetes", "default", json!({"component": "apiserver", "provider": "kubernetes"}), spec(ports, Value::Null, *api.ip()))
}

/// The API server writes this slice itself: no selector, no controller.
fn kubernetes_slice(inventory: &Inventory) -> Value {
    let endpoint = inventory.cluster.api_endpoint;
    json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "uid": null, "resourceVersion": null, "generation": 1, "creationTimestamp": null,
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [endpoint.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": endpoint.port()}],
    })
}

fn kube_dns_service(inventory: &Inventory) -> Value {
    let stated = inventory.services.iter().find(|s| s.namespace == "kube-system" && s.name == "kube-dns");
    let selector = stated.filter(|s| !s.selector.is_empty()).map_or(json!({"k8s-app": "kube-dns"}), |s| json!(s.selector));
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
        {"name": "metrics", "protocol": "TCP", "port": 9153, "targetPort": 9153},
    ]);
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    service_with("kube-dns", "kube-system", labels, spec(ports, selector, inventory.dns.nameserver))
}
