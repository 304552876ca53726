use super::*;
use crate::def::inventory::Protocol;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// A small inventory with everything that the servers need.
pub(crate) fn inventory() -> Inventory {
    toml::from_str(
        r#"
        name = "test"
        document = "none"
        node = [
            { name = "tethys", kube_name = "srv712429", role = "Control Plane", state = "up", public = "157.173.210.123", tailscale = "100.95.51.125", pod_cidr = "10.42.0.0/24", os = "Ubuntu 25.04" },
            { name = "calypso", kube_name = "calypso", role = "GPU Worker", state = "up", lan = "192.168.2.110", tailscale = "100.83.53.38", pod_cidr = "10.42.2.0/24" },
            { name = "styx", kube_name = "srv712695", role = "Worker", state = "down", public = "191.101.1.3", pod_cidr = "10.42.1.0/24" },
        ]
        pod = [
            { name = "coredns", namespace = "kube-system", node = "tethys", address = "10.42.0.5", labels = { k8s-app = "kube-dns" }, ports = [{ name = "dns", port = 53 }, { name = "dns-tcp", port = 53 }] },
            { name = "argilla", namespace = "apps", node = "tethys", address = "10.42.0.6", labels = { "app.kubernetes.io/name" = "argilla" }, ports = [{ name = "http", port = 6900 }] },
            { name = "md-query-proxy", namespace = "apps", node = "calypso", address = "10.42.2.5", labels = { "app.kubernetes.io/name" = "md-query-proxy" }, ports = [{ name = "http", port = 8080 }] },
        ]
        service = [
            { name = "kube-dns", namespace = "kube-system", cluster_ip = "10.43.0.10", port = 53, protocol = "udp" },
            { name = "argilla", namespace = "apps", port = 80, protocol = "tcp", target_port = "http", selector = { "app.kubernetes.io/name" = "argilla" } },
            { name = "md-query-proxy", namespace = "apps", port = 8080, protocol = "tcp", selector = { "app.kubernetes.io/name" = "md-query-proxy" } },
        ]
        [cluster]
        version = "v1.33.4+k3s1"
        domain = "cluster.local"
        pod_cidr = "10.42.0.0/16"
        service_cidr = "10.43.0.0/16"
        api = "10.43.0.1:443"
        api_endpoint = "100.95.51.125:6443"
        [overlay]
        device = "flannel.1"
        vni = 1
        port = 8472
        parent = "tailscale0"
        overhead_bytes = 50
        bridge = "cni0"
        [tailnet]
        name = "goldfish-inc.ts.net"
        cidr = "100.64.0.0/10"
        device = "tailscale0"
        table = 52
        [dns]
        nameserver = "10.43.0.10"
        search = ["apps.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        ndots = 5
        upstream = ["1.1.1.1"]
        internal_name = "argilla"
        internal_answer = "argilla.apps.svc.cluster.local"
        external_name = "upload.goldfish.io"
        [egress]
        address = "157.173.210.123"
        echoes = []
        "#,
    )
    .unwrap()
}

fn endpoints(cluster: &Cluster, service: &str) -> Vec<String> {
    let rules = cluster.service_rules();
    let rule = rules.iter().find(|r| r.name == service).unwrap();
    rule.endpoints.iter().map(ToString::to_string).collect()
}

fn slice(cluster: &Cluster, service: &str) -> Value {
    let wanted = |slice: &Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    cluster.read(|o| o.list(Resource::EndpointSlices).map(|(_, s)| s).find(|s| wanted(s)).cloned()).unwrap()
}

#[test]
fn every_object_is_what_kubernetes_says_it_is() {
    fn all<T: serde::de::DeserializeOwned>(cluster: &Cluster, resource: Resource) -> Vec<T> {
        cluster.read(|o| o.list(resource).map(|(_, v)| serde_json::from_value(v.clone()).unwrap()).collect())
    }
    let cluster = Cluster::from_inventory(&inventory());
    let nodes: Vec<Node> = all(&cluster, Resource::Nodes);
    assert_eq!(nodes.len(), 3);
    let internal = |n: &Node| n.status.clone().unwrap().addresses.unwrap()[0].address.clone();
    assert_eq!(nodes.iter().map(internal).collect::<Vec<_>>(), ["100.83.53.38", "100.95.51.125", "191.101.1.3"]);
    let pods: Vec<Pod> = all(&cluster, Resource::Pods);
    assert!(pods[0].metadata.name.as_ref().unwrap().starts_with("argilla-"));
    assert_eq!(all::<Service>(&cluster, Resource::Services).len(), 4);
    assert_eq!(all::<EndpointSlice>(&cluster, Resource::EndpointSlices).len(), 4);
}

#[test]
fn cluster_ips_are_stated_or_the_same_in_every_run() {
    let (one, two) = (Cluster::from_inventory(&inventory()).service_rules(), Cluster::from_inventory(&inventory()).service_rules());
    assert_eq!(one, two);
    let network = inventory().cluster.service_cidr;
    assert!(one.iter().all(|r| network.contains(&r.cluster_ip)));
    let dns: Vec<_> = one.iter().filter(|r| r.name == "kube-dns").map(|r| (r.cluster_ip.to_string(), r.port, r.protocol)).collect();
    let ip = || "10.43.0.10".to_owned();
    assert_eq!(dns, [(ip(), 53, Protocol::Udp), (ip(), 53, Protocol::Tcp), (ip(), 9153, Protocol::Tcp)]);
}

#[test]
fn endpoints_follow_selectors_ports_pods_and_nodes() {
    let cluster = Cluster::from_inventory(&inventory());
    assert_eq!(endpoints(&cluster, "kubernetes"), ["100.95.51.125:6443"]);
    assert_eq!(endpoints(&cluster, "argilla"), ["10.42.0.6:6900"]);

    cluster.set_selector("apps", "argilla", BTreeMap::from([("app.kubernetes.io/name".into(), "argila".into())]));
    assert!(endpoints(&cluster, "argilla").is_empty());
    assert_eq!((&slice(&cluster, "argilla")["endpoints"], &slice(&cluster, "argilla")["ports"]), (&Value::Null, &Value::Null));
    cluster.set_selector("apps", "argilla", BTreeMap::from([("app.kubernetes.io/name".into(), "argilla".into())]));
    assert_eq!(endpoints(&cluster, "argilla"), ["10.42.0.6:6900"]);

    cluster.set_target_port("apps", "argilla", 80, "web");
    assert!(endpoints(&cluster, "argilla").is_empty());
    assert_eq!(slice(&cluster, "argilla")["endpoints"][0]["addresses"][0], "10.42.0.6");
    assert_eq!(slice(&cluster, "argilla")["ports"], Value::Null);
    cluster.set_target_port("apps", "argilla", 80, "http");

    cluster.set_pod_ready("apps", "argilla", false);
    assert!(endpoints(&cluster, "argilla").is_empty());
    assert_eq!(slice(&cluster, "argilla")["endpoints"][0]["conditions"]["ready"], false);
    cluster.set_pod_ready("apps", "argilla", true);

    cluster.set_node_ready("calypso", false);
    assert!(endpoints(&cluster, "md-query-proxy").is_empty());
    cluster.set_node_ready("calypso", true);
    assert_eq!(endpoints(&cluster, "md-query-proxy"), ["10.42.2.5:8080"]);
}

#[test]
fn resource_versions_move_for_what_changed_and_nothing_else() {
    let cluster = Cluster::from_inventory(&inventory());
    let version = |resource, ns: &str, name: &str| {
        cluster.read(|o| o.get(resource, ns, name).unwrap()["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap())
    };
    let (node, service, all) =
        (version(Resource::Nodes, "", "calypso"), version(Resource::Services, "apps", "argilla"), cluster.read(Objects::version));
    cluster.annotate_flannel("calypso", "b6:49:e4:e5:43:be", "100.83.53.38".parse().unwrap());
    assert!(version(Resource::Nodes, "", "calypso") > node);
    assert_eq!(version(Resource::Services, "apps", "argilla"), service);
    assert_eq!(cluster.read(Objects::version), all + 1);
    let data = cluster.read(|o| o.get(Resource::Nodes, "", "calypso").unwrap()["metadata"]["annotations"].clone());
    assert_eq!(data["flannel.alpha.coreos.com/backend-data"], r#"{"VNI":1,"VtepMAC":"b6:49:e4:e5:43:be"}"#);
}

#[test]
fn names_are_answered_as_coredns_answers_them() {
    let cluster = Cluster::from_inventory(&inventory());
    let ask = |name: &str| cluster.dns_lookup(name);
    let one = |text: &str| Lookup::Addresses(vec![text.parse().unwrap()]);
    assert_eq!(ask("kubernetes.default.svc.cluster.local"), one("10.43.0.1"));
    assert_eq!(ask("KUBE-DNS.kube-system.svc.cluster.local"), one("10.43.0.10"));
    assert_eq!(ask("10-42-0-6.apps.pod.cluster.local"), one("10.42.0.6"));
    assert_eq!(ask("svc.cluster.local"), Lookup::NoData);
    assert_eq!(ask("apps.svc.cluster.local"), Lookup::NoData);
    for name in ["argilla.svc.cluster.local", "argilla.cluster.local", "nothere.apps.svc.cluster.local", "argilla.nope.svc.cluster.local"] {
        assert_eq!(ask(name), Lookup::NoSuchName, "{name}");
    }
    assert_eq!(cluster.dns_reverse("10.43.0.10".parse().unwrap()), ["kube-dns.kube-system.svc.cluster.local"]);
    assert_eq!(cluster.dns_reverse("10.42.0.6".parse().unwrap()), ["10-42-0-6.argilla.apps.svc.cluster.local"]);
}
