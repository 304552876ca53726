use super::kube_client::fake::{Fake, Reply, Tls, context};
use super::*;
use crate::vantage::Net;
use serde_json::json;
use std::time::Duration;

const SERVICE: &str = "/api/v1/namespaces/apps/services/argilla";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/apps/endpointslices";
const PODS: &str = "/api/v1/namespaces/apps/pods";

/// The captured Service with another ClusterIP, port and selector, so that nothing but loopback is connected to.
fn service(cluster_ip: &str, port: u16, name: &str) -> Reply {
    let Reply::Body(_, body) = Reply::capture("list-services") else { unreachable!() };
    let list: Value = serde_json::from_slice(&body).unwrap();
    let mut service = list["items"].as_array().unwrap().iter().find(|s| s["metadata"]["name"] == "argilla").unwrap().clone();
    service["spec"]["clusterIP"] = json!(cluster_ip);
    service["spec"]["ports"][0]["port"] = json!(port);
    service["spec"]["selector"] = json!({"app.kubernetes.io/name": name});
    Reply::Body(200, service.to_string().into_bytes())
}

/// The captured slice with its ready endpoint on loopback.
fn slices(port: u16) -> Reply {
    let Reply::Body(_, body) = Reply::capture("list-endpointslices-label") else { unreachable!() };
    let text = String::from_utf8(body).unwrap();
    Reply::Body(200, text.replace("10.42.0.6", "127.0.0.1").replace("6900", &port.to_string()).into_bytes())
}

fn probe(port: u16, connect: &str) -> Box<dyn Probe> {
    let with = format!("name = 'argilla'\nnamespace = 'apps'\nport = {port}\nconnect = '{connect}'");
    (KIND.decode)(&toml::from_str(&with).unwrap()).unwrap()
}

