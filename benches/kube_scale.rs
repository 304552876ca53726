//! What it costs to judge every service of a large cluster: `cargo bench --bench kube_scale`.
//!
//! A stand-in of the Kubernetes API on loopback makes the objects as they are asked for. Beside each analysis the same three
//! lists are fetched plainly, by a client that reads pages and throws them away: their ratio does not depend on the machine.
//! Memory is the growth of the process' peak over what it held before, stand-in included. Medians of [`ROUNDS`] rounds.
//! `cargo bench --bench kube_scale -- --small` is one round over a small cluster: whether it runs, not what it costs.
//! `cargo bench --bench kube_scale -- --kubeconfig FILE` does it with a real API server and whatever that has; put it beside
//! `kubectl get --raw` of the three lists.

use fathom::def::{Catalog, Sources};
use fathom::probe::{Context, Services, every_service};
use fathom::vantage::{HostFiles, Net, Source, Transport, Vantage, VantageKind};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 5;

/// How large a cluster is.
#[derive(Clone, Copy)]
struct Size {
    services: usize,
    endpoints_each: usize,
    pods: usize,
}

const SIZES: [Size; 2] =
    [Size { services: 5_000, endpoints_each: 1, pods: 2_000 }, Size { services: 5_000, endpoints_each: 10, pods: 20_000 }];

const SMALL: [Size; 1] = [Size { services: 1_200, endpoints_each: 3, pods: 1_500 }];

fn main() {
    let small = std::env::args().any(|a| a == "--small");
    let (rounds, sizes): (usize, &[Size]) = if small { (1, &SMALL) } else { (ROUNDS, &SIZES) };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let catalog = Catalog::load(&Sources::default()).expect("built-in catalogue");
    if let Some(file) = std::env::args().skip_while(|a| a != "--kubeconfig").nth(1) {
        return real(&catalog, Source::File(file.into()));
    }
    println!("medians of {rounds} rounds, each list in pages of 500");
    for &size in sizes {
        // The stand-in has threads of its own, so that it does not wait for those that it serves.
        let server = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().expect("runtime");
        let at = server.block_on(serve(size));
        let client = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("runtime");
        let mut judged = Services::default();
        let (mut analysed, mut fetched, mut grown) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let began = Instant::now();
            client.block_on(fetch(at));
            fetched.push(began.elapsed());
            let before = fresh_peak();
            let began = Instant::now();
            judged = client.block_on(every_service(&context(&catalog, at))).expect("the stand-in answers");
            analysed.push(began.elapsed());
            grown.push(peak().saturating_sub(before));
        }
        report(size, &judged, median(analysed), median(fetched), median(grown));
    }
}

/// The same over a cluster of somebody's own.
fn real(catalog: &Catalog, kubeconfig: Source) {
    let client = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("runtime");
    let (mut judged, mut analysed, mut grown) = (Services::default(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = fresh_peak();
        let began = Instant::now();
        judged = client.block_on(every_service(&context_of(catalog, kubeconfig.clone()))).expect("the API answers");
        analysed.push(began.elapsed());
        grown.push(peak().saturating_sub(before));
    }
    assert!(judged.unknown.is_empty(), "{:?}", judged.unknown);
    println!("medians of {ROUNDS} rounds, each list in pages of 500");
    println!("\n{} services, {} slices, {} pods", judged.objects.services, judged.objects.endpoint_slices, judged.objects.pods);
    costs(&judged, median(analysed), median(grown));
}

fn show(what: &str, value: String) {
    println!("  {what:<48} {value}");
}

fn costs(judged: &Services, analysed: Duration, grown: u64) {
    show("analysis, lists included", format!("{:.0} ms", analysed.as_secs_f64() * 1000.0));
    show("requests of the analysis", judged.requests.to_string());
    show("growth of peak memory", format!("{:.1} MB", grown as f64 / 1e6));
    show("services that lead nowhere", judged.ports.iter().filter(|p| !p.problem.is_empty()).count().to_string());
}

fn report(size: Size, judged: &Services, analysed: Duration, fetched: Duration, grown: u64) {
    assert!(judged.unknown.is_empty(), "{:?}", judged.unknown);
    assert_eq!((judged.ports.len(), judged.objects.pods), (size.services, size.pods));
    println!("\n{} services, {} endpoints, {} pods", size.services, size.services * size.endpoints_each, size.pods);
    costs(judged, analysed, grown);
    show("the same lists fetched and thrown away", format!("{:.0} ms", fetched.as_secs_f64() * 1000.0));
    show("ratio", format!("{:.2}", analysed.as_secs_f64() / fetched.as_secs_f64()));
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

/// Forgets the peak so far; returns what the process holds now, in bytes.
fn fresh_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset (proc(5), clear_refs)");
    memory("VmRSS:")
}

fn peak() -> u64 {
    memory("VmHWM:")
}

fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of proc(5)");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

fn context(catalog: &Catalog, at: SocketAddr) -> Context {
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: \"http://{at}\"}}\nusers:\n- name: u\n  user: {{}}\n\
         contexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    );
    context_of(catalog, Source::Text(kubeconfig))
}

fn context_of(catalog: &Catalog, kubeconfig: Source) -> Context {
    let vantage = Vantage {
        id: "here".to_owned(),
        kind: VantageKind::Node,
        transport: Transport::Twin,
        why: String::new(),
        node: None,
        net: Net::Here,
        files: HostFiles { kubeconfig: Some(kubeconfig), ..HostFiles::default() },
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    Context { vantage: Arc::new(vantage), witness: None, inventory: catalog.inventory.clone(), deadline }
}

/// The three lists by a plain client, all at once, page after page.
async fn fetch(at: SocketAddr) {
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let list = async |path: &str| {
        let mut token = String::new();
        loop {
            let url = format!("http://{at}{path}?limit=500&continue={token}");
            let body = client.get(url).send().await.expect("answer").bytes().await.expect("body");
            // The token stands at the beginning of the stand-in's lists.
            let head = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            token = head.split("\"continue\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("").to_owned();
            if token.is_empty() {
                return;
            }
        }
    };
    tokio::join!(list("/api/v1/services"), list("/apis/discovery.k8s.io/v1/endpointslices"), list("/api/v1/pods"));
}

async fn serve(size: Size) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let at = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, size));
        }
    });
    at
}

