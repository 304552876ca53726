//! `vxlan-wire`: echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand.

mod witness;

use super::capture::{Capture, Outer};
use super::icmp::{Echo, Echoes, three};
use super::netlink::Netlink;
use super::{Context, Kind, Probe, decode, fact, udp};
use crate::check::{Facts, Observation};
use async_trait::async_trait;
use pnet::packet::icmp::IcmpTypes;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use witness::{Witness, WitnessSaw};

/// Length of the echo requests' data, as ping(8) sends it.
const DATA: usize = 56;

/// The first bytes of the data, unlike any other run's.
const MARKER: usize = 16;

/// Time kept back for ending the captures and reading the counters once more.
const RESERVE: Duration = Duration::from_millis(400);

/// Echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand.
pub(super) static KIND: Kind = Kind {
    name: "vxlan-wire",
    root: "wire",
    about: "Echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand",
    privilege: Some("CAP_NET_RAW for the capture"),
    args: &[
        ("device", "VXLAN device"),
        ("parent", "underlay device"),
        ("port", "outer UDP port"),
        ("vni", "VXLAN network identifier"),
        ("to", "inner destination address"),
        ("count", "number of echo requests (3)"),
    ],
    facts: &[
        fact("sent", "count", "echo requests sent"),
        fact("echoes", "count", "replies received"),
        fact("late", "count", "replies that took more than a second"),
        fact("rtt_median_ms", "ms", "median round trip of the replies"),
        fact("error", "text", "errno of the last echo request that could not be sent; empty if none"),
        fact("left", "count", "outer packets seen leaving on the underlay"),
        fact("returned", "count", "outer packets seen coming back on the underlay"),
        fact("vni", "number", "VNI seen in the outer packets that left"),
        fact("outer_source", "address", "outer source"),
        fact("outer_destination", "address", "outer destination"),
        fact("outer_ttl", "hops", "outer TTL"),
        fact("outer_checksum", "text", "outer UDP checksum: `none` (0), `right`, `unfinished` (left to the device), `wrong` or `cut`"),
        fact("inner_mac", "text", "inner destination hardware address"),
        fact("last_seen", "text", "where the request was last seen, in words"),
        fact(
            "other_port_refused_by",
            "address",
            "who refuses a datagram to the port beside the outer one, at the same address; asked where packets left and none arrived",
        ),
        fact("witness.arrived", "count", "outer packets seen arriving at the witness' underlay"),
        fact("witness.answered", "count", "outer packets seen leaving the witness"),
        fact("witness.outer_ttl", "hops", "outer TTL on arrival at the witness' underlay"),
        fact("witness.outer_checksum", "text", "outer UDP checksum there, in the same words"),
        fact("witness.device_present", "bool", "the witness has the VXLAN device"),
        fact("witness.device_rx", "count", "packets that the witness' VXLAN device received meanwhile"),
        fact("witness.forwarded", "count", "IpForwDatagrams of the witness meanwhile"),
        fact("witness.csum_errors", "count", "UdpInCsumErrors of the witness meanwhile"),
        fact("witness.no_ports", "count", "UdpNoPorts of the witness meanwhile"),
    ],
    decode: decode::<VxlanWire>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VxlanWire {
    device: String,
    parent: String,
    port: u16,
    vni: u32,
    to: Ipv4Addr,
    #[serde(default = "three")]
    count: u16,
}

#[async_trait]
impl Probe for VxlanWire {
    async fn observe(&self, cx: &Context) -> Observation {
        let echo = match Echo::open(&cx.vantage.net) {
            Ok(echo) => echo,
            Err(reason) => return Observation::could_not_look(reason),
        };
        let data = data();
        let until = cx.deadline.into_std() + Duration::from_secs(1);
        let capture = self.capture_here(cx, &data[..MARKER], until).await;
        let witness = match &cx.witness {
            Some(vantage) => Some(Witness::open(self, vantage, &data[..MARKER], cx.deadline, until).await),
            None => None,
        };
        let enough = cx.deadline.checked_sub(RESERVE).unwrap_or(cx.deadline);
        let echoes = echo.run(self.to, self.count, &data, enough).await;
        let here = match capture {
            Ok(capture) => capture.finish().await,
            Err(reason) => Err(reason),
        };
        let witness = match witness {
            Some(witness) => Some(witness.close(self, cx.deadline).await),
            None => None,
        };
        let other_port = self.other_port(cx, &here, witness.as_ref()).await;
        let mut seen = self.report(&cx.vantage.id, &echoes, here, witness);
        seen.facts.set_or_unknown(
            "other_port_refused_by",
            other_port.as_ref().ok().map(ToString::to_string),
            other_port.as_ref().err().map_or("", String::as_str),
        );
        seen
    }

    fn target(&self) -> String {
        format!("{} through {} (VNI {}, UDP {} on {})", self.to, self.device, self.vni, self.port, self.parent)
    }
}

impl VxlanWire {
    async fn capture_here(&self, cx: &Context, marker: &[u8], until: Instant) -> Result<Capture, String> {
        let devices = Netlink::open(&cx.vantage.net, cx.deadline)?.devices().await?;
        for name in [&self.device, &self.parent] {
            if !devices.iter().any(|d| &d.name == name) {
                return Err(format!("no device {name}"));
            }
        }
        Capture::start(&cx.vantage.net, &self.parent, self.port, marker, until)
    }

    /// Whether only the VXLAN port is swallowed on the way: the port beside it, which nobody listens to, must be refused by the
    /// destination itself.
    async fn other_port(&self, cx: &Context, here: &Result<Vec<Outer>, String>, witness: Option<&WitnessSaw>) -> Result<Ipv4Addr, String> {
        let left = here.iter().flatten().find(|p| self.is_request(p));
        let arrived = witness.and_then(|w| w.packets.as_ref().ok()).map(|packets| packets.iter().any(|p| self.is_request(p)));
        let (Some(left), Some(false)) = (left, arrived) else { return Err("asked only where packets leave and none arrives".to_owned()) };
        let beside = SocketAddrV4::new(left.destination, self.port.wrapping_add(1));
        udp::refused_by(&cx.vantage.net, beside, cx.deadline).await
    }

    fn is_request(&self, packet: &Outer) -> bool {
        packet.icmp == IcmpTypes::EchoRequest && packet.inner_destination == self.to
    }

    fn is_reply(&self, packet: &Outer) -> bool {
        packet.icmp == IcmpTypes::EchoReply && packet.inner_source == self.to
    }

    fn report(&self, vantage: &str, echoes: &Echoes, here: Result<Vec<Outer>, String>, witness: Option<WitnessSaw>) -> Observation {
        let mut seen = Observation::default();
        let facts = &mut seen.facts;
        facts.set("sent", echoes.sent).set("echoes", echoes.received()).set("late", echoes.late()).set("error", echoes.error.as_str());
        facts.set_or_unknown("rtt_median_ms", echoes.median_ms(), "no reply");
        self.capture_facts(facts, &here);
        match &witness {
            Some(witness) => witness.facts(self, facts),
            None => {
                for doc in KIND.facts.iter().filter(|doc| doc.path.starts_with("witness.")) {
                    facts.unknown(doc.path, "no witness at hand: run with --from both nodes");
                }
            }
        }
        let reason = here.as_ref().err().map_or("", |e| e.as_str());
        let place = self.last_seen(facts, vantage, witness.as_ref().map(|w| w.name.as_str()));
        facts.set_or_unknown("last_seen", place, reason);
        for packet in here.iter().flatten().take(8) {
            seen.note("packet", format!("{vantage}: {}", describe(packet)));
        }
        for (name, packet) in witness.iter().flat_map(|w| w.packets.iter().flatten().map(|p| (&w.name, p))).take(8) {
            seen.note("packet", format!("{name}: {}", describe(packet)));
        }
        seen
    }

    fn capture_facts(&self, facts: &mut Facts, here: &Result<Vec<Outer>, String>) {
        let packets = match here {
            Ok(packets) => packets,
            Err(reason) => {
                for path in ["left", "returned", "vni", "outer_source", "outer_destination", "outer_ttl", "outer_checksum", "inner_mac"] {
                    facts.unknown(path, reason.as_str());
                }
                return;
            }
        };
        facts.set("left", packets.iter().filter(|p| self.is_request(p)).count());
        facts.set("returned", packets.iter().filter(|p| self.is_reply(p)).count());
        let first = packets.iter().find(|p| self.is_request(p));
        let reason = "no packet was seen leaving";
        facts.set_or_unknown("vni", first.map(|p| p.vni), reason);
        facts.set_or_unknown("outer_source", first.map(|p| p.source.to_string()), reason);
        facts.set_or_unknown("outer_destination", first.map(|p| p.destination.to_string()), reason);
        facts.set_or_unknown("outer_ttl", first.map(|p| p.ttl), reason);
        facts.set_or_unknown("outer_checksum", first.map(|p| p.checksum), reason);
        facts.set_or_unknown("inner_mac", first.map(|p| p.inner_mac.as_str()), reason);
    }

    /// The farthest place at which the request (or its reply) was seen; `None` if nothing could watch.
    fn last_seen(&self, facts: &Facts, vantage: &str, witness: Option<&str>) -> Option<String> {
        let count = |path: &str| facts.get(path).and_then(|v| v.as_i64());
        let some = |path: &str| count(path).is_some_and(|n| n > 0);
        let witness = witness.unwrap_or_default();
        if !some("sent") {
            Some("not sent".to_owned())
        } else if some("echoes") {
            Some("echoed".to_owned())
        } else if some("returned") {
            Some(format!("returned to {vantage}"))
        } else if some("witness.answered") {
            Some(format!("answered by {witness}"))
        } else if some("witness.arrived") && some("witness.device_rx") {
            Some(format!("reached {witness}'s {}", self.device))
        } else if some("witness.arrived") {
            Some(format!("arrived at {witness}'s underlay"))
        } else if some("left") {
            Some(format!("left {vantage}"))
        } else {
            count("left").map(|_| format!("sent, not seen leaving {}", self.parent))
        }
    }
}

/// Data of the echo requests. Replies repeat it (RFC 792), so it tells our own packets from those of other programs and
/// of other probes.
fn data() -> [u8; DATA] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let once = (u64::from(clock) << 32 | u64::from(std::process::id())) ^ (NEXT.fetch_add(1, Ordering::Relaxed) << 24);
    let mut data = [b'.'; DATA];
    data[..8].copy_from_slice(b"fathom\0\0");
    data[8..MARKER].copy_from_slice(&once.to_be_bytes());
    data
}

fn describe(packet: &Outer) -> String {
    let what = match packet.icmp {
        IcmpTypes::EchoRequest => "echo request".to_owned(),
        IcmpTypes::EchoReply => "echo reply".to_owned(),
        other => format!("ICMP type {}", other.0),
    };
    let Outer { source, destination, ttl, checksum, vni, inner_mac, inner_source, inner_destination, .. } = packet;
    format!(
        "{source} -> {destination} TTL {ttl} checksum {checksum} VNI {vni}, inner {inner_source} -> {inner_destination} to {inner_mac}, {what}"
    )
}

#[cfg(test)]
mod tests;
