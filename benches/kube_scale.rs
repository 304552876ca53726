//! What it costs to judge every service of a large cluster: `cargo bench --bench kube_scale`.
//!
//! A stand-in of the Kubernetes API on loopback makes the objects as they are asked for. Each analysis runs in a process of its own,
//! which does nothing else: its memory is the growth of that process' peak (VmHWM) over what it held right before, and the server is
//! not in it. Beside each the same three lists are fetched plainly, by a client that reads pages and throws them away: their ratio does
//! not depend on the machine. Medians of [`ROUNDS`] rounds.
//! `cargo bench --bench kube_scale -- --small` is one round over a small cluster: whether it runs, not what it costs.
//! `cargo bench --bench kube_scale -- --kubeconfig FILE` does it with a real API server and whatever that has; put it beside
//! `kubectl get --raw` of the three lists. With `--fill` it first makes 5,000 services and 2,000 pods there, in the namespace
//! `fathom-scale`, and waits for the slices of the cluster's own controller: at most a quarter of an hour, about five minutes at the
//! controller's default of twenty requests a second. Only for a cluster that is thrown away.

#[path = "kube_scale/fill.rs"]
mod fill;

use fathom::def::{Catalog, Sources};
use fathom::probe::{Context, Services, every_service};
use fathom::vantage::{HostFiles, Net, Source, Transport, Vantage, VantageKind};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;
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

/// What follows an argument.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a != name).nth(1)
}

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let has = |name: &str| std::env::args().any(|a| a == name);
    if let Some(kubeconfig) = argument("--analyse") {
        return analyse(&kubeconfig);
    }
    let small = has("--small");
    let (rounds, sizes): (usize, &[Size]) = if small { (1, &SMALL) } else { (ROUNDS, &SIZES) };
    println!("medians of {rounds} rounds, each list in pages of 500");
    let server = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("runtime");
    if let Some(file) = argument("--kubeconfig") {
        if has("--fill") {
            server.block_on(fill::fill(&file, SIZES[0]));
        }
        let figures: Vec<Value> = (0..rounds).map(|_| figures(&file)).collect();
        println!("\n{} services, {} slices, {} pods", figures[0]["services"], figures[0]["slices"], figures[0]["pods"]);
        return costs(&figures);
    }
    for &size in sizes {
        let at = server.block_on(serve(size));
        let (mut all, mut fetched) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let began = Instant::now();
            server.block_on(fetch(at));
            fetched.push(began.elapsed());
            all.push(figures(&kubeconfig(at)));
        }
        report(size, &all, median(fetched));
    }
}

/// Has a process of its own judge the services of an API: the path of a kubeconfig, or its text.
fn figures(kubeconfig: &str) -> Value {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["--analyse", kubeconfig]).output().expect("the analysis");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("figures")
}

/// The process that analyses, and nothing else. Prints figures.
fn analyse(kubeconfig: &str) {
    let source = if kubeconfig.contains('\n') { Source::Text(kubeconfig.to_owned()) } else { Source::File(kubeconfig.into()) };
    let catalog = Catalog::load(&Sources::default()).expect("built-in catalogue");
    let client = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("runtime");
    let cx = context(&catalog, source);
    let before = fresh_peak();
    let began = Instant::now();
    let judged: Services = client.block_on(every_service(&cx)).expect("the API answers");
    let (took, after) = (began.elapsed(), peak());
    assert!(judged.unknown.is_empty(), "{:?}", judged.unknown);
    let figures = json!({"us": u64::try_from(took.as_micros()).expect("a duration"), "grown": after.saturating_sub(before), "peak": after,
        "requests": judged.requests, "ports": judged.ports.len(), "nowhere": judged.ports.iter().filter(|p| !p.problem.is_empty()).count(),
        "services": judged.objects.services, "slices": judged.objects.endpoint_slices, "pods": judged.objects.pods});
    println!("{figures}");
}

fn show(what: &str, value: String) {
    println!("  {what:<48} {value}");
}

/// The median of a figure over all rounds.
fn middle(figures: &[Value], name: &str) -> u64 {
    median(figures.iter().map(|figure| figure[name].as_u64().expect("a figure")).collect())
}

fn costs(figures: &[Value]) {
    show("analysis, lists included", format!("{:.0} ms", middle(figures, "us") as f64 / 1000.0));
    show("requests of the analysis", middle(figures, "requests").to_string());
    show("growth of peak memory", format!("{:.1} MB", middle(figures, "grown") as f64 / 1e6));
    show("peak memory of the whole process", format!("{:.1} MB", middle(figures, "peak") as f64 / 1e6));
    show("service ports that lead nowhere", middle(figures, "nowhere").to_string());
}

fn report(size: Size, figures: &[Value], fetched: Duration) {
    assert_eq!((middle(figures, "ports"), middle(figures, "pods")), (size.services as u64, size.pods as u64));
    println!("\n{} services, {} endpoints, {} pods", size.services, size.services * size.endpoints_each, size.pods);
    costs(figures);
    show("the same lists fetched and thrown away", format!("{:.0} ms", fetched.as_secs_f64() * 1000.0));
    show("ratio", format!("{:.2}", middle(figures, "us") as f64 / 1e6 / fetched.as_secs_f64()));
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

/// A kubeconfig of the stand-in.
fn kubeconfig(at: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: \"http://{at}\"}}\nusers:\n- name: u\n  user: {{}}\n\
         contexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    )
}

fn context(catalog: &Catalog, kubeconfig: Source) -> Context {
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