async fn observe(routes: &[(&'static str, Reply)], port: u16, connect: &str) -> Value {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    probe(port, connect).observe(&fake.context(Net::Here, Duration::from_secs(9))).await.facts.to_json()
}

/// A port on loopback that accepts, and the listener that must live as long.
fn open_port() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_service_is_counted_and_connected_to() {
    let (_listener, port) = open_port();
    let routes = [(SERVICE, service("127.0.0.1", port, "argilla")), (SLICES, slices(port)), (PODS, Reply::capture("list-pods-rv0"))];
    let facts = observe(&routes, port, "tcp").await;
    assert_eq!((&facts["exists"], &facts["cluster_ip"]), (&json!(true), &json!("127.0.0.1")));
    assert_eq!(facts["selector"], json!("app.kubernetes.io/name=argilla"));
    assert_eq!((&facts["near_miss"], &facts["ports_unset"]), (&json!(""), &json!(false)));
    assert!(facts["selector_matches"].as_i64().unwrap() >= 1);
    assert_eq!((&facts["ready"], &facts["endpoints"]), (&json!(1), &json!([format!("127.0.0.1:{port}")])));
    assert_eq!((&facts["connect"], &facts["direct"]), (&json!("ok"), &json!("ok")));
    assert!(facts["connect_ms"].is_f64() && facts["direct_ms"].is_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_selector_has_no_matches_but_a_near_miss() {
    let empty = Reply::Body(200, br#"{"kind":"EndpointSliceList","metadata":{},"items":[]}"#.to_vec());
    let routes = [(SERVICE, service("127.0.0.1", 1, "argila")), (SLICES, empty), (PODS, Reply::capture("list-pods-rv0"))];
    let facts = observe(&routes, 1, "tcp").await;
    assert_eq!((&facts["selector_matches"], &facts["ready"]), (&json!(0), &json!(0)));
    assert!(facts["near_miss"].as_str().unwrap().ends_with("app.kubernetes.io/name=argilla"), "{facts}");
    assert_eq!((&facts["connect"], &facts["direct"]), (&json!("ECONNREFUSED"), &json!("")));
    assert_eq!(facts["direct_ms"], json!({"unknown": "no endpoint is ready"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_may_not_be_listed_leave_only_their_facts_unknown() {
    let routes = [(SERVICE, service("None", 80, "argilla")), (SLICES, slices(6900)), (PODS, Reply::capture("forbidden-pods"))];
    let facts = observe(&routes, 80, "none").await;
    for path in ["selector_matches", "near_miss"] {
        assert_eq!(facts[path], json!({"unknown": "403 Forbidden (list pods)"}));
    }
    assert_eq!((&facts["cluster_ip"], &facts["ready"]), (&json!("None"), &json!(1)));
    assert_eq!(facts["connect"], json!({"unknown": "not asked for"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_service_has_nothing_to_connect_to_but_its_backends() {
    let (_listener, port) = open_port();
    let routes = [(SERVICE, service("None", port, "argilla")), (SLICES, slices(port)), (PODS, Reply::capture("list-pods-rv0"))];
    let facts = observe(&routes, port, "tcp").await;
    assert_eq!(facts["connect"], json!({"unknown": "a headless service has no ClusterIP"}));
    assert_eq!(facts["direct"], json!("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_exist_is_a_fact() {
    let facts = observe(&[(SERVICE, Reply::capture("get-service-404"))], 80, "tcp").await;
    assert_eq!(facts["exists"], json!(false));
    for path in ["ready", "selector_matches", "warning", "connect", "direct_ms"] {
        assert_eq!(facts[path], json!({"unknown": "the service does not exist"}), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_a_documented_cluster_ip_is_still_connected_to() {
    let (_listener, port) = open_port();
    let fake = Fake::start(&Net::Here, Tls::Good, &[(SERVICE, Reply::Silence)]);
    let mut cx = fake.context(Net::Here, Duration::from_secs(9));
    let seen = probe(port, "tcp").observe(&cx).await;
    assert_eq!(seen.could_not_look.unwrap(), "the Kubernetes API did not give the service: TIMEOUT");
    cx.deadline = tokio::time::Instant::now() + Duration::from_secs(9);
    let documented = format!("name = 'argilla'\nnamespace = 'apps'\ncluster_ip = '127.0.0.1'\nport = {port}\nprotocol = 'tcp'");
    let mut inventory = (*cx.inventory).clone();
    inventory.services.push(toml::from_str(&documented).unwrap());
    cx.inventory = std::sync::Arc::new(inventory);
    let facts = probe(port, "tcp").observe(&cx).await.facts.to_json();
    assert_eq!(facts["connect"], json!("ok"));
    assert_eq!(facts["exists"], json!({"unknown": "the Kubernetes API did not give the service: TIMEOUT"}));
    let nowhere = context(Net::Here, None, Duration::from_secs(9));
    assert!(probe(port, "tcp").observe(&nowhere).await.could_not_look.unwrap().starts_with("no kubeconfig"));
}

#[test]
fn arguments_are_typed_and_closed() {
    let decode = |text: &str| (KIND.decode)(&toml::from_str(text).unwrap()).map(|p| p.target());
    assert_eq!(decode("name = 'a'\nnamespace = 'b'\nport = 80").unwrap(), "b/a:80");
    assert!(decode("name = 'a'\nnamespace = 'b'\nport = 80\nconnect = 'udp'").is_err());
    assert!(decode("name = 'a'\nnamespace = 'b'\nport = 80\nx = 1").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_not_ready_are_explained() {
    let pods = json!({"metadata": {}, "items": [{"metadata": {"name": "argilla-1", "labels": {"app.kubernetes.io/name": "argilla"}},
        "spec": {"containers": [{"name": "argilla", "ports": [{"name": "http", "containerPort": 6900}]}]},
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers with unready status: [argilla]"}],
            "containerStatuses": [{"name": "argilla", "image": "", "imageID": "", "ready": false, "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}]});
    let event = |at: &str, message: &str| json!({"metadata": {}, "involvedObject": {}, "reason": "Unhealthy", "lastTimestamp": at, "message": message});
    let events = json!({"metadata": {}, "items": [event("2026-01-01T00:00:02Z", "Readiness probe failed: 503\n"), event("2026-01-01T00:00:01Z", "older")]});
    let routes = [
        (SERVICE, service("127.0.0.1", 80, "argilla")),
        (SLICES, slices(6900)),
        (PODS, Reply::json(&pods)),
        ("/api/v1/namespaces/apps/events", Reply::json(&events)),
    ];
    let facts = observe(&routes, 80, "none").await;
    let expected = "argilla-1: ContainersNotReady: containers with unready status: [argilla], waiting: CrashLoopBackOff";
    assert_eq!((&facts["unready_because"], &facts["warning"]), (&json!(expected), &json!("Unhealthy: Readiness probe failed: 503")));
    assert_eq!((&facts["container_ports"], &facts["target_port"]), (&json!(["http 6900/TCP"]), &json!("http")));
    let mut forbidden = routes;
    forbidden[3].1 = Reply::capture("forbidden-pods");
    let facts = observe(&forbidden, 80, "none").await;
    assert_eq!((&facts["unready_because"], &facts["warning"]), (&json!(expected), &json!({"unknown": "403 Forbidden (list events)"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_tries_the_same_paths() {
    let (_listener, port) = open_port();
    let routes = [(SERVICE, service("127.0.0.1", port, "argilla")), (SLICES, slices(port)), (PODS, Reply::capture("list-pods-rv0"))];
    let fake = Fake::start(&Net::Here, Tls::Good, &routes);
    let mut cx = fake.context(Net::Here, Duration::from_secs(9));
    let alone = probe(port, "tcp").observe(&cx).await.facts.to_json();
    assert_eq!(alone["witness"]["connect"], json!({"unknown": "no other node is at hand"}));
    let mut witness = (*cx.vantage).clone();
    witness.id = "there".to_owned();
    cx.witness = Some(std::sync::Arc::new(witness));
    cx.deadline = tokio::time::Instant::now() + Duration::from_secs(9);
    let facts = probe(port, "tcp").observe(&cx).await.facts.to_json();
    let seen = &facts["witness"];
    assert_eq!((&seen["id"], &seen["connect"], &seen["direct"]), (&json!("there"), &json!("ok"), &json!("ok")));
}
