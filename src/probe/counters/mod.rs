//! `counters`: what the kernel counted meanwhile, here and at a witness: protocols, conntrack, firewall, a device.

mod snapshot;

use super::icmp::{Echo, three};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use async_trait::async_trait;
use serde::Deserialize;
use snapshot::DEVICE;
pub(super) use snapshot::{Snapshot, kept};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Length of the window without echo requests.
const WINDOW: Duration = Duration::from_secs(1);
/// Time kept back for reading the counters once more.
const RESERVE: Duration = Duration::from_millis(400);

/// What the kernel counted meanwhile, here and at a witness: protocols, conntrack, firewall, a device.
pub(super) static KIND: Kind = Kind {
    name: "counters",
    root: "counters",
    about: "What the kernel counted meanwhile, here and at a witness: protocols, conntrack, firewall, a device",
    privilege: Some("CAP_NET_ADMIN for the firewall's counters"),
    args: &[
        ("ping", "address to which echo requests go meanwhile (absent: only wait for a second)"),
        ("count", "number of echo requests (3)"),
        ("device", "device whose packets are counted too (optional)"),
    ],
    facts: &[
        fact("sent", "count", "echo requests sent"),
        fact("received", "count", "replies"),
        fact("seconds", "s", "length of the window"),
        fact("here.ip_forwarded", "count", "IpForwDatagrams"),
        fact("here.ip_fragments_made", "count", "IpFragCreates"),
        fact("here.ip_reassembled", "count", "IpReasmOKs"),
        fact("here.ip_reassembly_failed", "count", "IpReasmFails"),
        fact("here.ip_no_routes", "count", "IpOutNoRoutes"),
        fact("here.icmp_unreachable_sent", "count", "IcmpOutDestUnreachs"),
        fact("here.udp_no_ports", "count", "UdpNoPorts"),
        fact("here.udp_checksum_errors", "count", "UdpInCsumErrors"),
        fact("here.tcp_retransmitted", "count", "TcpRetransSegs"),
        fact("here.reverse_path_filtered", "count", "TcpExtIPReversePathFilter"),
        fact("here.ip6_forwarded", "count", "Ip6OutForwDatagrams"),
        fact("here.ip6_fragments_made", "count", "Ip6FragCreates"),
        fact("here.ip6_no_routes", "count", "Ip6OutNoRoutes"),
        fact("here.icmp6_unreachable_sent", "count", "Icmp6OutDestUnreachs"),
        fact("here.udp6_checksum_errors", "count", "Udp6InCsumErrors"),
        fact("here.conntrack.dropped", "count", "packets dropped because the table was full"),
        fact("here.conntrack.early_dropped", "count", "entries thrown out to make room"),
        fact("here.conntrack.insert_failed", "count", "entries that lost a race"),
        fact("here.forward_dropped", "count", "packets that a drop policy at the forward hook decided"),
        fact("here.named.*", "count", "named nftables counters, as table.name"),
        fact("here.device.*", "count", "received, sent, receive_dropped, send_dropped, send_errors of the device"),
        fact("witness.*", "count", "the same counters at the witness"),
    ],
    decode: decode::<Counters>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counters {
    #[serde(default)]
    ping: Option<Ipv4Addr>,
    #[serde(default = "three")]
    count: u16,
    #[serde(default)]
    device: Option<String>,
}

#[async_trait]
impl Probe for Counters {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        let began = tokio::time::Instant::now();
        let before = self.both(cx).await;
        self.meanwhile(cx, &mut seen).await;
        let after = self.both(cx).await;
        seen.facts.set("seconds", (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        self.differences(&mut seen, "here", before.0.as_ref(), after.0.as_ref());
        self.differences(&mut seen, "witness", before.1.as_ref(), after.1.as_ref());
        seen
    }

    fn target(&self) -> String {
        self.ping.map_or("counters".to_owned(), |address| format!("counters while {address} is asked for echoes"))
    }
}

impl Counters {
    async fn both(&self, cx: &Context) -> (Option<Snapshot>, Option<Snapshot>) {
        let device = self.device.as_deref();
        let witness = async {
            match &cx.witness {
                Some(witness) => Some(Snapshot::read(&witness.net, device, cx.deadline).await),
                None => None,
            }
        };
        let (here, witness) = tokio::join!(Snapshot::read(&cx.vantage.net, device, cx.deadline), witness);
        (Some(here), witness)
    }

    async fn meanwhile(&self, cx: &Context, seen: &mut Observation) {
        let Some(to) = self.ping else {
            tokio::time::sleep(cx.time_left(WINDOW)).await;
            seen.facts.unknown("sent", "no echo was asked for").unknown("received", "no echo was asked for");
            return;
        };
        match Echo::open(&cx.vantage.net) {
            Ok(echo) => {
                let enough = cx.deadline.checked_sub(RESERVE).unwrap_or(cx.deadline);
                let echoes = echo.run(to, self.count, &[0; 56], enough).await;
                seen.facts.set("sent", echoes.sent).set("received", echoes.received());
            }
            Err(reason) => {
                seen.facts.unknown("sent", reason.as_str()).unknown("received", reason);
            }
        }
    }

    fn differences(&self, seen: &mut Observation, place: &str, before: Option<&Snapshot>, after: Option<&Snapshot>) {
        let (Some(before), Some(after)) = (before, after) else {
            for name in snapshot::names().chain(DEVICE) {
                seen.facts.unknown(&format!("{place}.{name}"), "no witness at hand: run with --from both vantages");
            }
            return;
        };
        for (name, reason) in before.unknown.iter().chain(&after.unknown) {
            seen.facts.unknown(&format!("{place}.{name}"), reason.as_str());
        }
        let moved: Vec<String> = changes(&mut seen.facts, place, before, after);
        seen.note("counters", format!("{place}: {}", if moved.is_empty() { "nothing moved".to_owned() } else { moved.join(", ") }));
    }
}

fn changes(facts: &mut Facts, place: &str, before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut moved = Vec::new();
    for (name, then) in &before.values {
        if let Some(now) = after.values.get(name) {
            let difference = now.saturating_sub(*then);
            facts.set(&format!("{place}.{name}"), difference);
            if difference > 0 {
                moved.push(format!("{name} +{difference}"));
            }
        }
    }
    moved
}
