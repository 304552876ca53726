//! `trace`: the path to an address, hop by hop: who answers when a packet's TTL runs out.
//!
//! Echo requests where ICMP sockets are allowed, datagrams where they are not, connection attempts where a port is given.
//! Answers of routers come out of the error queue, which needs no privilege. Routers answer expired packets at leisure and limit
//! how often: what a hop on the way does not answer is no loss, as long as what lies behind it answers.

mod path;
pub(super) mod shot;

use super::net::ms;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use async_trait::async_trait;
use path::Path;
use serde::Deserialize;
use shot::{Aim, Method, Shot};
use std::net::Ipv4Addr;
use tokio::time::Instant;

/// Distances that are tried at once.
const WINDOW: u8 = 4;
/// Farthest distance that may be asked for.
const FARTHEST: u8 = 30;
/// Most packets for one distance.
const MOST: u16 = 10;

/// The path to an address, hop by hop: who answers when a packet's TTL runs out.
pub(super) static KIND: Kind = Kind {
    name: "trace",
    root: "trace",
    about: "The path to an address, hop by hop: who answers when a packet's TTL runs out, and where it ends",
    privilege: Some("`mark` needs CAP_NET_ADMIN; without ICMP sockets, datagrams are sent"),
    args: &[
        ("address", "IPv4 address"),
        ("port", "TCP port: connections are tried instead of echo requests (absent or 0: none)"),
        ("mark", "firewall mark of the packets (absent or 0: none)"),
        ("count", "packets for each distance (3)"),
        ("hops", "farthest distance (16)"),
    ],
    facts: &[
        fact("reached", "bool", "the address itself answered"),
        fact("distance", "hops", "TTL with which it did"),
        fact("rtt_ms", "ms", "median round trip to it"),
        fact("hops", "list of text", "one line for each distance: address, answers of packets, median round trip"),
        fact("addresses", "list of addresses", "who answered, nearest first; empty text for a silent hop"),
        fact("last_hop", "address", "the farthest that answered; empty if nobody did"),
        fact("last_ttl", "hops", "its distance; 0 if nobody answered"),
        fact("silent_hops", "count", "hops before it that answered nothing"),
        fact(
            "limited_hops",
            "list of addresses",
            "hops that answered some packets only, while what lies behind them answered all: they limit their ICMP errors",
        ),
        fact(
            "loss_percent",
            "percent",
            "packets that the address did not answer; 100 if it was not reached; of datagrams only none or all: hosts limit those answers",
        ),
        fact("loss_from", "address", "the nearest hop from which on packets are lost all the way to the address; empty if none are"),
        fact("loop", "bool", "routers come back again and again and the address is not reached: packets go round in circles"),
        fact("refused", "bool", "a hop answered that it does not pass the packets on"),
        fact("refused_by", "address", "that hop"),
        fact("icmp_type", "number", "type of its answer; 3 is destination unreachable"),
        fact("icmp_code", "number", "its code; 0 and 1 no route, 9, 10 and 13 a firewall"),
        fact("method", "text", "`dgram`, `raw`, `udp` or `tcp`: what was sent through which kind of socket"),
        fact("error", "text", "errno if the own kernel took no packet, such as ENETUNREACH; empty if it did"),
    ],
    decode: decode::<Trace>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    address: Ipv4Addr,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    mark: u32,
    #[serde(default = "super::icmp::three")]
    count: u16,
    #[serde(default = "sixteen")]
    hops: u8,
}

fn sixteen() -> u8 {
    16
}

#[async_trait]
impl Probe for Trace {
    async fn observe(&self, cx: &Context) -> Observation {
        let method = Method::choose(&cx.vantage.net, self.port);
        let aim = Aim { to: self.address, method, mark: self.mark };
        match self.walk(&aim, cx).await {
            Ok(shots) if shots.is_empty() => Observation::could_not_look("no time was left to send anything"),
            Ok(shots) => report(&Path::of(self.address, &shots), method),
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn target(&self) -> String {
        if self.port == 0 { self.address.to_string() } else { format!("{}:{}", self.address, self.port) }
    }
}

impl Trace {
    /// A window of distances after the other, until the target answers, somebody refuses or the kernel itself does.
    async fn walk(&self, aim: &Aim, cx: &Context) -> Result<Vec<Shot>, String> {
        let (farthest, count) = (self.hops.clamp(1, FARTHEST), self.count.clamp(1, MOST));
        let mut shots = Vec::new();
        for first in (1..=farthest).step_by(usize::from(WINDOW)) {
            if Instant::now() >= cx.deadline {
                break;
            }
            let last = first.saturating_add(WINDOW - 1).min(farthest);
            let more = shot::volley(aim, &cx.vantage.net, first..=last, count, cx.deadline).await?;
            let ends = more.iter().any(Shot::ends_the_path);
            shots.extend(more);
            if ends {
                break;
            }
        }
        Ok(shots)
    }
}

fn report(path: &Path, method: Method) -> Observation {
    let mut seen = Observation::default();
    let lines: Vec<String> = path.hops.iter().map(ToString::to_string).collect();
    for line in &lines {
        seen.note("trace", line);
    }
    if lines.is_empty() {
        seen.note("trace", if path.error.is_empty() { "nobody answers at any distance" } else { &path.error });
    }
    let facts = &mut seen.facts;
    facts.set("hops", lines).set("method", method.word()).set("error", path.error.as_str());
    facts.set("addresses", path.hops.iter().map(|h| text(h.address)).collect::<Vec<_>>());
    target_facts(facts, path);
    loss_facts(facts, path, method);
    refusal_facts(&mut seen, path);
    seen
}

fn target_facts(facts: &mut Facts, path: &Path) {
    let target = path.target();
    facts.set("reached", target.is_some());
    facts.set_or_unknown("distance", target.map(|h| h.ttl), "it was not reached");
    facts.set_or_unknown("rtt_ms", target.and_then(path::Hop::median).map(ms), "it was not reached");
    let last = path.last();
    facts.set("last_hop", text(last.and_then(|h| h.address))).set("last_ttl", last.map_or(0, |h| h.ttl));
    facts.set("loop", path.loops());
}

fn loss_facts(facts: &mut Facts, path: &Path, method: Method) {
    facts.set("silent_hops", path.silent());
    facts.set("limited_hops", path.limited().iter().map(ToString::to_string).collect::<Vec<_>>());
    let limits_its_answers = method == Method::Udp && (1..100).contains(&path.loss_percent());
    let reason = match limits_its_answers {
        true => "the address answers datagrams with ICMP errors, and how many of those it sends is limited",
        false => "no packet was sent",
    };
    let known = path.error.is_empty() && !limits_its_answers;
    facts.set_or_unknown("loss_percent", known.then(|| path.loss_percent()), reason);
    facts.set_or_unknown("loss_from", known.then(|| text(path.loss_from())), reason);
}

fn refusal_facts(seen: &mut Observation, path: &Path) {
    let reason = "no hop refused";
    let refusal = path.refusal;
    seen.facts.set("refused", refusal.is_some());
    seen.facts.set_or_unknown("refused_by", refusal.map(|r| text(r.from)), reason);
    seen.facts.set_or_unknown("icmp_type", refusal.map(|r| r.kind), reason);
    seen.facts.set_or_unknown("icmp_code", refusal.map(|r| r.code), reason);
    if let Some(r) = refusal {
        seen.note("icmp", format!("{} from {}", super::errqueue::words(r.kind, r.code), text(r.from)));
    }
}

fn text(address: Option<Ipv4Addr>) -> String {
    address.map_or(String::new(), |a| a.to_string())
}

#[cfg(test)]
mod tests;
