use super::testing::{reply, serve};
use super::*;
use std::sync::Arc;

const IP: Ipv4Addr = Ipv4Addr::new(10, 43, 71, 170);

async fn ask_one(transport: Transport, answers: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Reply {
    let server = serve(Arc::new(answers)).await;
    let name = Name::from_ascii("Argilla.apps.").unwrap();
    ask(&Net::Here, server, &name, transport, Instant::now() + Duration::from_millis(300)).await
}

fn ok(query: &Message) -> Vec<u8> {
    reply(query, ResponseCode::NoError, &[IP]).to_vec().unwrap()
}

#[tokio::test]
async fn answers_by_both_transports() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let got = ask_one(transport, |q, _| vec![ok(q)]).await;
        assert_eq!((got.rcode.as_str(), got.addresses.as_slice(), got.sent), ("NOERROR", &[IpAddr::V4(IP)][..], 1));
    }
}

#[tokio::test]
async fn nodata_is_not_nxdomain() {
    for (code, word) in [
        (ResponseCode::NoError, "NODATA"),
        (ResponseCode::NXDomain, "NXDOMAIN"),
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::YXDomain, "RCODE 6"),
    ] {
        assert_eq!(ask_one(Transport::Udp, move |q, _| vec![reply(q, code, &[]).to_vec().unwrap()]).await.rcode, word);
    }
}

#[tokio::test]
async fn strays_before_the_answer_are_ignored() {
    let got = ask_one(Transport::Udp, |q, _| {
        let (mut id, mut name) = (reply(q, ResponseCode::NXDomain, &[]), reply(q, ResponseCode::NXDomain, &[]));
        id.metadata.id = id.metadata.id.wrapping_add(1);
        name.queries[0].set_name(Name::from_ascii("other.").unwrap());
        let unasked = Message::response(q.metadata.id, OpCode::Query);
        vec![vec![], vec![0; 11], id.to_vec().unwrap(), name.to_vec().unwrap(), unasked.to_vec().unwrap(), q.to_vec().unwrap(), ok(q)]
    });
    assert_eq!(got.await.rcode, "NOERROR");
}

