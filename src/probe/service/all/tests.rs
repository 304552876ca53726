use super::*;
use crate::probe::kube_client::fake::{Fake, Reply, Tls};
use crate::vantage::Net;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";

fn parameter(query: &str, name: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// A list of `count` objects that is given out in pages, as asked for.
fn paged(count: usize, object: fn(usize) -> Value) -> Reply {
    Reply::By(Arc::new(move |query| {
        let (limit, from) = (parameter(query, "limit").unwrap_or(count), parameter(query, "continue").unwrap_or(0));
        let until = count.min(from + limit);
        let token = if until < count { until.to_string() } else { String::new() };
        Reply::json(&json!({"metadata": {"continue": token}, "items": (from..until).map(object).collect::<Vec<_>>()}))
    }))
}

/// Every seventh service has a selector that matches nothing.
fn service(n: usize) -> Value {
    let selects = if n.is_multiple_of(7) { format!("app-{n}x") } else { format!("app-{n}") };
    json!({"metadata": {"name": format!("s{n}"), "namespace": "apps"}, "spec": {"selector": {"app": selects}, "ports": [{"port": 80}]}})
}

fn slice(n: usize) -> Value {
    let endpoints = if n.is_multiple_of(7) { json!(null) } else { json!([{"addresses": [format!("10.42.{}.{}", n / 250, n % 250)]}]) };
    json!({"metadata": {"namespace": "apps", "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]})
}

fn pod(n: usize) -> Value {
    json!({"metadata": {"name": format!("p{n}"), "namespace": "apps", "labels": {"app": format!("app-{n}")}}})
}

async fn ask(routes: &[(&'static str, Reply)], patience: Duration) -> Services {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    every_service(&fake.context(Net::Here, patience)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_services_than_one_page_are_all_judged_and_requests_are_counted() {
    let count = 5_400;
    let routes = [(SERVICES, paged(count, service)), (SLICES, paged(count, slice)), (PODS, paged(1_001, pod))];
    let all = ask(&routes, Duration::from_secs(60)).await;
    assert_eq!(all.unknown, Vec::<String>::new());
    assert_eq!(all.objects, Objects { services: count, endpoint_slices: count, pods: 1_001 });
    assert_eq!((all.ports.len(), all.requests), (count, 11 + 11 + 3));
    let broken = all.ports.iter().filter(|p| p.problem == "endpoints-empty-selector").count();
    assert_eq!((broken, all.ports.iter().filter(|p| p.ready == 1).count()), (count.div_ceil(7), count - count.div_ceil(7)));
    let last = all.ports.iter().find(|p| p.service == "s7").unwrap();
    assert_eq!(last.detail, "no pod carries app=app-7x; 1 pod carries app=app-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_too_large_is_asked_for_again_in_smaller_ones() {
    let count = 180;
    // Written once: a server that makes megabytes anew for every page would take the client's time for it.
    let fat: Vec<String> = (1..=count)
        .map(|n| {
            let mut slice = slice(n);
            slice["metadata"]["annotations"] = json!({"x": "y".repeat(60 << 10)});
            slice.to_string()
        })
        .collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let slices = Reply::By(Arc::new(move |query| {
        let (limit, from) = (parameter(query, "limit").unwrap(), parameter(query, "continue").unwrap_or(0));
        seen.lock().unwrap().push((limit, from));
        let until = count.min(from + limit);
        let token = if until < count { until.to_string() } else { String::new() };
        Reply::Body(200, format!(r#"{{"metadata":{{"continue":"{token}"}},"items":[{}]}}"#, fat[from..until].join(",")).into_bytes())
    }));
    let all = ask(&[(SERVICES, paged(1, service)), (SLICES, slices), (PODS, paged(0, pod))], Duration::from_secs(60)).await;
    assert_eq!((all.unknown, all.objects.endpoint_slices), (Vec::new(), count));
    assert_eq!(*asked.lock().unwrap(), [(500, 0), (250, 0), (125, 0), (125, 125)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_listed_is_named_and_nothing_is_claimed_of_it() {
    let healthy = || [(SERVICES, paged(8, service)), (SLICES, paged(8, slice)), (PODS, paged(8, pod))];
    let mut routes = healthy();
    routes[2].1 = Reply::capture("forbidden-pods");
    let all = ask(&routes, Duration::from_secs(9)).await;
    assert_eq!((all.unknown.as_slice(), all.ports.len()), (["403 Forbidden (list pods)".to_owned()].as_slice(), 8));
    assert_eq!(all.ports[0].problem, "no-endpoints");
    let mut routes = healthy();
    routes[1].1 = Reply::capture("forbidden-pods");
    let all = ask(&routes, Duration::from_secs(9)).await;
    assert_eq!((all.unknown.as_slice(), all.ports.len()), (["403 Forbidden (list endpointslices)".to_owned()].as_slice(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_never_end_or_expire_are_unknown() {
    fn same(_: usize) -> Value {
        service(1)
    }
    let endless = Reply::By(Arc::new(|_| Reply::json(&json!({"metadata": {"continue": "again"}, "items": [same(0)]}))));
    let empty = Reply::By(Arc::new(|_| Reply::json(&json!({"metadata": {"continue": "again"}, "items": []}))));
    let expired = Reply::By(Arc::new(|query: &str| match parameter(query, "continue") {
        None => Reply::json(&json!({"metadata": {"continue": "5"}, "items": [same(0)]})),
        Some(_) => Reply::Body(410, br#"{"kind":"Status","message":"The provided continue parameter is too old"}"#.to_vec()),
    }));
    for (reply, expected) in [
        (endless, "a list that does not go on (list services)"),
        (empty, "a list that does not go on (list services)"),
        (expired, "410 The provided continue parameter is too old (list services)"),
    ] {
        let all = ask(&[(SERVICES, reply), (SLICES, paged(1, slice)), (PODS, paged(1, pod))], Duration::from_secs(9)).await;
        assert_eq!(all.unknown, [expected]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_servers_cost_a_bounded_time_and_a_bounded_memory() {
    let (told, untold) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let ten_gb = Reply::Endless("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n", told.clone());
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let header = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 4 << 20], b"\r\n\r\n".to_vec()].concat();
    let many = Reply::Body(200, [b"{\"items\":[".to_vec(), b"{},".repeat(3 << 20), b"{}]}".to_vec()].concat());
    let protobuf = Reply::Raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.kubernetes.protobuf\r\ncontent-length: 6\r\n\r\nk8s\0\n\x04".to_vec(),
    );
    let deep = Reply::Body(200, format!("{{\"items\":[{}", "{\"spec\":[".repeat(100_000)).into_bytes());
    for (reply, expected) in [
        (ten_gb, "an answer of more than 10 MB (list services)"),
        (Reply::Drip, "TIMEOUT (list services)"),
        (Reply::SlowHead, "TIMEOUT (list services)"),
        (Reply::Silence, "TIMEOUT (list services)"),
        (Reply::Raw(redirect), "not an API server (list services)"),
        (Reply::Raw(header), "not an API server (list services)"),
        (protobuf, "not an API server (list services)"),
        (deep, "not an API server (list services)"),
        (many, "not an API server (list services)"),
        (Reply::Body(200, b"<html>Sign in</html>".to_vec()), "not an API server (list services)"),
        (
            Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"items\":[{".to_vec()),
            "an answer that was cut short (list services)",
        ),
    ] {
        let began = Instant::now();
        let routes = [(SERVICES, reply), (SLICES, paged(1, slice)), (PODS, paged(1, pod))];
        let all = ask(&routes, Duration::from_secs(20)).await;
        assert_eq!(all.unknown, [expected]);
        assert!(began.elapsed() < Duration::from_secs(22), "{expected} took {:?}", began.elapsed());
    }
    let sent = told.load(Ordering::Relaxed);
    assert!(sent < 20 << 20, "{sent} bytes were taken of a body that says how long it is");

    // Which bound such a body meets first, that of its length or that of the time, depends on the machine.
    let endless = Reply::Endless("HTTP/1.1 200 OK\r\n\r\n", untold.clone());
    let all = ask(&[(SERVICES, endless), (SLICES, paged(1, slice)), (PODS, paged(1, pod))], Duration::from_secs(20)).await;
    let bounds = ["an answer of more than 10 MB (list services)", "TIMEOUT (list services)"];
    assert!(matches!(&all.unknown[..], [unknown] if bounds.contains(&unknown.as_str())), "{:?}", all.unknown);
    let sent = untold.load(Ordering::Relaxed);
    assert!(sent < 60 << 20, "{sent} bytes of an endless body were taken");
}

/// kube-apiserver 1.33.13 over the lab's objects.
#[tokio::test(flavor = "multi_thread")]
async fn the_captured_cluster_is_judged_service_by_service() {
    let routes = [
        (SERVICES, Reply::capture("list-services")),
        (SLICES, Reply::capture("list-endpointslices")),
        (PODS, Reply::capture("list-pods-rv0")),
    ];
    let all = ask(&routes, Duration::from_secs(20)).await;
    let judged: Vec<_> = all.ports.iter().map(|p| (p.service.as_str(), p.port, p.ready, p.not_ready, p.problem)).collect();
    let (mismatch, empty) = ("targetport-name-mismatch", "endpoints-empty-selector");
    let expected = [
        ("argilla", 80, 1, 1, ""),
        ("argilla-badport", 80, 0, 1, mismatch),
        ("argilla-typo", 80, 0, 0, empty),
        ("headless", 6900, 1, 1, ""),
        ("md-query-proxy", 8080, 1, 0, ""),
        ("kubernetes", 443, 1, 0, ""),
        ("kube-dns", 53, 1, 0, ""),
        ("kube-dns", 53, 1, 0, ""),
        ("kube-dns", 9153, 1, 0, ""),
    ];
    assert_eq!(judged, expected, "ExternalName services have no endpoints, and are left out");
    assert!(all.ports[2].detail.ends_with("2 pods carry app.kubernetes.io/name=argilla"), "{}", all.ports[2].detail);
}
