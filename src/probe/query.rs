//! One DNS question to one server, honestly: one datagram, no retry, no cache, and what ICMP said.
//!
//! A connected UDP socket with `IP_RECVERR` (ip(7)) reports port-unreachable and host-unreachable as errno at once, where
//! a resolver library only times out.

use super::net::{connect, errno_word, io_word};
use crate::vantage::Net;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use serde::Deserialize;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long one query waits: the default of resolv.conf(5).
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses kept of one answer.
const MOST_ADDRESSES: usize = 16;

/// Datagrams that answer something else before an answer is given up on.
const MOST_STRAYS: u32 = 1000;

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

impl Transport {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What came of one query.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// NOERROR (with an address), NODATA, NXDOMAIN, SERVFAIL, REFUSED, ...; or TIMEOUT, an errno word, EOF, GARBAGE.
    pub(super) rcode: String,
    /// The addresses of the answer: IPv4 for an A query, IPv6 for an AAAA one.
    pub(super) addresses: Vec<IpAddr>,
    /// Seconds for which the answer may be kept: the least of its records; for a denial that of its SOA (RFC 2308, section 5).
    pub(super) ttl: Option<u32>,
    /// The datagram had TC set, and was asked for again over TCP.
    pub(super) truncated: bool,
    /// By which protocol the answer came.
    pub(super) transport: Transport,
    /// Until it was known.
    pub(super) after: Duration,
    /// Queries sent: 2 if a truncated answer was asked for again.
    pub(super) sent: u32,
}

impl Reply {
    /// Nothing but a word.
    #[cfg(test)]
    pub(super) fn failed(word: &str) -> Self {
        let transport = Transport::Udp;
        Self { rcode: word.to_owned(), addresses: Vec::new(), ttl: None, truncated: false, transport, after: Duration::ZERO, sent: 1 }
    }

    /// The first IPv4 address.
    pub(super) fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| if let IpAddr::V4(v4) = a { Some(*v4) } else { None })
    }
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
    let mut by = transport;
    let mut outcome = match transport {
        Transport::Udp => by_udp(net, server, name, kind, until).await,
        Transport::Tcp => by_tcp(net, server, name, kind, until).await,
    };
    let truncated = transport == Transport::Udp && outcome.as_ref().is_ok_and(|m| m.metadata.truncation);
    if truncated {
        by = Transport::Tcp;
        outcome = by_tcp(net, server, name, kind, until).await;
    }
    let (rcode, addresses, ttl) = match outcome {
        Ok(message) => read(&message, kind),
        Err(word) => (word, Vec::new(), None),
    };
    Reply { rcode, addresses, ttl, truncated, transport: by, after: began.elapsed(), sent: 1 + u32::from(truncated) }
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
    if let Err(error) = socket.send(&bytes).await {
        return Err(refused_here(&socket, &error, until).await);
    }
    let mut buffer = vec![0; 4096];
    let mut strays = 0;
    loop {
        let received = match timeout_at(until, socket.recv(&mut buffer)).await {
            Ok(received) => received.map_err(|e| errno_word(&e))?,
            Err(_) if strays > 0 => return Err("GARBAGE".to_owned()),
            Err(_) => return Err("TIMEOUT".to_owned()),
        };
        match answer_to(&asked, &buffer[..received]) {
            Some(message) => return Ok(message),
            None if strays == MOST_STRAYS => return Err("GARBAGE".to_owned()),
            None => strays += 1,
        }
    }
}

/// How long a server that has just been silent gets to answer from elsewhere.
const ELSEWHERE: Duration = Duration::from_millis(700);

/// Who answers a question to a server: asked by datagram from a socket that is not connected, and so hears everybody. A connected
/// one, as most resolvers use it, hears nothing of an answer that was not translated back.
pub(super) async fn answered_from(net: &Net, server: SocketAddrV4, name: &Name, deadline: Instant) -> Option<IpAddr> {
    let (asked, bytes) = question(name, RecordType::A).ok()?;
    let until = deadline.min(Instant::now() + ELSEWHERE);
    let opened = net.with(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    let socket = opened.and_then(|socket| socket).ok()?;
    socket.send_to(&bytes, server).await.ok()?;
    let mut buffer = vec![0; 4096];
    for _ in 0..MOST_STRAYS {
        let (received, from) = timeout_at(until, socket.recv_from(&mut buffer)).await.ok()?.ok()?;
        if answer_to(&asked, &buffer[..received]).is_some() {
            return Some(from.ip());
        }
    }
    None
}

/// How long the kernel may take to hand us its own ICMP error, which it sends over the loopback device.
const OWN_ICMP: Duration = Duration::from_millis(200);

/// The word for a datagram that could not be sent. A packet filter of this host gives EPERM for `drop` and for `reject` alike,
/// but only `reject` (kube-proxy, for a service without endpoints) also makes the ICMP error that a distant host would send.
async fn refused_here(socket: &UdpSocket, error: &io::Error, until: Instant) -> String {
    if error.raw_os_error() == Some(libc::EPERM)
        && let Ok(Err(icmp)) = timeout_at(until.min(Instant::now() + OWN_ICMP), socket.recv(&mut [0; 1])).await
    {
        return errno_word(&icmp);
    }
    errno_word(error)
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

/// For fuzzers: addresses of an answer whose question is its own.
pub(super) fn kept(bytes: &[u8]) -> usize {
    let Ok(mut asked) = Message::from_vec(bytes) else { return 0 };
    let kind = asked.queries.first().map_or(RecordType::A, Query::query_type);
    asked.metadata.message_type = MessageType::Query;
    answer_to(&asked, bytes).map_or(0, |message| read(&message, kind).1.len())
}

/// Rcode, addresses and lifetime of an answer to a query for records of a kind.
fn read(message: &Message, kind: RecordType) -> (String, Vec<IpAddr>, Option<u32>) {
    let addresses: Vec<IpAddr> = message.answers.iter().filter_map(|r| address(&r.data, kind)).take(MOST_ADDRESSES).collect();
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
    let ttl = match rcode.as_str() {
        "NOERROR" => message.answers.iter().map(|r| r.ttl).min(),
        "NODATA" | "NXDOMAIN" => message.authorities.iter().find_map(negative_ttl),
        _ => None,
    };
    (rcode.clone(), if rcode == "NOERROR" { addresses } else { Vec::new() }, ttl)
}

fn address(data: &RData, kind: RecordType) -> Option<IpAddr> {
    match data {
        RData::A(a) if kind != RecordType::AAAA => Some(a.0.into()),
        RData::AAAA(a) if kind == RecordType::AAAA => Some(a.0.into()),
        _ => None,
    }
}

fn negative_ttl(record: &Record) -> Option<u32> {
    if let RData::SOA(soa) = &record.data { Some(record.ttl.min(soa.minimum)) } else { None }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