#[tokio::test]
async fn only_strays_are_garbage_and_silence_is_a_timeout() {
    assert_eq!(ask_one(Transport::Udp, |_, _| vec![vec![0xff; 40]]).await.rcode, "GARBAGE");
    assert_eq!(ask_one(Transport::Tcp, |_, _| vec![vec![0xff; 40]]).await.rcode, "GARBAGE");
    assert_eq!(ask_one(Transport::Udp, |_, _| vec![]).await.rcode, "TIMEOUT");
    assert_eq!(ask_one(Transport::Tcp, |_, _| vec![]).await.rcode, "EOF");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let got = ask_one(Transport::Udp, |q, udp| {
        let mut message = reply(q, ResponseCode::NoError, if udp { &[] } else { &[IP] });
        message.metadata.truncation = udp;
        vec![message.to_vec().unwrap()]
    });
    let got = got.await;
    assert_eq!((got.rcode.as_str(), got.sent), ("NOERROR", 2));
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(server) = socket.local_addr().unwrap() else { unreachable!() };
    drop(socket);
    for transport in [Transport::Udp, Transport::Tcp] {
        let name = Name::from_ascii("a.").unwrap();
        let got = ask(&Net::Here, server, &name, transport, Instant::now() + Duration::from_secs(2)).await;
        assert_eq!(got.rcode, "ECONNREFUSED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_without_a_route_is_enetunreach() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let net = Net::Ns(crate::vantage::NetNs::create("dns").unwrap());
    for transport in [Transport::Udp, Transport::Tcp] {
        let server = "10.43.0.10:53".parse().unwrap();
        let got = ask(&net, server, &Name::from_ascii("a.").unwrap(), transport, Instant::now() + Duration::from_secs(2)).await;
        assert_eq!(got.rcode, "ENETUNREACH");
    }
}

/// Answers of a real CoreDNS (tests/data/coredns), read again from their bytes.
#[test]
fn captured_replies_are_read_as_recorded() {
    let files = [
        include_str!("../../../tests/data/coredns/replies-healthy.jsonl"),
        include_str!("../../../tests/data/coredns/replies-upstream-dropped.jsonl"),
        include_str!("../../../tests/data/coredns/replies-upstream-refused.jsonl"),
    ];
    let bytes = |hex: &serde_json::Value| -> Option<Vec<u8>> {
        let hex = hex.as_str()?;
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect()
    };
    let mut read_back = 0;
    for line in files.iter().flat_map(|file| file.lines()) {
        let recorded: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(query), Some(response)) = (bytes(&recorded["query_hex"]), bytes(&recorded["response_hex"])) else { continue };
        let Ok(asked) = Message::from_vec(&query) else { continue };
        let Some(message) = answer_to(&asked, &response) else {
            assert!(asked.queries.len() != 1 || recorded["rcode"] == "FORMERR", "not an answer: {line}");
            continue;
        };
        let (rcode, addresses, _) = read(&message, asked.queries[0].query_type());
        let expected = recorded["rcode"].as_str().unwrap();
        assert!(rcode == expected || (expected == "NOERROR" && rcode == "NODATA" && addresses.is_empty()), "{rcode} for {line}");
        read_back += 1;
    }
    assert!(read_back > 40, "{read_back}");
}

#[test]
fn hostile_bytes_never_panic() {
    let (asked, bytes) = question(&Name::from_ascii("a.b.").unwrap(), RecordType::A).unwrap();
    let mut answer = reply(&asked, ResponseCode::NoError, &[IP]).to_vec().unwrap();
    // A name that points at itself, and one that points past the end.
    for pointer in [[0xc0, 12], [0xff, 0xff]] {
        let mut looped = answer.clone();
        looped[12..14].copy_from_slice(&pointer);
        assert!(answer_to(&asked, &looped).is_none());
    }
    for cut in 0..answer.len() {
        let _ = answer_to(&asked, &answer[..cut]);
    }
    for at in 0..answer.len() {
        for value in [0, 0x3f, 0xc0, 0xff] {
            let kept = std::mem::replace(&mut answer[at], value);
            let _ = answer_to(&asked, &answer).map(|m| read(&m, RecordType::A));
            answer[at] = kept;
        }
    }
    assert!(answer_to(&asked, &bytes).is_none(), "a query is no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_a_filter_of_our_own_that_rejects_is_told_from_one_that_drops() {
    use crate::twin::nft::{Batch, Hook, Rule};
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = crate::probe::testnet::two_nodes().await;
    let net = Net::Ns(nodes.tethys.ns.clone());
    let name = Name::from_ascii("a.").unwrap();
    for (rule, word) in [(Rule::new().protocol(17).port(53).reject(), "ECONNREFUSED"), (Rule::new().protocol(17).port(53).drop(), "EPERM")]
    {
        Batch::replace("filter").fresh().chain("out", "filter", Hook::Output, 0).rule("out", rule).commit(&net).unwrap();
        let server = SocketAddrV4::new(crate::probe::testnet::CALYPSO, 53);
        let got = ask(&net, server, &name, Transport::Udp, Instant::now() + Duration::from_secs(4)).await;
        assert_eq!(got.rcode, word);
    }
}

#[tokio::test]
async fn records_without_end_are_read_within_bounds() {
    // 65535 bytes of answers whose names are one pointer each: as many records as one message can hold.
    let got = ask_one(Transport::Tcp, |q, _| {
        let mut bytes = reply(q, ResponseCode::NoError, &[IP]).to_vec().unwrap();
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 43, 0, 1];
        let room = (usize::from(u16::MAX) - bytes.len()) / record.len();
        (0..room).for_each(|_| bytes.extend(record));
        bytes[6..8].copy_from_slice(&u16::try_from(room + 1).unwrap().to_be_bytes());
        vec![bytes]
    });
    let got = got.await;
    assert_eq!((got.rcode.as_str(), got.addresses.len()), ("NOERROR", MOST_ADDRESSES));
    assert_eq!(got.ttl, Some(5));
}

#[tokio::test]
async fn names_that_point_in_circles_are_garbage_at_once() {
    let began = Instant::now();
    let got = ask_one(Transport::Tcp, |q, _| {
        let mut bytes = reply(q, ResponseCode::NoError, &[IP]).to_vec().unwrap();
        // The answer's name becomes two pointers at each other.
        let at = bytes.len() - 16;
        bytes[at..at + 2].copy_from_slice(&(0xc000_u16 | u16::try_from(at + 2).unwrap()).to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&(0xc000_u16 | u16::try_from(at).unwrap()).to_be_bytes());
        vec![bytes]
    });
    assert_eq!(got.await.rcode, "GARBAGE");
    assert!(began.elapsed() < Duration::from_millis(300));
}

#[tokio::test]
async fn a_flood_of_strays_ends_before_the_deadline() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(server) = socket.local_addr().unwrap() else { unreachable!() };
    let flood = tokio::spawn(async move {
        let (_, from) = socket.recv_from(&mut [0; 512]).await.unwrap();
        loop {
            socket.send_to(&[0xff; 40], from).await.ok();
        }
    });
    let got = ask(&Net::Here, server, &Name::from_ascii("a.").unwrap(), Transport::Udp, Instant::now() + Duration::from_secs(5)).await;
    flood.abort();
    assert_eq!(got.rcode, "GARBAGE");
    assert!(got.after < Duration::from_secs(5), "{:?}", got.after);
}

