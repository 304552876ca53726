use super::*;
use crate::twin::cluster::Cluster;
use crate::twin::cluster::tests::inventory;
use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
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
