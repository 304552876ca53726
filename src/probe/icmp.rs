//! `icmp`: echo requests to an address: loss and round-trip time.

use super::net::{connect, errno_word, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use crate::vantage::Net;
use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use socket2::Type;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use surge_ping::{Client, Config, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::time::{Instant, sleep};

/// Longest wait for one reply. A machine that is very busy may hand over late what came in time: a reply counts as a reply.
const PATIENCE: Duration = Duration::from_secs(3);
/// A reply that took longer than this is late.
const LATE: Duration = Duration::from_secs(1);
/// Longest wait for a TCP connection, one after the other. By then a lost SYN is sent again (tcp(7)), and the time would be that of two.
const CONNECT: Duration = Duration::from_secs(1);
/// Requests go out this far apart, or as soon as a reply is there.
const SPACING: Duration = Duration::from_millis(50);
/// Most requests of one probe.
const MOST: u16 = 100;
/// Type of an echo reply (RFC 792).
const ECHO_REPLY: u8 = 0;

/// Echo requests to an address: loss and round-trip time.
pub(super) static KIND: Kind = Kind {
    name: "icmp",
    root: "icmp",
    about: "Echo requests to an address: loss and round-trip time",
    privilege: Some("raw sockets where net.ipv4.ping_group_range forbids datagram ones; else TCP is used"),
    args: &[
        ("address", "IPv4 address"),
        ("count", "number of echo requests (3)"),
        ("fallback_port", "TCP port whose connect time stands in where ICMP sockets are not allowed (absent: none)"),
    ],
    facts: &[
        fact("sent", "count", "echo requests sent"),
        fact("received", "count", "replies"),
        fact("late", "count", "replies that took more than a second; after three seconds none is waited for"),
        fact("loss_percent", "percent", "share of requests without a reply"),
        fact("rtt_min_ms", "ms", "shortest round trip"),
        fact("rtt_median_ms", "ms", "median round trip"),
        fact("rtt_p99_ms", "ms", "99th percentile of the round trips (the longest of fewer than 100)"),
        fact("rtt_max_ms", "ms", "longest round trip"),
        fact("jitter_ms", "ms", "mean difference between one round trip and the next that was answered (as in RFC 3393, two ways)"),
        fact("method", "text", "`dgram`, `raw` or `tcp`: how it was measured"),
        fact("error", "text", "errno of the last failed send, such as ENETUNREACH; empty if none"),
    ],
    decode: decode::<Icmp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Icmp {
    address: Ipv4Addr,
    #[serde(default = "three")]
    count: u16,
    #[serde(default)]
    fallback_port: Option<u16>,
}

/// The usual number of echo requests.
pub(super) fn three() -> u16 {
    3
}

#[async_trait]
impl Probe for Icmp {
    async fn observe(&self, cx: &Context) -> Observation {
        let echoes = match (Echo::open(&cx.vantage.net), self.fallback_port) {
            (Ok(echo), _) => echo.run(self.address, self.count, &[0; 56], cx.deadline).await,
            (Err(_), Some(port)) => connects(cx, SocketAddrV4::new(self.address, port), self.count).await,
            (Err(reason), None) => return Observation::could_not_look(reason),
        };
        let mut seen = Observation::default();
        for line in &echoes.lines {
            seen.note("icmp", line);
        }
        self.facts(&mut seen.facts, echoes);
        seen
    }

    fn target(&self) -> String {
        self.address.to_string()
    }
}

impl Icmp {
    fn facts(&self, facts: &mut Facts, echoes: Echoes) {
        let tried = u64::from(echoes.tried.max(1));
        let lost = u64::from(echoes.tried - echoes.received());
        facts.set("sent", echoes.sent).set("received", echoes.received()).set("late", echoes.late());
        facts.set("loss_percent", (lost * 100).div_ceil(tried));
        facts.set("method", echoes.method).set("error", echoes.error.as_str());
        facts.set_or_unknown("rtt_min_ms", echoes.at(0.0), "no reply");
        facts.set_or_unknown("rtt_median_ms", echoes.at(0.5), "no reply");
        facts.set_or_unknown("rtt_p99_ms", echoes.at(0.99), "no reply");
        facts.set_or_unknown("rtt_max_ms", echoes.at(1.0), "no reply");
        facts.set_or_unknown("jitter_ms", echoes.jitter_ms(), "fewer than two replies");
    }
}

/// What came of some echo requests.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    /// Requests that were to be sent.
    pub(super) tried: u16,
    /// Requests that the kernel took.
    pub(super) sent: u16,
    /// Errno of the last one that it did not take; empty if none.
    pub(super) error: String,
    method: &'static str,
    /// Round trips, the shortest first.
    rtts: Vec<Duration>,
    /// The same by the number of their request.
    by_seq: BTreeMap<u16, Duration>,
    lines: Vec<String>,
}

impl Echoes {
    /// Replies.
    pub(super) fn received(&self) -> u16 {
        u16::try_from(self.rtts.len()).unwrap_or(u16::MAX)
    }

    /// Replies among them that were late.
    pub(super) fn late(&self) -> usize {
        self.rtts.iter().filter(|rtt| **rtt > LATE).count()
    }

    /// Median round trip in ms, if there was a reply.
    pub(super) fn median_ms(&self) -> Option<f64> {
        self.at(0.5)
    }

    fn at(&self, share: f64) -> Option<f64> {
        let last = self.rtts.len().checked_sub(1)?;
        // Nearest rank: the middle of an even number is the shorter one, a high percentile is never understated.
        let rank = if share > 0.5 { (last as f64 * share).ceil() } else { (last as f64 * share).floor() };
        self.rtts.get(rank as usize).map(|rtt| ms(*rtt))
    }

    fn jitter_ms(&self) -> Option<f64> {
        let steps: Vec<f64> = self.by_seq.values().zip(self.by_seq.values().skip(1)).map(|(a, b)| ms(a.abs_diff(*b))).collect();
        (!steps.is_empty()).then(|| steps.iter().sum::<f64>() / steps.len() as f64)
    }

    fn count(&mut self, seq: u16, outcome: Outcome) {
        self.tried += 1;
        self.sent += u16::from(!matches!(outcome, Outcome::NotSent(_)));
        self.lines.push(match &outcome {
            Outcome::Reply(rtt) => format!("seq {seq}: reply after {:.3} ms{}", ms(*rtt), if *rtt > LATE { ", late" } else { "" }),
            Outcome::Silence => format!("seq {seq}: no reply"),
            Outcome::Refused(by) => format!("seq {seq}: {by}"),
            Outcome::NotSent(word) => format!("seq {seq}: not sent, {word}"),
        });
        match outcome {
            Outcome::Reply(rtt) => {
                let place = self.rtts.partition_point(|r| *r <= rtt);
                self.rtts.insert(place, rtt);
                self.by_seq.insert(seq, rtt);
            }
            Outcome::NotSent(word) => self.error = word,
            Outcome::Silence | Outcome::Refused(_) => {}
        }
    }
}

enum Outcome {
    Reply(Duration),
    Silence,
    /// An ICMP error or a refused connection, in words.
    Refused(String),
    /// The errno word.
    NotSent(String),
}

/// An ICMP socket in a vantage's network.
pub(super) struct Echo {
    client: Client,
    method: &'static str,
}

impl Echo {
    /// Opens a datagram ICMP socket (icmp(7)), or a raw one where `ping_group_range` forbids it.
    /// The error names the privilege that is missing.
    pub(super) fn open(net: &Net) -> Result<Self, String> {
        let opened = net.with(|| Client::new(&Config::default())).and_then(|client| client);
        let client = opened.map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => "ICMP needs net.ipv4.ping_group_range to include the own group, or CAP_NET_RAW".to_owned(),
            _ => format!("cannot open an ICMP socket: {}", errno_word(&e)),
        })?;
        let method = if client.get_socket().get_type() == Type::RAW { "raw" } else { "dgram" };
        Ok(Self { client, method })
    }

    /// Sends echo requests and waits for the replies, at most until the deadline.
    pub(super) async fn run(&self, to: Ipv4Addr, count: u16, payload: &[u8], deadline: Instant) -> Echoes {
        let mut echoes = Echoes { method: self.method, ..Echoes::default() };
        let mut flying = FuturesUnordered::new();
        for seq in 1..=count.clamp(1, MOST) {
            if Instant::now() >= deadline {
                break;
            }
            flying.push(self.one(to, seq, payload, deadline));
            tokio::select! {
                Some((seq, outcome)) = flying.next() => echoes.count(seq, outcome),
                () = sleep(SPACING) => {}
            }
        }
        while let Some((seq, outcome)) = flying.next().await {
            echoes.count(seq, outcome);
        }
        echoes
    }

    /// One request. The clock starts before the send: surge-ping's own starts after it and misses fast replies.
    async fn one(&self, to: Ipv4Addr, seq: u16, payload: &[u8], deadline: Instant) -> (u16, Outcome) {
        let mut pinger = self.client.pinger(to.into(), identifier()).await;
        let began = Instant::now();
        pinger.timeout(deadline.saturating_duration_since(began).min(PATIENCE));
        let answer = pinger.ping(PingSequence(seq), payload).await;
        (seq, outcome(answer, began.elapsed()))
    }
}