#[tokio::test]
async fn a_server_that_drips_is_a_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(server) = listener.local_addr().unwrap() else { unreachable!() };
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0xff, 0xff]).await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(&[0]).await.is_ok() {
            ticks.tick().await;
        }
    });
    let until = Instant::now() + Duration::from_millis(300);
    let got = ask(&Net::Here, server, &Name::from_ascii("a.").unwrap(), Transport::Tcp, until).await;
    assert_eq!(got.rcode, "TIMEOUT");
    assert!(got.after < Duration::from_secs(2), "{:?}", got.after);
}

#[tokio::test]
async fn a_denial_may_be_kept_as_long_as_its_soa_says() {
    use hickory_resolver::proto::rr::rdata::SOA;
    let got = ask_one(Transport::Udp, |q, _| {
        let mut message = reply(q, ResponseCode::NXDomain, &[]);
        let zone = Name::from_ascii("cluster.local.").unwrap();
        message.add_authority(Record::from_rdata(zone.clone(), 60, RData::SOA(SOA::new(zone.clone(), zone, 1, 2, 3, 4, 5))));
        vec![message.to_vec().unwrap()]
    });
    let got = got.await;
    assert_eq!((got.rcode.as_str(), got.ttl), ("NXDOMAIN", Some(5)));
}

#[tokio::test]
async fn an_answer_from_another_address_is_heard_by_a_socket_that_is_not_connected() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let std::net::SocketAddr::V4(at) = server.local_addr().unwrap() else { unreachable!() };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = server.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..n]).unwrap();
            // What answers no question of ours comes first.
            elsewhere.send_to(b"nothing", from).await.unwrap();
            elsewhere.send_to(&ok(&query), from).await.unwrap();
        }
    });
    let name = Name::from_ascii("argilla.apps.").unwrap();
    let soon = || Instant::now() + Duration::from_millis(300);
    assert_eq!(ask(&Net::Here, at, &name, Transport::Udp, soon()).await.rcode, "TIMEOUT");
    assert_eq!(answered_from(&Net::Here, at, &name, soon()).await, Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(at) = silent.local_addr().unwrap() else { unreachable!() };
    assert_eq!(answered_from(&Net::Here, at, &name, soon()).await, None);
}
