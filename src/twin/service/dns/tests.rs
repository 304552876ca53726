use super::*;
use crate::twin::cluster::tests::inventory;
use crate::twin::cluster::{Cluster, Resource};
use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An address that no other socket of the tests uses, so that its ports are free for UDP and TCP alike.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Ipv4Addr::new(127, 0, 53, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn message(name: &str, kind: RecordType, edns: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
    }
    message
}

async fn ask(server: SocketAddrV4, name: &str, kind: RecordType, edns: bool) -> (Message, usize) {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&message(name, kind, edns).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), length)
}

async fn ask_tcp(server: SocketAddrV4, name: &str) -> Message {
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let query = message(name, RecordType::A, false).to_vec().unwrap();
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

fn outside() -> OutsideHandle {
    let names = BTreeMap::from([("upload.goldfish.io".to_owned(), Ipv4Addr::new(104, 21, 0, 1))]);
    serve_outside(&Net::Here, SocketAddrV4::new(own_address(), 0), names).unwrap()
}

fn coredns(upstreams: Vec<SocketAddrV4>) -> CoreDnsHandle {
    let config = CoreDns { address: own_address(), port: 0, http_ports: [0; 3], upstreams };
    config.serve(&Net::Here, Cluster::from_inventory(&inventory())).unwrap()
}

fn flags(message: &Message) -> (ResponseCode, bool, bool, [usize; 2]) {
    let meta = &message.metadata;
    (meta.response_code, meta.authoritative, meta.recursion_available, [message.answers.len(), message.authorities.len()])
}

#[tokio::test]
async fn the_clusters_zone_is_answered_as_in_the_captures() {
    let server = coredns(vec![]);
    let at = server.address().unwrap();
    let argilla = "argilla.apps.svc.cluster.local.";
    let (found, length) = ask(at, argilla, RecordType::A, true).await;
    assert_eq!((flags(&found), length), ((ResponseCode::NoError, true, false, [1, 0]), 105), "as captured");
    assert_eq!(found.answers[0].ttl, 5);
    let (no_data, _) = ask(at, argilla, RecordType::AAAA, true).await;
    assert_eq!(flags(&no_data), (ResponseCode::NoError, true, false, [0, 1]));
    let (none, _) = ask(at, "argilla.cluster.local.", RecordType::A, true).await;
    assert_eq!(flags(&none), (ResponseCode::NXDomain, true, false, [0, 1]));
    assert!(none.authorities[0].to_string().contains("ns.dns.cluster.local. hostmaster.cluster.local."), "{}", none.authorities[0]);
    assert_eq!(ask(at, "argilla.apps.svc.cluster.local.", RecordType::A, false).await.0.edns, None);
    assert_eq!(flags(&ask_tcp(at, argilla).await), (ResponseCode::NoError, true, false, [1, 0]));
    assert_eq!(flags(&ask(at, "calypso.", RecordType::A, true).await.0), (ResponseCode::NoError, true, false, [1, 0]));
    let (pointer, _) = ask(at, "10.0.43.10.in-addr.arpa.", RecordType::PTR, true).await;
    assert!(pointer.answers[0].to_string().ends_with("kube-dns.kube-system.svc.cluster.local."));
}

#[tokio::test]
async fn other_names_are_forwarded_and_cached_and_counted() {
    let (resolver, http) = (outside(), reqwest_client());
    let server = coredns(vec![resolver.address().unwrap()]);
    let at = server.address().unwrap();
    for _ in 0..2 {
        let (found, _) = ask(at, "upload.goldfish.io.", RecordType::A, true).await;
        assert_eq!(flags(&found), (ResponseCode::NoError, false, true, [1, 0]));
    }
    assert_eq!(flags(&ask(at, "unknown.test.", RecordType::A, true).await.0), (ResponseCode::NXDomain, false, true, [0, 1]));
    assert_eq!(flags(&ask(at, "goldfish.io.", RecordType::A, true).await.0), (ResponseCode::NoError, false, true, [0, 1]));

    let addresses = server.http_addresses();
    for (address, path, body) in [(addresses[0], "/health", "OK"), (addresses[1], "/ready", "OK")] {
        assert_eq!(http.get(format!("http://{address}{path}")).send().await.unwrap().text().await.unwrap(), body);
    }
    let page = http.get(format!("http://{}/metrics", addresses[2])).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("coredns_cache_hits_total{server=\"dns://:53\",type=\"success\",view=\"\",zones=\".\"} 1\n"), "{page}");
    assert!(
        page.contains("coredns_dns_responses_total{plugin=\"errors\",rcode=\"NXDOMAIN\",server=\"dns://:53\",view=\"\",zone=\".\"} 1\n")
    );
}

