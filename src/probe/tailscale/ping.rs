//! Disco pings by LocalAPI: whether a peer answers, how long it takes and by which path.
//!
//! The first answer after a quiet time may come through a relay while the direct path is being found, so only repeated
//! relayed answers mean "relayed". A dead peer is never answered for: every attempt has its own deadline.

use super::local_api;
use crate::check::{Facts, Observation, clean};
use crate::probe::Context;
use crate::probe::net::errno_word;
use crate::vantage::{Net, UnixAddress};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::sleep;

/// Pings until one goes the direct way.
const ATTEMPTS: usize = 4;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two pings: the time to find a direct path.
const PAUSE: Duration = Duration::from_millis(400);
const PATHS: [&str; 8] =
    ["peer.answers", "peer.ping_ms", "peer.path", "peer.ping_relay", "peer.pings", "peer.rpf_dropped", "peer.tsmp_answers", "peer.tsmp_ms"];

/// An answer of `POST ping` (Go type ipnstate.PingResult). Errors come inside a 200.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pong {
    #[serde(rename = "Err")]
    error: String,
    #[serde(rename = "LatencySeconds")]
    latency_s: f64,
    #[serde(rename = "Endpoint")]
    endpoint: String,
    #[serde(rename = "PeerRelay")]
    peer_relay: String,
    #[serde(rename = "DERPRegionCode")]
    region: String,
}

/// What the pings came to.
pub(super) enum Outcome {
    /// The last answer.
    Answered(Pong),
    /// tailscaled waited for the peer in vain.
    Silent,
    /// tailscaled did not ping, and why.
    Refused(String),
}

/// Pings a peer and records `peer.answers` and its like.
pub(super) async fn ask(cx: &Context, socket: &UnixAddress, peer: Ipv4Addr, seen: &mut Observation) {
    let before = reverse_path_drops(&cx.vantage.net);
    let (outcome, pings) = several(cx, socket, peer).await;
    seen.facts.set("peer.pings", pings);
    let after = reverse_path_drops(&cx.vantage.net);
    match before.and_then(|before| Ok(after?.saturating_sub(before))) {
        Ok(dropped) => seen.facts.set("peer.rpf_dropped", dropped),
        Err(reason) => seen.facts.unknown("peer.rpf_dropped", reason),
    };
    seen.note("tailscale", describe(peer, &outcome));
    record(&outcome, &mut seen.facts);
    // Only now: what the reverse path filter drops of it must not count among the disco pings.
    if matches!(outcome, Outcome::Answered(_)) {
        let inside = once(cx, socket, peer, "TSMP").await;
        seen.note("tailscale", format!("TSMP {}", describe(peer, &inside)));
        record_inside(&inside, &mut seen.facts);
    }
}

/// Pings until one is answered on the direct way; with how many pings that took.
async fn several(cx: &Context, socket: &UnixAddress, peer: Ipv4Addr) -> (Outcome, usize) {
    let mut outcome = Outcome::Silent;
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            sleep(cx.time_left(PAUSE)).await;
        }
        match once(cx, socket, peer, "disco").await {
            Outcome::Answered(pong) if !pong.endpoint.is_empty() => return (Outcome::Answered(pong), attempt),
            Outcome::Answered(pong) => outcome = Outcome::Answered(pong),
            Outcome::Silent => {}
            Outcome::Refused(reason) => return (Outcome::Refused(reason), attempt),
        }
    }
    (outcome, ATTEMPTS)
}

async fn once(cx: &Context, socket: &UnixAddress, peer: Ipv4Addr, kind: &str) -> Outcome {
    let stream = match local_api::connect(&cx.vantage.net, socket) {
        Ok(stream) => stream,
        Err(error) => return Outcome::Refused(format!("cannot connect to {socket}: {}", errno_word(&error))),
    };
    let path = format!("/localapi/v0/ping?ip={peer}&type={kind}");
    let asked = tokio::time::timeout(cx.time_left(PATIENCE), local_api::ping(stream, &path, PATIENCE)).await;
    match asked {
        Err(_) => Outcome::Silent,
        Ok(Err(reason)) if reason.contains("in time") => Outcome::Silent,
        Ok(Err(reason)) => Outcome::Refused(reason),
        Ok(Ok(document)) => match serde_json::from_value::<Pong>(document) {
            Ok(pong) if pong.error.is_empty() => Outcome::Answered(pong),
            Ok(pong) => Outcome::Refused(format!("tailscaled refuses to ping {peer}: {}", pong.error)),
            Err(error) => Outcome::Refused(format!("tailscaled's answer has an unexpected shape: {error}")),
        },
    }
}

