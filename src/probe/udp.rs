//! `udp`: a datagram to a port: answered, silent, or refused, and by which hop with which ICMP error.

use super::errqueue::{self, Refusal};
use super::net::{errno_word, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Longest wait. Routers limit their ICMP errors to about one a second, so a second datagram is sent half way.
const PATIENCE: Duration = Duration::from_millis(2200);
const AGAIN: Duration = Duration::from_millis(1100);

/// A datagram to a port: answered, silent, or refused, and by which hop with which ICMP error.
pub(super) static KIND: Kind = Kind {
    name: "udp",
    root: "udp",
    about: "A datagram to a port: answered, silent, or refused, and by which hop with which ICMP error",
    privilege: None,
    args: &[("address", "IPv4 address"), ("port", "port")],
    facts: &[
        fact("sent", "bool", "the kernel took the datagram"),
        fact("error", "text", "errno if not, such as EPERM (a local firewall) or ENETUNREACH; empty if sent"),
        fact("answered", "bool", "a datagram came back"),
        fact("refused", "bool", "an ICMP error came back"),
        fact("icmp_type", "number", "its type; 3 is destination unreachable"),
        fact("icmp_code", "number", "its code: 3 port unreachable; 9, 10 and 13 a firewall"),
        fact("refused_by", "address", "the hop that sent it"),
        fact("after_ms", "ms", "until the answer or the refusal"),
    ],
    decode: decode::<Udp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Udp {
    address: Ipv4Addr,
    port: u16,
}

enum Outcome {
    NotSent(String),
    Answered(Duration),
    Refused(Refusal, Duration),
    Silent,
}

#[async_trait]
impl Probe for Udp {
    async fn observe(&self, cx: &Context) -> Observation {
        let socket = match open(&cx.vantage.net, SocketAddrV4::new(self.address, self.port)) {
            Ok(socket) => socket,
            Err(error) => return self.report(&Outcome::NotSent(errno_word(&error))),
        };
        self.report(&ask(&socket, Instant::now() + cx.time_left(PATIENCE)).await)
    }

    fn target(&self) -> String {
        format!("udp {}:{}", self.address, self.port)
    }
}

/// The hop that refuses a datagram to a port; the error says what came instead.
pub(super) async fn refused_by(net: &Net, to: SocketAddrV4, deadline: Instant) -> Result<Ipv4Addr, String> {
    let socket = open(net, to).map_err(|error| errno_word(&error))?;
    match ask(&socket, deadline.min(Instant::now() + PATIENCE)).await {
        Outcome::Refused(refusal, _) if refusal.is_refused() => refusal.from.ok_or_else(|| "an ICMP error of nobody".to_owned()),
        Outcome::Refused(refusal, _) => Err(errqueue::words(refusal.kind, refusal.code)),
        Outcome::NotSent(word) => Err(format!("the datagram was not sent: {word}")),
        _ => Err("no ICMP error came".to_owned()),
    }
}

fn open(net: &Net, to: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = net.with(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    errqueue::enable(socket.as_fd())?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn ask(socket: &UdpSocket, deadline: Instant) -> Outcome {
    let began = Instant::now();
    for until in [deadline.min(began + AGAIN), deadline] {
        if let Err(error) = socket.send(&[0]).await
            && errqueue::take(socket.as_fd()).is_none()
        {
            return Outcome::NotSent(errno_word(&error));
        }
        // The error queue makes the socket ready with an error, data makes it readable.
        while let Ok(Ok(_)) = timeout_at(until, socket.ready(Interest::READABLE | Interest::ERROR)).await {
            if let Some((refusal, _)) = errqueue::take(socket.as_fd()) {
                return Outcome::Refused(refusal, began.elapsed());
            }
            let mut byte = [0];
            if socket.try_recv(&mut byte).is_ok() {
                return Outcome::Answered(began.elapsed());
            }
            // Nothing there after all: let tokio clear the readiness that was announced.
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
    Outcome::Silent
}

impl Udp {
    fn report(&self, outcome: &Outcome) -> Observation {
        let mut seen = Observation::default();
        let error = if let Outcome::NotSent(word) = outcome { word.as_str() } else { "" };
        let (refusal, after) = match outcome {
            Outcome::Refused(refusal, after) => (Some(*refusal).filter(|r| r.kind != 0), Some(*after)),
            Outcome::Answered(after) => (None, Some(*after)),
            _ => (None, None),
        };
        let facts = &mut seen.facts;
        facts.set("sent", error.is_empty()).set("error", error);
        facts.set("answered", matches!(outcome, Outcome::Answered(_))).set("refused", refusal.is_some());
        facts.set_or_unknown("icmp_type", refusal.map(|r| r.kind), "no ICMP error came");
        facts.set_or_unknown("icmp_code", refusal.map(|r| r.code), "no ICMP error came");
        facts.set_or_unknown("refused_by", refusal.and_then(|r| r.from).map(|a| a.to_string()), "no ICMP error came");
        facts.set_or_unknown("after_ms", after.map(ms), "neither an answer nor an ICMP error came");
        let text = match (outcome, refusal) {
            (_, Some(r)) => format!("{} from {}", errqueue::words(r.kind, r.code), r.from.map_or("?".to_owned(), |a| a.to_string())),
            (Outcome::NotSent(word), _) => format!("not sent, {word}"),
            (Outcome::Answered(_), _) => "answered".to_owned(),
            _ => "silence".to_owned(),
        };
        seen.note("udp", format!("{}: {text}", self.target()));
        seen
    }
}

#[cfg(test)]
mod tests {
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::{Value, json};

    async fn facts(address: &str, port: u16, from: &testnet::Node) -> Value {
        testnet::observe("udp", &format!("address = '{address}'\nport = {port}"), from, None).await.facts.to_json()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_the_hop_that_refuses_is_named() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let closed = facts("100.83.53.38", 9, &nodes.tethys).await;
        assert_eq!((&closed["refused"], &closed["icmp_type"], &closed["icmp_code"]), (&json!(true), &json!(3), &json!(3)));
        assert_eq!((&closed["refused_by"], &closed["answered"]), (&json!("100.83.53.38"), &json!(false)));
        // VXLAN is there and says nothing to what is no VXLAN packet.
        let open = facts("100.83.53.38", 8472, &nodes.tethys).await;
        assert_eq!((&open["sent"], &open["refused"], &open["answered"]), (&json!(true), &json!(false), &json!(false)));
        let none = facts("203.0.113.1", 9, &nodes.tethys).await;
        assert_eq!((&none["sent"], &none["error"]), (&json!(false), &json!("ENETUNREACH")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_tcp_names_it_too() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.calypso.unreachable("10.42.2.64/26").await;
        let seen = testnet::observe("tcp", "address = '10.42.2.77'\nport = 80", &nodes.tethys, None).await;
        let facts = seen.facts.to_json();
        assert_eq!((&facts["error"], &facts["icmp_code"]), (&json!("EHOSTUNREACH"), &json!(1)), "{:?}", seen.evidence);
        assert_eq!(facts["refused_by"], json!("10.42.2.0"));
    }
}