#[tokio::test]
async fn a_stopped_upstream_gives_servfail_after_two_seconds_and_cached_names_go_on() {
    let resolver = outside();
    let server = coredns(vec![resolver.address().unwrap()]);
    let at = server.address().unwrap();
    ask(at, "upload.goldfish.io.", RecordType::A, true).await;
    resolver.stop().await;
    let started = Instant::now();
    let (failed, _) = ask(at, "other.example.", RecordType::A, true).await;
    assert_eq!(flags(&failed), (ResponseCode::ServFail, false, false, [0, 0]));
    assert!((1900..3900).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(ask(at, "upload.goldfish.io.", RecordType::A, true).await.0.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn a_silent_upstream_gives_servfail_after_four_seconds() {
    let silent = tokio::net::UdpSocket::bind((own_address(), 0)).await.unwrap();
    let std::net::SocketAddr::V4(upstream) = silent.local_addr().unwrap() else { panic!() };
    let server = coredns(vec![upstream]);
    let started = Instant::now();
    let (failed, _) = ask(server.address().unwrap(), "other.example.", RecordType::A, true).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert!((3900..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn stopped_means_that_the_port_is_free() {
    let server = coredns(vec![]);
    let at = server.address().unwrap();
    server.stop().await;
    assert!(std::net::TcpListener::bind(at).is_ok());
    assert!(std::net::UdpSocket::bind(at).is_ok());
}

fn reqwest_client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The inventory's cluster with what else the captured one had: a headless service on a pod of argilla's.
fn captured_cluster() -> Cluster {
    let cluster = Cluster::from_inventory(&inventory());
    cluster.update(|objects| {
        objects.insert(
            Resource::Services,
            serde_json::json!({"metadata": {"name": "headless", "namespace": "apps"}, "spec": {"clusterIP": "None",
                "selector": {"app.kubernetes.io/name": "argilla"}, "ports": [{"name": "http", "port": 6900, "protocol": "TCP", "targetPort": 6900}]}}),
        );
    });
    cluster
}

/// Answers that depend on the captured network's resolver, or on objects that the documented cluster lacks.
fn from_elsewhere(name: &str, kind: &str) -> bool {
    let names = ["argilla", "argilla.apps", "upload.goldfish.io", "x.", "unknown.test", "ext.apps.", "6.0.42.10."];
    names.iter().any(|n| name == *n || (n.ends_with('.') && name.starts_with(n))) || (name.starts_with("headless") && kind == "SRV")
}

/// What a real CoreDNS was asked, asked of the stand-in: the same rcode, flags and counts. Lengths differ: CoreDNS compresses no
/// names in answers that fit without it, the stand-in's library always does.
#[tokio::test]
async fn captured_questions_are_answered_as_captured() {
    let config = CoreDns { address: own_address(), port: 0, http_ports: [0; 3], upstreams: vec![] };
    let server = config.serve(&Net::Here, captured_cluster()).unwrap();
    let at = server.address().unwrap();
    let mut compared = 0;
    for line in include_str!("../../../../tests/data/coredns/replies-healthy.jsonl").lines() {
        let captured: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| captured[key].as_str().unwrap();
        if from_elsewhere(text("name"), text("type")) {
            continue;
        }
        let query: Vec<u8> = hex(text("query_hex"));
        let reply = if text("transport") == "tcp" { exchange_tcp(at, &query).await } else { exchange_udp(at, &query).await };
        let message = Message::from_vec(&reply).unwrap();
        let flags = [reply[2] & 0x04 != 0, reply[2] & 0x02 != 0, reply[3] & 0x80 != 0];
        let counts: Vec<u16> = (2..6).map(|n| u16::from_be_bytes([reply[2 * n], reply[2 * n + 1]])).collect();
        let expected = [&captured["aa"], &captured["tc"], &captured["ra"]].map(|v| v.as_bool().unwrap());
        let seen = serde_json::json!([message.metadata.response_code.to_str(), flags, counts]);
        let known = serde_json::json!([code(text("rcode")).to_str(), expected, captured["counts"]]);
        assert_eq!(seen, known, "{line}");
        assert_eq!(
            reply[12..query.len().min(reply.len())][..text("name").len() + 2],
            query[12..][..text("name").len() + 2],
            "the name as asked"
        );
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

fn code(word: &str) -> ResponseCode {
    match word {
        "NOERROR" => ResponseCode::NoError,
        "NXDOMAIN" => ResponseCode::NXDomain,
        other => panic!("{other}"),
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

async fn exchange_udp(server: SocketAddrV4, query: &[u8]) -> Vec<u8> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer[..length].to_vec()
}

async fn exchange_tcp(server: SocketAddrV4, query: &[u8]) -> Vec<u8> {
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(query).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

/// A headless service with many endpoints does not fit into a datagram: TC, whole records only, everything by TCP.
#[tokio::test]
async fn what_does_not_fit_is_truncated_and_whole_by_tcp() {
    let cluster = captured_cluster();
    cluster.update(|objects| {
        let endpoints: Vec<_> =
            (1..=80).map(|n| serde_json::json!({"addresses": [format!("10.42.0.{n}")], "conditions": {"ready": true}})).collect();
        objects.insert(
            Resource::EndpointSlices,
            serde_json::json!({"metadata": {"name": "many-x", "namespace": "apps", "labels": {"kubernetes.io/service-name": "many"}},
                "addressType": "IPv4", "endpoints": endpoints, "ports": []}),
        );
        objects.insert(
            Resource::Services,
            serde_json::json!({"metadata": {"name": "many", "namespace": "apps"}, "spec": {"clusterIP": "None", "ports": []}}),
        );
    });
    let config = CoreDns { address: own_address(), port: 0, http_ports: [0; 3], upstreams: vec![] };
    let server = config.serve(&Net::Here, cluster).unwrap();
    let at = server.address().unwrap();
    let (cut, length) = ask(at, "many.apps.svc.cluster.local.", RecordType::A, false).await;
    assert!(cut.metadata.truncation && length <= 512 && cut.answers.len() < 80, "{length}, {}", cut.answers.len());
    let whole = ask_tcp(at, "many.apps.svc.cluster.local.").await;
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 80));
}

/// What CoreDNS 1.14.7 said that had read its objects from the twin's own API: rcode, answers, authorities.
#[tokio::test]
async fn names_of_endpoints_and_ports_are_answered_as_by_a_real_server_on_the_same_objects() {
    let server = coredns(vec![]);
    let at = server.address().unwrap();
    let (ok, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    for (name, kind, code, counts) in [
        ("10-42-0-6.argilla.apps.svc.cluster.local.", RecordType::A, ok, [1, 0]),
        ("10-42-0-6.argilla.apps.svc.cluster.local.", RecordType::AAAA, ok, [0, 1]),
        ("10-42-0-7.argilla.apps.svc.cluster.local.", RecordType::A, no, [0, 1]),
        ("_http._tcp.argilla.apps.svc.cluster.local.", RecordType::A, ok, [1, 0]),
        ("_http._tcp.argilla.apps.svc.cluster.local.", RecordType::AAAA, ok, [0, 1]),
        ("_http._tcp.argilla.apps.svc.cluster.local.", RecordType::SRV, ok, [1, 0]),
        ("_nope._tcp.argilla.apps.svc.cluster.local.", RecordType::A, no, [0, 1]),
        ("ns.dns.cluster.local.", RecordType::A, ok, [0, 1]),
        ("nons.svc.cluster.local.", RecordType::A, no, [0, 1]),
        ("1-2-3-4.apps.pod.cluster.local.", RecordType::A, ok, [1, 0]),
    ] {
        let (reply, _) = ask(at, name, kind, true).await;
        assert_eq!(flags(&reply), (code, true, false, counts), "{name} {kind}");
    }
}

/// `/health` and `/ready` of CoreDNS 1.14.7: everything but the date.
#[tokio::test]
async fn health_and_readiness_are_answered_as_captured() {
    let server = coredns(vec![]);
    for (at, path, captured) in [
        (server.http_addresses()[0], "/health", include_str!("../../../../tests/data/coredns/health.http")),
        (server.http_addresses()[1], "/ready", include_str!("../../../../tests/data/coredns/ready.http")),
    ] {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let lines = |text: &str| {
            let skipped = ["date:", "connection:"];
            let mut lines: Vec<String> =
                text.lines().map(|l| l.split_once(": ").map_or(l.to_owned(), |(k, v)| format!("{}: {v}", k.to_lowercase()))).collect();
            lines.retain(|line| !skipped.iter().any(|s| line.starts_with(s)));
            lines.sort();
            lines
        };
        assert_eq!(lines(&text), lines(captured), "{path}");
    }
}

/// The data of a record that does not depend on a cluster's addresses.
fn shown(record: &Record) -> String {
    let data = match &record.data {
        RData::A(_) => "an address".to_owned(),
        RData::SOA(soa) => format!("{} {} {} {}", soa.mname, soa.rname, soa.refresh, soa.minimum),
        other => other.to_string(),
    };
    format!("{} {} {} {data}", record.name, record.ttl, record.record_type())
}

/// CoreDNS 1.14.7 with the captured Corefile, over the captured lists of the API and an upstream that refuses, was asked for every type
/// of record of the kubernetes plugin's names, for ANY, for types that nobody knows, and in other classes: the same rcode, flags,
/// counts, names, TTLs and data, addresses aside.
#[tokio::test]
async fn every_type_of_record_is_answered_as_by_a_real_server() {
    let config = CoreDns { address: own_address(), port: 0, http_ports: [0; 3], upstreams: vec![] };
    let cluster = captured_cluster();
    // The endpoint that the captured objects name.
    let address =
        cluster.read(|o| o.list(Resource::Pods).find(|(key, _)| key.starts_with("apps/argilla")).unwrap().1["status"]["podIP"].clone());
    assert_eq!(address, "10.42.0.6");
    let server = config.serve(&Net::Here, cluster).unwrap();
    let at = server.address().unwrap();
    let (mut compared, mut differ) = (0, Vec::new());
    for line in include_str!("../../../../tests/data/coredns/replies-kubernetes.jsonl").lines() {
        let captured: serde_json::Value = serde_json::from_str(line).unwrap();
        let (query, real) = (hex(captured["query_hex"].as_str().unwrap()), hex(captured["response_hex"].as_str().unwrap()));
        let reply = if captured["transport"] == "tcp" { exchange_tcp(at, &query).await } else { exchange_udp(at, &query).await };
        let told = |bytes: &[u8]| {
            let message = Message::from_vec(bytes).unwrap();
            let flags = [bytes[2] & 0x04 != 0, bytes[2] & 0x02 != 0, bytes[3] & 0x80 != 0];
            let sections = [&message.answers, &message.authorities, &message.additionals];
            let sections = sections.map(|records| records.iter().map(shown).collect::<std::collections::BTreeSet<_>>());
            (message.metadata.response_code, flags, message.queries, message.edns.is_some(), sections)
        };
        if told(&reply) != told(&real) {
            differ.push(format!(
                "{} {} {}: {:?}\n  real: {:?}",
                captured["name"],
                captured["type"],
                captured["class"],
                told(&reply),
                told(&real)
            ));
        }
        compared += 1;
    }
    assert!(differ.is_empty() && compared > 200, "{} of {compared}:\n{}", differ.len(), differ.join("\n"));
}
