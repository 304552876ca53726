//! `tcp`: a TCP connection: connected, or the errno and when.

use super::errqueue::{self, Refusal};
use super::net::{CONNECT_TIMEOUT, errno_word, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

/// A TCP connection: connected, or the errno and when.
pub(super) static KIND: Kind = Kind {
    name: "tcp",
    root: "tcp",
    about: "A TCP connection: connected, or the errno and when",
    privilege: None,
    args: &[("address", "IPv4 address"), ("port", "port")],
    facts: &[
        fact("connected", "bool", "the handshake completed"),
        fact("error", "text", "ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, TIMEOUT, ...; empty if connected"),
        fact("connect_ms", "ms", "until connected or failed"),
        fact("icmp_code", "number", "code of the ICMP destination unreachable that ended it; 10 and 13 are a firewall's"),
        fact("refused_by", "address", "who sent that ICMP error; behind a ClusterIP the translation puts the ClusterIP here"),
    ],
    decode: decode::<Tcp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    address: Ipv4Addr,
    port: u16,
}

impl Tcp {
    async fn look(&self, net: &Net, deadline: Instant) -> Observation {
        let to = SocketAddrV4::new(self.address, self.port);
        let tried = connect(net, to, deadline).await;
        let mut seen = Observation::default();
        let word = if tried.error.is_empty() { "connected" } else { &tried.error };
        seen.note("tcp", format!("connect {to} -> {word} ({} ms)", ms(tried.after)));
        refusal_facts(&mut seen, tried.refusal);
        seen.facts.set("connected", tried.error.is_empty()).set("error", tried.error).set("connect_ms", ms(tried.after));
        seen
    }
}

/// What came of a connection attempt.
pub(super) struct Tried {
    /// Errno word; empty if connected.
    pub(super) error: String,
    /// Time until it was known.
    pub(super) after: Duration,
    refusal: Option<Refusal>,
}

impl Tried {
    /// `ok` or the errno word.
    pub(super) fn word(&self) -> &str {
        if self.error.is_empty() { "ok" } else { &self.error }
    }

    /// Who ended it with an ICMP error.
    pub(super) fn refused_by(&self) -> Option<Ipv4Addr> {
        self.refusal.filter(|refusal| refusal.kind != 0)?.from
    }

    /// Whether a packet filter refused it. A host on which nothing listens resets the connection (RFC 9293 section 3.5.2) and sends
    /// no ICMP error. `None` if nobody refused it, or with an error that routers send too, such as host unreachable.
    pub(super) fn filtered(&self) -> Option<bool> {
        match self.refusal.filter(|refusal| refusal.kind != 0) {
            Some(refusal) => refusal.is_refused().then_some(true),
            None => (self.error == "ECONNREFUSED").then_some(false),
        }
    }
}

/// As `net::connect`, with the error queue: while a connection is being made the kernel keeps ICMP errors there (since Linux
/// 5.7), so the hop that refused can be named without privilege.
pub(super) async fn connect(net: &Net, to: SocketAddrV4, deadline: Instant) -> Tried {
    let began = Instant::now();
    let patience = deadline.saturating_duration_since(began).min(CONNECT_TIMEOUT);
    let opened = net.with(TcpSocket::new_v4).and_then(|socket| socket).and_then(|socket| {
        let queue = socket.as_fd().try_clone_to_owned()?;
        errqueue::enable(queue.as_fd())?;
        Ok((socket, queue))
    });
    let (socket, queue): (TcpSocket, OwnedFd) = match opened {
        Ok(opened) => opened,
        Err(error) => return Tried { error: errno_word(&error), after: began.elapsed(), refusal: None },
    };
    let outcome = timeout(patience, socket.connect(SocketAddr::V4(to))).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let after = began.elapsed();
    let refusal = outcome.is_err().then(|| errqueue::take(queue.as_fd())).flatten().map(|(refusal, _)| refusal);
    Tried { error: outcome.err().map_or(String::new(), |e| errno_word(&e)), after, refusal }
}

fn refusal_facts(seen: &mut Observation, refusal: Option<Refusal>) {
    let reason = "no ICMP error came";
    let icmp = refusal.filter(|r| r.kind != 0);
    let facts: &mut Facts = &mut seen.facts;
    facts.set_or_unknown("icmp_code", icmp.map(|r| r.code), reason);
    facts.set_or_unknown("refused_by", icmp.and_then(|r| r.from).map(|a| a.to_string()), reason);
    if let Some(r) = icmp {
        let from = r.from.map_or("an unknown hop".to_owned(), |a| a.to_string());
        seen.note("icmp", format!("{} (type {} code {}) from {from}", errqueue::words(r.kind, r.code), r.kind, r.code));
    }
}

#[async_trait]
impl Probe for Tcp {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage.net, cx.deadline).await
    }

    fn target(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vantage::NetNs;
    use serde_json::json;
    use std::time::Duration;
    use tokio::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn tells_connected_from_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = Tcp { address: Ipv4Addr::LOCALHOST, port: listener.local_addr().unwrap().port() };
        let facts = probe.look(&Net::Here, soon()).await.facts;
        assert_eq!((facts.get("connected"), facts.get("error")), (Some(&json!(true)), Some(&json!(""))));
        // Bound and not listening: no other process can take the port, and a listener that was closed could live on in a
        // child that another test is just forking.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = silent.local_addr().unwrap().as_socket().unwrap().port();
        let probe = Tcp { address: Ipv4Addr::LOCALHOST, port };
        let facts = probe.look(&Net::Here, soon()).await.facts;
        assert_eq!((facts.get("connected"), facts.get("error")), (Some(&json!(false)), Some(&json!("ECONNREFUSED"))));
    }

    #[test]
    fn a_filter_is_told_from_a_closed_port_and_from_a_router() {
        let filtered = |error: &str, icmp: Option<(u8, u8)>| {
            let from = Some(Ipv4Addr::new(10, 42, 0, 1));
            let refusal = icmp.map(|(kind, code)| Refusal { from, kind, code, mtu: 0, errno: 0 });
            Tried { error: error.to_owned(), after: Duration::ZERO, refusal }.filtered()
        };
        assert_eq!(filtered("ECONNREFUSED", None), Some(false));
        // An error of the own kernel is no ICMP error.
        assert_eq!(filtered("ECONNREFUSED", Some((0, 0))), Some(false));
        assert_eq!([filtered("ECONNREFUSED", Some((3, 3))), filtered("EHOSTUNREACH", Some((3, 13)))], [Some(true), Some(true)]);
        assert_eq!([filtered("EHOSTUNREACH", Some((3, 1))), filtered("TIMEOUT", None), filtered("", None)], [None, None, None]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_without_a_route_is_enetunreach() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let net = Net::Ns(NetNs::create("tcp").unwrap());
        let facts = Tcp { address: Ipv4Addr::new(10, 43, 0, 10), port: 53 }.look(&net, soon()).await.facts;
        assert_eq!(facts.get("error"), Some(&json!("ENETUNREACH")));
    }

    #[test]
    fn arguments_are_checked() {
        assert!((KIND.decode)(&toml::toml! { address = "10.0.0.1" port = 99999 }).is_err());
        assert!((KIND.decode)(&toml::toml! { address = "10.0.0.1" port = 1 more = 2 }).is_err());
        assert_eq!((KIND.decode)(&toml::toml! { address = "10.0.0.1" port = 80 }).unwrap().target(), "10.0.0.1:80");
    }
}