async fn answer(mut stream: TcpStream, size: Size) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let (path, query) = head.split(' ').nth(1)?.split_once('?')?;
        let number = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.parse::<usize>().ok());
        let (limit, from) = (number("limit=").unwrap_or(usize::MAX), number("continue=").unwrap_or(0));
        let body = page(path, size, limit, from);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()?;
    }
}

fn page(path: &str, size: Size, limit: usize, from: usize) -> String {
    let (count, object): (usize, fn(usize, Size) -> Value) = match path {
        "/api/v1/services" => (size.services, service),
        "/api/v1/pods" => (size.pods, pod),
        _ => (size.services, slice),
    };
    let until = count.min(from.saturating_add(limit));
    let token = if until < count { until.to_string() } else { String::new() };
    let items: Vec<Value> = (from..until).map(|n| object(n, size)).collect();
    format!("{{\"metadata\":{{\"continue\":\"{token}\"}},\"items\":{}}}", Value::Array(items))
}

/// What a real object's metadata weighs: most of it are managed fields.
fn metadata(name: String, labels: Value) -> Value {
    json!({"name": name, "namespace": "apps", "uid": "2cdee2b3-5dbf-49a6-b359-eea7460238e9", "resourceVersion": "397", "labels": labels,
        "creationTimestamp": "2026-11-23T15:37:25Z",
        "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-11-23T15:38:50Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:ownerReferences": {".": {}}},
                "f:spec": {"f:ports": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}, "f:selector": {}}}}]})
}

/// Every fiftieth service selects nothing.
fn service(n: usize, _: Size) -> Value {
    let app = if n.is_multiple_of(50) { format!("app-{n}-gone") } else { format!("app-{n}") };
    json!({"metadata": metadata(format!("service-{n}"), json!({"app": app})),
        "spec": {"type": "ClusterIP", "clusterIP": "10.43.7.7", "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}})
}

fn slice(n: usize, size: Size) -> Value {
    let endpoint = |e: usize| {
        let at = n * size.endpoints_each + e;
        json!({"addresses": [format!("10.{}.{}.{}", 64 + at / 65_536, at / 256 % 256, at % 256)], "nodeName": "calypso",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "apps", "name": format!("pod-{at}"), "uid": "4c23dcd0-31b5-4e0c-a2e6-5525debb6843"}})
    };
    let endpoints: Vec<Value> = if n.is_multiple_of(50) { Vec::new() } else { (0..size.endpoints_each).map(endpoint).collect() };
    json!({"metadata": metadata(format!("service-{n}-abcde"), json!({"kubernetes.io/service-name": format!("service-{n}")})),
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

fn pod(n: usize, size: Size) -> Value {
    let labels = json!({"app": format!("app-{}", n % size.services), "pod-template-hash": "5f5d7c9b8"});
    json!({"metadata": metadata(format!("pod-{n}"), labels)})
}
