//! Answers of kube-apiserver 1.33.13 (`tests/data/k8s`) as the client reads them.

use super::fake::{Fake, Farewell, Reply, Tls};
use super::*;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use serde_json::Value;

const PODS: &str = "/api/v1/pods";

async fn connected_to(routes: &[(&'static str, Reply)]) -> Connected {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    connected(&fake.context(Net::Here, Duration::from_secs(20))).await.unwrap()
}

fn body(reply: Reply) -> Value {
    let Reply::Body(_, body) = reply else { unreachable!() };
    serde_json::from_slice(&body).unwrap()
}

/// The captured pages, each for the token of the one before, and what comes then.
fn pages(last: Reply) -> Reply {
    let tokens = ["list-pods-limit1", "list-pods-continue"].map(|name| {
        let token = body(Reply::capture(name))["metadata"]["continue"].as_str().unwrap().to_owned();
        format!("continue={}", encode(&token))
    });
    Reply::By(Arc::new(move |query| match tokens.iter().position(|token| query.ends_with(token.as_str())) {
        None => Reply::capture("list-pods-limit1"),
        Some(0) => Reply::capture("list-pods-continue"),
        Some(_) => last.clone(),
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_with_the_servers_own_tokens() {
    let end = || {
        let mut page = body(Reply::capture("list-pods-limit1"));
        page["metadata"].as_object_mut().unwrap().retain(|key, _| key == "resourceVersion");
        Reply::json(&page)
    };
    let api = connected_to(&[(PODS, pages(end()))]).await;
    let pods: Vec<Pod> = api.list(PODS, "list pods").await.unwrap();
    let names: Vec<String> = pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
    assert_eq!(names, ["argilla-6d9c7-abcde", "argilla-6d9c7-notready", "md-query-proxy-5f5d-qwert", "argilla-6d9c7-abcde"]);
    assert_eq!(api.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_when_it_is_used_again_is_no_failure() {
    for farewell in [Farewell::Told, Farewell::Gone] {
        let kept = || Reply::Last(b"{}".to_vec(), farewell);
        let api = connected_to(&[("/a", kept()), ("/b", kept())]).await;
        for (path, requests) in [("/a", 1), ("/b", 3), ("/a", 5)] {
            assert_eq!(api.get(path).await.unwrap().status, 200);
            assert_eq!(api.requests(), requests, "{path}");
        }
        // A server that never answers is asked twice, not for ever.
        let api = connected_to(&[("/a", Reply::Raw(Vec::new()))]).await;
        assert_eq!(api.get("/a").await.unwrap_err().word, "closed without an answer");
        assert_eq!(api.requests(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_list_is_a_failure_with_the_servers_own_words() {
    let api = connected_to(&[(PODS, pages(Reply::capture("list-pods-bad-continue")))]).await;
    let failure = api.list::<Pod>(PODS, "list pods").await.unwrap_err();
    assert_eq!(failure.at, At::Status(400));
    assert!(failure.word.starts_with("400 invalid continue token: continue key is not valid"), "{}", failure.word);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_object_is_read() {
    let api = connected_to(&[
        ("/nodes", Reply::capture("allowed-nodes-viewer")),
        ("/nodes-while-etcd-hangs", Reply::capture("etcd-hung-list-rv0")),
        ("/events", Reply::capture("list-events")),
        ("/configmap", Reply::capture("get-configmap-coredns")),
        ("/none", Reply::capture("get-namespace-404")),
        ("/on-calypso", Reply::capture("list-pods-field-node")),
    ])
    .await;
    // A page of one with more to come, and no more that come: a server that does not go on.
    assert_eq!(api.list::<Node>("/nodes", "list nodes").await.unwrap_err().at, At::NotApi);
    assert_eq!(api.list::<Node>("/nodes-while-etcd-hangs", "list nodes").await.unwrap().len(), 3);
    let events: Vec<Event> = api.list("/events", "list events").await.unwrap();
    assert!(events[0].last_timestamp.is_none() && events[0].event_time.is_some(), "newer reporters leave the older time empty");
    let map: ConfigMap = api.object("/configmap", "get configmaps").await.unwrap();
    assert!(map.data.unwrap()["Corefile"].contains("forward . /etc/resolv.conf"));
    assert_eq!(api.list::<Pod>("/none", "list pods").await.unwrap().len(), 0, "a namespace that does not exist has an empty list");
    assert_eq!(api.list::<Pod>("/on-calypso", "list pods").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_told_alike_whatever_was_wrong() {
    for name in ["unauthorized-no-cert", "unauthorized-bad-token", "unauthorized-expired-cert"] {
        let api = connected_to(&[(PODS, Reply::capture(name))]).await;
        let failure = api.list::<Pod>(PODS, "list pods").await.unwrap_err();
        assert_eq!((failure.at, failure.word.as_str()), (At::Denied, "401 Unauthorized"), "{name}");
    }
    let api = connected_to(&[("/version", Reply::capture("etcd-hung-version")), ("/livez", Reply::capture("etcd-hung-livez"))]).await;
    assert_eq!(api.get("/version").await.unwrap().status, 200, "it needs no datastore");
    assert_eq!(api.get("/livez").await.unwrap().status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tls_says_so_in_plain_words() {
    let said = std::fs::read(format!("{}/tests/data/k8s/http-on-tls-port.http", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let api = connected_to(&[("/version", Reply::Raw(said))]).await;
    let failure = api.get("/version").await.unwrap().failure("get /version").unwrap();
    assert_eq!((failure.at, failure.word.as_str()), (At::NotApi, "not an API server"));
    assert!(failure.detail.contains("Client sent an HTTP request to an HTTPS server"), "{}", failure.detail);
}
