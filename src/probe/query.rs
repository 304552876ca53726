//! One DNS question to one server, honestly: one datagram, no retry, no cache, and what ICMP said.
//!
//! A connected UDP socket with `IP_RECVERR` (ip(7)) reports port-unreachable and host-unreachable as errno at once, where
//! a resolver library only times out.

use super::net::{connect, errno_word, io_word};
use crate::vantage::Net;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use serde::Deserialize;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long one query waits: the default of resolv.conf(5).
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses kept of one answer.
const MOST_ADDRESSES: usize = 16;

/// By which protocol a server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    /// Datagrams; a truncated answer is asked for again over TCP (RFC 7766).
    #[default]
    Udp,
    /// Length-prefixed over a connection.
    Tcp,
}

/// What came of one query.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// NOERROR (with an address), NODATA, NXDOMAIN, SERVFAIL, REFUSED, ...; or TIMEOUT, an errno word, EOF, GARBAGE.
    pub(super) rcode: String,
    /// The addresses of the answer.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// Until it was known.
    pub(super) after: Duration,
    /// Queries sent: 2 if a truncated answer was asked for again.
    pub(super) sent: u32,
}

/// Asks for the A records of an absolute name; at most [`QUERY_TIMEOUT`] and at most until `deadline`.
pub(super) async fn ask(net: &Net, server: SocketAddrV4, name: &Name, transport: Transport, deadline: Instant) -> Reply {
    ask_for(net, server, name, RecordType::A, transport, deadline).await
}

/// [`ask`] for records of any type; only addresses are read from the answer.
pub(super) async fn ask_for(
    net: &Net,
    server: SocketAddrV4,
    name: &Name,
    kind: RecordType,
    transport: Transport,
    deadline: Instant,
) -> Reply {
    let began = Instant::now();
    let until = deadline.min(began + QUERY_TIMEOUT);
    let mut sent = 1;
    let mut outcome = match transport {
        Transport::Udp => by_udp(net, server, name, kind, until).await,
        Transport::Tcp => by_tcp(net, server, name, kind, until).await,
    };
    if transport == Transport::Udp && outcome.as_ref().is_ok_and(|m| m.metadata.truncation) {
        sent = 2;
        outcome = by_tcp(net, server, name, kind, until).await;
    }
    let (rcode, addresses) = match outcome {
        Ok(message) => read(&message),
        Err(word) => (word, Vec::new()),
    };
    Reply { rcode, addresses, after: began.elapsed(), sent }
}

fn question(name: &Name, kind: RecordType) -> Result<(Message, Vec<u8>), String> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let bytes = message.to_vec().map_err(|_| "GARBAGE".to_owned())?;
    Ok((message, bytes))
}

async fn by_udp(net: &Net, server: SocketAddrV4, name: &Name, kind: RecordType, until: Instant) -> Result<Message, String> {
    let (asked, bytes) = question(name, kind)?;
    let socket = udp_socket(net, server).map_err(|e| errno_word(&e))?;
    socket.send(&bytes).await.map_err(|e| errno_word(&e))?;
    let mut buffer = vec![0; 4096];
    let mut strays = false;
    loop {
        let received = match timeout_at(until, socket.recv(&mut buffer)).await {
            Ok(received) => received.map_err(|e| errno_word(&e))?,
            Err(_) if strays => return Err("GARBAGE".to_owned()),
            Err(_) => return Err("TIMEOUT".to_owned()),
        };
        match answer_to(&asked, &buffer[..received]) {
            Some(message) => return Ok(message),
            None => strays = true,
        }
    }
}

fn udp_socket(net: &Net, server: SocketAddrV4) -> io::Result<UdpSocket> {
    net.with(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    })?
}