pub(super) fn record(outcome: &Outcome, facts: &mut Facts) {
    match outcome {
        Outcome::Answered(pong) => {
            let way = match (pong.endpoint.is_empty(), pong.peer_relay.is_empty()) {
                (false, _) => "direct",
                (true, false) => "peer-relay",
                (true, true) => "relay",
            };
            facts.set("peer.answers", true).set("peer.ping_ms", rounded(pong)).set("peer.path", way);
            facts.set("peer.ping_relay", if way == "relay" { clean(&pong.region, 64) } else { String::new() });
        }
        Outcome::Silent => {
            facts.set("peer.answers", false).set("peer.path", "").set("peer.ping_relay", "");
            facts.unknown("peer.ping_ms", "it did not answer");
            for path in ["peer.tsmp_answers", "peer.tsmp_ms"] {
                facts.unknown(path, "it answered no disco ping");
            }
        }
        Outcome::Refused(reason) => not_asked(facts, &clean(reason, 300)),
    }
}

/// What a TSMP ping came to, which says nothing about the path.
fn record_inside(outcome: &Outcome, facts: &mut Facts) {
    match outcome {
        Outcome::Answered(pong) => facts.set("peer.tsmp_answers", true).set("peer.tsmp_ms", rounded(pong)),
        Outcome::Silent => facts.set("peer.tsmp_answers", false).unknown("peer.tsmp_ms", "it did not answer"),
        Outcome::Refused(reason) => facts.unknown("peer.tsmp_answers", clean(reason, 300)).unknown("peer.tsmp_ms", clean(reason, 300)),
    };
}

fn rounded(pong: &Pong) -> f64 {
    (pong.latency_s * 1e6).round() / 1e3
}

/// What a ping would tell is unknown.
pub(super) fn not_asked(facts: &mut Facts, reason: &str) {
    for path in PATHS {
        facts.unknown(path, reason);
    }
}

fn describe(peer: Ipv4Addr, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered(pong) => {
            let way = [&pong.endpoint, &pong.peer_relay, &pong.region].into_iter().find(|w| !w.is_empty()).map_or("?", |w| w);
            format!("ping {peer}: {:.1} ms via {way}", pong.latency_s * 1e3)
        }
        Outcome::Silent => format!("ping {peer}: no answer"),
        Outcome::Refused(reason) => format!("ping {peer}: {reason}"),
    }
}

/// `TcpExt: IPReversePathFilter` of `/proc/net/netstat`: packets of any protocol that rp_filter dropped.
fn reverse_path_drops(net: &Net) -> Result<u64, String> {
    let text = net.with(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).and_then(|read| read);
    let text = text.map_err(|e| format!("cannot read /proc/net/netstat: {e}"))?;
    drops(&text).ok_or_else(|| "/proc/net/netstat lacks IPReversePathFilter".to_owned())
}

fn drops(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|n| n == "IPReversePathFilter")?;
    values.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(outcome: &Outcome) -> serde_json::Value {
        let mut facts = Facts::default();
        record(outcome, &mut facts);
        facts.to_json()["peer"].clone()
    }

    fn pong(document: serde_json::Value) -> Outcome {
        Outcome::Answered(serde_json::from_value(document).unwrap())
    }

    #[test]
    fn a_ping_tells_its_path() {
        let direct =
            facts(&pong(json!({"Err": "", "LatencySeconds": 0.0003195, "Endpoint": "157.173.210.123:41641", "DERPRegionCode": ""})));
        assert_eq!((&direct["answers"], &direct["path"], &direct["ping_ms"]), (&json!(true), &json!("direct"), &json!(0.32)));
        let relayed = facts(&pong(json!({"LatencySeconds": 0.08, "Endpoint": "", "DERPRegionID": 1, "DERPRegionCode": "nyc"})));
        assert_eq!((&relayed["path"], &relayed["ping_relay"]), (&json!("relay"), &json!("nyc")));
        let silent = facts(&Outcome::Silent);
        assert_eq!((&silent["answers"], &silent["path"]), (&json!(false), &json!("")));
        assert!(facts(&Outcome::Refused("no matching peer".to_owned()))["answers"]["unknown"].is_string());
    }

    #[test]
    fn a_tsmp_ping_says_whether_the_tunnel_carries() {
        let inside = |outcome: &Outcome| {
            let mut facts = Facts::default();
            record_inside(outcome, &mut facts);
            facts.to_json()["peer"].clone()
        };
        let answered = inside(&pong(json!({"LatencySeconds": 0.00347501, "Endpoint": "", "PeerAPIPort": 58436})));
        assert_eq!((&answered["tsmp_answers"], &answered["tsmp_ms"]), (&json!(true), &json!(3.475)));
        assert_eq!(inside(&Outcome::Silent)["tsmp_answers"], false);
        assert!(inside(&Outcome::Refused("no".to_owned()))["tsmp_answers"]["unknown"].is_string());
    }

    #[test]
    fn the_counter_is_found_by_name() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter TCPTimeWaitOverflow\nTcpExt: 1 26 3\nIpExt: InNoRoutes\nIpExt: 0\n";
        assert_eq!(drops(text), Some(26));
        assert_eq!(drops("TcpExt: A\nTcpExt: 1\n"), None);
    }
}
