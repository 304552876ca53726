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
