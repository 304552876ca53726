//! `tcp`: a TCP connection: connected, or the errno and when.

use super::net::{connect, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use tokio::time::Instant;

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
        let (error, after) = match connect(net, to, deadline).await {
            Ok((_stream, after)) => (String::new(), after),
            Err(failed) => (failed.word, failed.after),
        };
        let mut seen = Observation::default();
        let word = if error.is_empty() { "connected" } else { &error };
        seen.note("tcp", format!("connect {to} -> {word} ({} ms)", ms(after)));
        seen.facts.set("connected", error.is_empty()).set("error", error).set("connect_ms", ms(after));
        seen
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
        drop(listener);
        let facts = probe.look(&Net::Here, soon()).await.facts;
        assert_eq!((facts.get("connected"), facts.get("error")), (Some(&json!(false)), Some(&json!("ECONNREFUSED"))));
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
