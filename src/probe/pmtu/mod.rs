//! `pmtu`: the largest packet that gets through a leg unfragmented, who says that more is too big, and whether full-size
//! packets are fragmented below.

pub(super) mod echo;
mod exchange;

use super::counters::Snapshot;
use super::net::ms;
use super::netlink::{Netlink, Question};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use async_trait::async_trait;
use echo::{Answer, HEADERS, Prober};
use exchange::Transfer;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for the answers of one round.
const ROUND: Duration = Duration::from_millis(700);
/// Sizes tried at once, each this often.
const AT_ONCE: usize = 8;
const TRIES: usize = 2;
/// Full-size packets during which fragments are counted.
const FULL: usize = 8;
/// Length of the packet that tells whether there is an answer at all.
const SMALL: usize = 84;

/// The largest packet that gets through a leg unfragmented, who says that more is too big, and whether it is fragmented below.
pub(super) static KIND: Kind = Kind {
    name: "pmtu",
    root: "pmtu",
    about: "The largest packet that gets through a leg unfragmented, who says that more is too big, and whether it is fragmented below",
    privilege: Some("net.ipv4.ping_group_range that includes the own group, or CAP_NET_RAW"),
    args: &[
        ("address", "IPv4 address at the other end of the leg"),
        ("exchange_address", "address of an HTTP server for a tiny and a large exchange (optional)"),
        ("exchange_port", "its port"),
    ],
    facts: &[
        fact("reachable", "bool", "a small echo request was answered"),
        fact("device", "text", "device by which the kernel sends"),
        fact("device_mtu", "bytes", "its MTU"),
        fact("largest", "bytes", "longest IPv4 packet with DF that was answered; both directions must take it"),
        fact("limit", "text", "what limits it: `device`, `icmp` (a router said too big) or `silence` (longer ones vanish)"),
        fact("too_big_from", "address", "the router that said too big; empty if none did"),
        fact("too_big_mtu", "bytes", "the MTU that it named"),
        fact("full_sent", "count", "packets of the device's full MTU sent while fragments were counted"),
        fact("full_answered", "count", "how many of these, sent one right after the other, were answered"),
        fact("fragments_made", "count", "IpFragCreates here meanwhile"),
        fact("witness.reassembled", "count", "IpReasmOKs at the witness meanwhile"),
        fact("exchange.small", "text", "a tiny HTTP exchange: `ok`, `stalled` or an errno"),
        fact("exchange.small_ms", "ms", "its time"),
        fact("exchange.large", "text", "an exchange of 6 kB there and up to 20 kB back: `ok`, `stalled` or an errno"),
        fact("exchange.large_bytes", "bytes", "what came back of it"),
        fact("exchange.large_ms", "ms", "its time"),
        fact("exchange.retransmitted", "count", "segments of the 6 kB that had to be sent again (TCP_INFO)"),
    ],
    decode: decode::<Pmtu>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pmtu {
    address: Ipv4Addr,
    #[serde(default)]
    exchange_address: Option<Ipv4Addr>,
    #[serde(default)]
    exchange_port: Option<u16>,
}

#[async_trait]
impl Probe for Pmtu {
    async fn observe(&self, cx: &Context) -> Observation {
        let leg = self.leg(cx);
        let (leg, exchange) = tokio::join!(leg, self.exchange(cx));
        let mut seen = leg.unwrap_or_else(Observation::could_not_look);
        exchange_facts(&mut seen, exchange);
        seen
    }

    fn target(&self) -> String {
        self.address.to_string()
    }
}

impl Pmtu {
    async fn leg(&self, cx: &Context) -> Result<Observation, String> {
        let (device, mtu) = self.device(cx).await?;
        let mut seen = Observation::default();
        seen.facts.set("device", device).set("device_mtu", mtu);
        let mut search = Search { prober: Prober::open(&cx.vantage.net)?, to: self.address, deadline: cx.deadline, too_big: None };
        let reachable = search.passes(&[SMALL; TRIES]).await.is_some();
        seen.facts.set("reachable", reachable);
        if !reachable {
            for path in KIND.facts.iter().map(|f| f.path).filter(|p| !p.starts_with("exchange.")) {
                seen.facts.unknown(path, "not even a small echo request was answered");
            }
            return Ok(seen);
        }
        let mtu = usize::try_from(mtu).unwrap_or(usize::MAX).clamp(SMALL, 65_535);
        self.fragments(cx, &mut search, mtu, &mut seen).await;
        let largest = search.largest(mtu).await;
        let said = search.too_big.filter(|_| largest < mtu);
        seen.facts.set("largest", largest).set(
            "limit",
            if largest == mtu {
                "device"
            } else if said.is_some() {
                "icmp"
            } else {
                "silence"
            },
        );
        seen.facts.set("too_big_from", said.and_then(|s| s.0).map_or(String::new(), |a| a.to_string()));
        seen.facts.set_or_unknown("too_big_mtu", said.map(|s| s.1), "no router said too big");
        seen.note("pmtu", format!("{}: {largest} of {mtu} bytes pass with DF", self.address));
        Ok(seen)
    }

    async fn device(&self, cx: &Context) -> Result<(String, u32), String> {
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let found = netlink.lookup(Question { to: self.address, from: None, iif: None, mark: None }).await?;
        let index = found.map_err(|e| format!("no route to {}: {e}", self.address))?.device;
        let devices = netlink.devices().await?;
        let device = devices.iter().find(|d| Some(d.index) == index).ok_or("the route names no device")?;
        Ok((crate::check::clean(&device.name, 64), device.mtu))
    }

    /// A DF test alone gives a false all-clear: VXLAN fragments the outer packet of an inner one that may not be.
    async fn fragments(&self, cx: &Context, search: &mut Search, mtu: usize, seen: &mut Observation) {
        let before = both(cx).await;
        let answered = search.answered(&[mtu; FULL]).await.len();
        let after = both(cx).await;
        let difference = |a: &Snapshot, b: &Snapshot, name: &str| Some(b.values.get(name)?.saturating_sub(*a.values.get(name)?));
        seen.facts.set("full_sent", FULL).set("full_answered", answered);
        seen.facts.set_or_unknown("fragments_made", difference(&before.0, &after.0, "ip_fragments_made"), "the kernel does not count it");
        let witness = before.1.zip(after.1).and_then(|(a, b)| difference(&a, &b, "ip_reassembled"));
        seen.facts.set_or_unknown("witness.reassembled", witness, "no witness at hand: run with --from both vantages");
    }

    async fn exchange(&self, cx: &Context) -> Option<(Transfer, Transfer)> {
        let to = SocketAddrV4::new(self.exchange_address?, self.exchange_port?);
        let net = &cx.vantage.net;
        Some(tokio::join!(exchange::small(net, to, cx.deadline), exchange::large(net, to, cx.deadline)))
    }
}

async fn both(cx: &Context) -> (Snapshot, Option<Snapshot>) {
    let witness = cx.witness.as_ref().map(|w| Snapshot::protocols_of(&w.net));
    (Snapshot::protocols_of(&cx.vantage.net), witness)
}

fn exchange_facts(seen: &mut Observation, exchange: Option<(Transfer, Transfer)>) {
    let facts: &mut Facts = &mut seen.facts;
    let reason = "no server for an exchange was named";
    let (small, large) = exchange.unzip();
    facts.set_or_unknown("exchange.small", small.as_ref().map(|t| t.outcome.as_str()), reason);
    facts.set_or_unknown("exchange.small_ms", small.as_ref().map(|t| ms(t.took)), reason);
    facts.set_or_unknown("exchange.large", large.as_ref().map(|t| t.outcome.as_str()), reason);
    facts.set_or_unknown("exchange.large_bytes", large.as_ref().map(|t| t.bytes), reason);
    facts.set_or_unknown("exchange.large_ms", large.as_ref().map(|t| ms(t.took)), reason);
    let not_told = if large.is_some() { "no connection, or the kernel does not tell" } else { reason };
    facts.set_or_unknown("exchange.retransmitted", large.as_ref().and_then(|t| t.retransmitted), not_told);
    for (name, transfer) in [("tiny", small), ("large", large)] {
        if let Some(t) = transfer {
            seen.note("tcp", format!("{name} exchange: {}, {} bytes back after {} ms", t.outcome, t.bytes, ms(t.took)));
        }
    }
}

/// A search for the largest packet that passes.
struct Search {
    prober: Prober,
    to: Ipv4Addr,
    deadline: Instant,
    /// Who said too big (nobody for the own kernel), and the MTU that was named.
    too_big: Option<(Option<Ipv4Addr>, u32)>,
}

impl Search {
    /// The longest of these that was answered.
    async fn passes(&mut self, lengths: &[usize]) -> Option<usize> {
        self.answered(lengths).await.into_iter().max()
    }

    /// Those of these that were answered.
    async fn answered(&mut self, lengths: &[usize]) -> Vec<usize> {
        let until = self.deadline.min(Instant::now() + ROUND);
        let answers = self.prober.ask(self.to, lengths, until).await;
        for answer in &answers {
            if let Answer::Refused(refusal, _) = answer
                && (refusal.mtu > 0)
            {
                self.too_big = Some((refusal.from, refusal.mtu));
            }
        }
        answers.iter().zip(lengths).filter(|(a, _)| matches!(a, Answer::Reply(_))).map(|(_, length)| *length).collect()
    }

    /// Eight sizes at a time, each twice: four rounds for any MTU up to 1500, also where nothing says "too big".
    async fn largest(&mut self, most: usize) -> usize {
        let (mut low, mut high) = (SMALL, most + 1);
        // One after the other: what is lost only in company is not too long.
        for _ in 0..TRIES {
            if self.passes(&[most]).await.is_some() {
                return most;
            }
        }
        high = high.min(most);
        while high - low > 1 && Instant::now() < self.deadline {
            let mut lengths: Vec<usize> = (1..=AT_ONCE).map(|n| low + (high - low) * n / (AT_ONCE + 1)).filter(|l| *l > low).collect();
            if let Some(named) = self.too_big.map(|(_, mtu)| mtu as usize).filter(|m| (low + 1..high).contains(m)) {
                lengths.extend([named, (named + 1).min(high - 1)]);
            }
            if lengths.is_empty() {
                lengths.push(low + 1);
            }
            lengths.sort_unstable();
            lengths.dedup();
            let twice: Vec<usize> = lengths.iter().chain(&lengths).copied().collect();
            let passed = self.passes(&twice).await.unwrap_or(low);
            high = lengths.into_iter().find(|l| *l > passed).unwrap_or(high);
            low = passed;
        }
        low.max(HEADERS)
    }
}

#[cfg(test)]
mod tests {
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_a_healthy_leg_takes_its_devices_mtu_without_fragments() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        // A new namespace allows nobody datagram ICMP sockets ("1 0"): first raw ones, then those.
        for _ in 0..2 {
            let facts = testnet::observe("pmtu", "address = '10.42.2.0'", &nodes.tethys, Some(&nodes.calypso)).await.facts.to_json();
            assert_eq!((&facts["device"], &facts["device_mtu"], &facts["largest"]), (&json!("flannel.1"), &json!(1230), &json!(1230)));
            assert_eq!((&facts["limit"], &facts["fragments_made"]), (&json!("device"), &json!(0)));
            assert_eq!((&facts["witness"]["reassembled"], &facts["full_answered"]), (&json!(0), &facts["full_sent"]));
            nodes.tethys.sysctl("net/ipv4/ping_group_range", "0 0");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_an_unreachable_leg_is_no_mtu() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.calypso.down("flannel.1").await;
        let facts = testnet::observe("pmtu", "address = '10.42.2.0'", &nodes.tethys, None).await.facts.to_json();
        assert_eq!(facts["reachable"], json!(false));
        assert!(facts["largest"]["unknown"].is_string());
    }
}