async fn by_tcp(net: &Net, server: SocketAddrV4, name: &Name, kind: RecordType, until: Instant) -> Result<Message, String> {
    let (asked, bytes) = question(name, kind)?;
    let (mut stream, _) = connect(net, server, until).await.map_err(|failed| failed.word)?;
    let mut framed = u16::try_from(bytes.len()).map_err(|_| "GARBAGE".to_owned())?.to_be_bytes().to_vec();
    framed.extend(bytes);
    within(until, stream.write_all(&framed)).await?;
    let length = within(until, stream.read_u16()).await?;
    let mut answer = vec![0; usize::from(length)];
    within(until, stream.read_exact(&mut answer)).await?;
    answer_to(&asked, &answer).ok_or_else(|| "GARBAGE".to_owned())
}

async fn within<T>(until: Instant, io: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout_at(until, io).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(io_word(&error)),
        Err(_) => Err("TIMEOUT".to_owned()),
    }
}

/// The message, if it answers exactly this question. Anybody can send datagrams: what does not match is ignored
/// (RFC 5452, section 9.1).
fn answer_to(asked: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let head = &message.metadata;
    let response = head.message_type == MessageType::Response && head.op_code == OpCode::Query && head.id == asked.metadata.id;
    // An error may come without the question (RFC 1035 does not demand it), an answer may not.
    let same = message.queries == asked.queries || (message.queries.is_empty() && head.response_code != ResponseCode::NoError);
    (response && same).then_some(message)
}

fn read(message: &Message) -> (String, Vec<Ipv4Addr>) {
    let addresses: Vec<_> = message.answers.iter().filter_map(|r| if let RData::A(a) = &r.data { Some(a.0) } else { None }).collect();
    let rcode = match message.metadata.response_code {
        ResponseCode::NoError if addresses.is_empty() => "NODATA".to_owned(),
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => format!("RCODE {}", u16::from(other)),
    };
    let addresses = if rcode == "NOERROR" { addresses.into_iter().take(MOST_ADDRESSES).collect() } else { Vec::new() };
    (rcode, addresses)
}

#[cfg(test)]
pub(super) mod testing {
    //! A nameserver on the loopback device that answers as a test wants.

    use super::*;
    use hickory_resolver::proto::rr::{Record, rdata};
    use std::sync::Arc;
    use tokio::net::TcpListener;

    /// The answer (any bytes; none means silence) to a query by datagram (`true`) or by connection.
    pub(in crate::probe) type Answers = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

    /// An answer to `query` with this code and these addresses.
    pub(in crate::probe) fn reply(query: &Message, code: ResponseCode, addresses: &[Ipv4Addr]) -> Message {
        let mut message = Message::response(query.metadata.id, OpCode::Query);
        message.metadata.response_code = code;
        message.add_queries(query.queries.clone());
        for a in addresses {
            message.add_answer(Record::from_rdata(query.queries[0].name().clone(), 5, RData::A(rdata::A(*a))));
        }
        message
    }

    /// Serves UDP and TCP on one port until the test's runtime ends.
    pub(in crate::probe) async fn serve(answers: Arc<Answers>) -> SocketAddrV4 {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let std::net::SocketAddr::V4(at) = udp.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(serve_tcp(tcp, answers.clone()));
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
                for bytes in answers(&Message::from_vec(&buffer[..n]).unwrap(), true) {
                    udp.send_to(&bytes, from).await.unwrap();
                }
            }
        });
        at
    }

    async fn serve_tcp(listener: TcpListener, answers: Arc<Answers>) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            for bytes in answers(&Message::from_vec(&query).unwrap(), false) {
                stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!((got.rcode.as_str(), got.addresses.as_slice(), got.sent), ("NOERROR", &[IP][..], 1));
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
            include_str!("../../tests/data/coredns/replies-healthy.jsonl"),
            include_str!("../../tests/data/coredns/replies-upstream-dropped.jsonl"),
            include_str!("../../tests/data/coredns/replies-upstream-refused.jsonl"),
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
            let (rcode, addresses) = read(&message);
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
                let _ = answer_to(&asked, &answer).map(|m| read(&m));
                answer[at] = kept;
            }
        }
        assert!(answer_to(&asked, &bytes).is_none(), "a query is no answer");
    }
}
