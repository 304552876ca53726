use super::*;
use crate::probe::kube_client::fake::{Fake, Reply, Tls, context};
use crate::vantage::{Net, NetNs, Source};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn healthy() -> Vec<(&'static str, Reply)> {
    vec![
        ("/version", Reply::capture("version")),
        ("/readyz", Reply::capture("readyz-verbose")),
        ("/api/v1/nodes", Reply::capture("list-nodes")),
    ]
}

/// The healthy server with one answer changed.
fn but(path: &'static str, reply: Reply) -> Vec<(&'static str, Reply)> {
    let mut routes = healthy();
    routes.retain(|(p, _)| *p != path);
    routes.push((path, reply));
    routes
}

async fn observe(tls: Tls, routes: &[(&'static str, Reply)], patience: Duration) -> Value {
    let fake = Fake::start(&Net::Here, tls, routes);
    Kube {}.observe(&fake.context(Net::Here, patience)).await.facts.to_json()
}

fn stop(facts: &Value) -> (&str, &str) {
    (facts["stage"].as_str().unwrap(), facts["error"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_server_is_read_to_the_end() {
    let facts = observe(Tls::Good, &healthy(), PATIENCE).await;
    assert_eq!(stop(&facts), ("done", ""));
    assert_eq!(facts["version"], json!("v1.33.13"));
    assert_eq!((&facts["reachable"], &facts["ready"], &facts["listed"]), (&json!(true), &json!(true), &json!(true)));
    let calypso = facts["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "calypso").unwrap();
    assert_eq!((&calypso["internal_ip"], &calypso["pod_cidr"]), (&json!("100.64.0.2"), &json!("10.42.2.0/24")));
    assert_eq!(calypso["flannel_public_ip"], json!("100.64.0.2"));
    assert_eq!(calypso["flannel_mac"].as_str().unwrap().len(), 17);
    assert_eq!(facts["not_ready"], json!(["srv712695"]));
    assert!(facts["server_cert_days"].as_f64().unwrap() > 0.0);
    assert_eq!(facts["client_cert_days"], json!({"unknown": "the kubeconfig has no client certificate"}));
    let unknown = facts.as_object().unwrap().values().filter(|v| v.get("unknown").is_some());
    // The client certificate, and the clock: the captured answers are given out without their dates.
    assert_eq!(unknown.count(), 2);
    assert_eq!((&facts["context"], &facts["credentials"]), (&json!("c"), &json!("token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_failures_have_words_of_their_own() {
    for (tls, expected) in [
        (Tls::UnknownIssuer, ("tls", "tls: unknown issuer")),
        (Tls::WrongName, ("tls", "tls: wrong name")),
        (Tls::Expired, ("tls", "tls: expired")),
        (Tls::Silent, ("tls", "TIMEOUT")),
        (Tls::Plain, ("version", "not an API server")),
    ] {
        let facts = observe(tls, &healthy(), PATIENCE).await;
        assert_eq!(stop(&facts), expected);
        assert_eq!(facts["reachable"], json!(false));
        assert_eq!(facts["ready"], json!({"unknown": format!("stopped at {}: {}", expected.0, expected.1)}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_datastore_is_neither_down_nor_silent() {
    let mut routes = but("/readyz", Reply::capture("etcd-hung-readyz"));
    routes.retain(|(p, _)| *p != "/api/v1/nodes");
    routes.push(("/api/v1/nodes", Reply::capture("etcd-hung-list")));
    let facts = observe(Tls::Good, &routes, PATIENCE).await;
    assert_eq!(stop(&facts), ("readyz", "500 etcd, etcd-readiness"));
    assert_eq!(facts["readyz_failed"], json!(["etcd", "etcd-readiness"]));
    assert_eq!((&facts["reachable"], &facts["ready"], &facts["listed"]), (&json!(true), &json!(false), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn being_refused_is_neither_down_nor_unready() {
    let refused = Reply::capture("unauthorized-no-cert");
    let all = [("/version", refused.clone()), ("/readyz", refused.clone()), ("/api/v1/nodes", refused)];
    let facts = observe(Tls::Good, &all, PATIENCE).await;
    assert_eq!(stop(&facts), ("auth", "401 Unauthorized"));
    assert_eq!((&facts["reachable"], &facts["ready"]), (&json!(true), &json!({"unknown": "401 Unauthorized"})));

    let facts = observe(Tls::Good, &but("/api/v1/nodes", Reply::capture("forbidden-pods")), PATIENCE).await;
    assert_eq!(stop(&facts), ("auth", "403 Forbidden (list nodes)"));
    assert_eq!(facts["ready"], json!(true));
    assert!(facts["listed"].get("unknown").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_end_honestly_and_in_time() {
    let big = [br#"{"items":["#.to_vec(), vec![b' '; 11 << 20], b"]}".to_vec()].concat();
    let cases = [
        ("/version", Reply::Body(200, b"<html>Sign in</html>".to_vec()), ("version", "not an API server")),
        ("/version", Reply::Body(403, b"<html>Denied</html>".to_vec()), ("version", "not an API server")),
        ("/version", Reply::Raw(b"\x15\x03\x01 no HTTP\r\n\r\n".to_vec()), ("version", "not an API server")),
        ("/version", Reply::Raw(Vec::new()), ("version", "closed without an answer")),
        ("/version", Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()), ("version", "an answer that was cut short")),
        ("/version", Reply::Silence, ("version", "TIMEOUT")),
        ("/readyz", Reply::Body(200, Vec::new()), ("done", "")),
        ("/readyz", Reply::Body(500, b"[-]\n[-] \n[-]\x1b[2J failed\n".to_vec()), ("readyz", "500 \\u{1b}[2J")),
        ("/api/v1/nodes", Reply::Body(200, br#"{"items":[{"metadata":{"na"#.to_vec()), ("nodes", "not an API server")),
        ("/api/v1/nodes", Reply::Body(200, br#"{"items":{}}"#.to_vec()), ("nodes", "not an API server")),
        ("/api/v1/nodes", Reply::Body(200, big), ("nodes", "an answer of more than 10 MB")),
        ("/api/v1/nodes", Reply::Drip, ("nodes", "TIMEOUT")),
    ];
    for (path, reply, expected) in cases {
        let began = Instant::now();
        let facts = observe(Tls::Good, &but(path, reply), Duration::from_secs(3)).await;
        assert_eq!(stop(&facts), expected, "{path}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path} took {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_kubeconfig_it_says_where_it_looked() {
    let seen = Kube {}.observe(&context(Net::Here, None, PATIENCE)).await;
    assert_eq!(seen.could_not_look.as_deref(), Some("no kubeconfig (tried /nowhere/kubeconfig: no such file)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_kubeconfig_stops_at_config() {
    let seen = Kube {}.observe(&context(Net::Here, Some(Source::Text("current-context: 7".to_owned())), PATIENCE)).await;
    let facts = seen.facts.to_json();
    assert_eq!(stop(&facts).0, "config");
    assert!(facts["reachable"].get("unknown").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_connections_are_made_inside_the_vantages_network() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let inside = Net::Ns(NetNs::create("inside").unwrap());
    loopback_up(&inside).await;
    let fake = Fake::start(&inside, Tls::Good, &healthy());
    let seen = Kube {}.observe(&fake.context(inside, PATIENCE)).await.facts.to_json();
    assert_eq!(stop(&seen), ("done", ""));
    // The same address is another machine's from here.
    let outside = Kube {}.observe(&fake.context(Net::Here, PATIENCE)).await.facts.to_json();
    assert_eq!(stop(&outside), ("connect", "ECONNREFUSED"));
    assert_eq!(outside["reachable"], json!(false));
    let down = Net::Ns(NetNs::create("down").unwrap());
    let unreachable = Kube {}.observe(&fake.context(down, PATIENCE)).await.facts.to_json();
    assert_eq!(stop(&unreachable), ("connect", "ENETUNREACH"));
}

async fn loopback_up(net: &Net) {
    let (connection, handle, _) = net.with(rtnetlink::new_connection).unwrap().unwrap();
    tokio::spawn(connection);
    handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_a_node_are_handed_on() {
    let node = br#"{"kind":"Node","apiVersion":"v1","metadata":{"annotations":{"a/b":"c"}}}"#.to_vec();
    let fake = Fake::start(&Net::Here, Tls::Good, &[("/api/v1/nodes/calypso", Reply::Body(200, node))]);
    let cx = fake.context(Net::Here, PATIENCE);
    assert_eq!(node_annotations(&cx, "calypso").await.unwrap()["a/b"], "c");
    assert_eq!(node_annotations(&cx, "tethys").await.unwrap_err(), "404 not found");
}