/// On a raw socket ICMP errors arrive as if they were replies, so the type decides.
fn outcome(answer: Result<(IcmpPacket, Duration), SurgeError>, after: Duration) -> Outcome {
    match answer {
        Ok((IcmpPacket::V4(packet), _)) if packet.get_icmp_type().0 == ECHO_REPLY => Outcome::Reply(after),
        Ok((IcmpPacket::V4(packet), _)) => {
            let (kind, code) = (packet.get_icmp_type().0, packet.get_icmp_code().0);
            Outcome::Refused(format!("ICMP type {kind} code {code} from {}", packet.get_source()))
        }
        Err(SurgeError::IOError(error)) => Outcome::NotSent(errno_word(&error)),
        Ok(_) | Err(_) => Outcome::Silence,
    }
}

/// A raw socket sees every ICMP packet of its namespace: identifiers keep simultaneous probes apart.
fn identifier() -> PingIdentifier {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    PingIdentifier((std::process::id() as u16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Where ICMP is not allowed: a TCP connection made or refused takes one round trip too.
async fn connects(cx: &Context, to: SocketAddrV4, count: u16) -> Echoes {
    let mut echoes = Echoes { method: "tcp", ..Echoes::default() };
    for seq in 1..=count.clamp(1, MOST) {
        if Instant::now() >= cx.deadline {
            break;
        }
        let outcome = match connect(&cx.vantage.net, to, cx.deadline.min(Instant::now() + CONNECT)).await {
            Ok((_, after)) => Outcome::Reply(after),
            Err(error) => match error.word.as_str() {
                "ECONNREFUSED" => Outcome::Reply(error.after),
                "TIMEOUT" => Outcome::Silence,
                "EHOSTUNREACH" => Outcome::Refused(error.word),
                _ => Outcome::NotSent(error.word),
            },
        };
        echoes.count(seq, outcome);
    }
    echoes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    #[test]
    fn figures_of_known_round_trips() {
        let mut echoes = Echoes::default();
        // Replies may overtake each other: the order of the requests counts.
        for (seq, ms) in [(2, 14), (1, 10), (3, 11), (5, 11)] {
            echoes.count(seq, Outcome::Reply(Duration::from_millis(ms)));
        }
        echoes.count(4, Outcome::Silence);
        assert_eq!((echoes.tried, echoes.sent, echoes.received()), (5, 5, 4));
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| echoes.at(share)), [Some(10.0), Some(11.0), Some(14.0), Some(14.0)]);
        let jitter = echoes.jitter_ms().unwrap();
        assert!((jitter - (4.0 + 3.0 + 0.0) / 3.0).abs() < 1e-9, "{jitter}");
        assert_eq!(Echoes::default().jitter_ms(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_replies_are_counted_and_timed_with_both_kinds_of_socket() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        // A new namespace allows nobody datagram sockets ("1 0").
        for method in ["raw", "dgram"] {
            let facts = testnet::observe("icmp", "address = '10.42.2.0'", &nodes.tethys, None).await.facts.to_json();
            assert_eq!((&facts["sent"], &facts["received"], &facts["loss_percent"]), (&json!(3), &json!(3), &json!(0)));
            assert_eq!((&facts["method"], &facts["error"]), (&json!(method), &json!("")));
            let rtt = |name: &str| facts[name].as_f64().unwrap();
            assert!(rtt("rtt_min_ms") > 0.0 && rtt("rtt_min_ms") <= rtt("rtt_median_ms") && rtt("rtt_median_ms") <= rtt("rtt_max_ms"));
            nodes.tethys.sysctl("net/ipv4/ping_group_range", "0 0");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_a_silent_target_and_a_missing_route() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.calypso.down("flannel.1").await;
        let facts = testnet::observe("icmp", "address = '10.42.2.0'\ncount = 2", &nodes.tethys, None).await.facts.to_json();
        assert_eq!((&facts["sent"], &facts["received"], &facts["loss_percent"]), (&json!(2), &json!(0), &json!(100)));
        assert_eq!(facts["rtt_median_ms"], json!({"unknown": "no reply"}));
        let facts = testnet::observe("icmp", "address = '203.0.113.1'\ncount = 2", &nodes.tethys, None).await.facts.to_json();
        assert_eq!((&facts["sent"], &facts["error"], &facts["loss_percent"]), (&json!(0), &json!("ENETUNREACH"), &json!(100)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_tcp_stands_in_and_a_refusal_is_a_reply() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let cx = testnet::context(nodes.tethys.vantage.clone(), None);
        let echoes = connects(&cx, SocketAddrV4::new(testnet::CALYPSO, 9), 2).await;
        assert_eq!((echoes.method, echoes.sent, echoes.received(), echoes.error.as_str()), ("tcp", 2, 2, ""));
        let echoes = connects(&cx, SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 9), 2).await;
        assert_eq!((echoes.sent, echoes.received(), echoes.error.as_str()), (0, 0, "ENETUNREACH"));
    }
}
