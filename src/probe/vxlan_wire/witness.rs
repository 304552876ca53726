//! The other end: what its underlay sees, and which of its counters move meanwhile.

use super::VxlanWire;
use crate::check::Facts;
use crate::probe::capture::{Capture, Outer};
use crate::probe::netlink::Netlink;
use crate::vantage::{Net, Vantage};
use std::sync::Arc;
use std::time::Instant as StdInstant;
use tokio::time::Instant;

/// A witness that is watching.
pub(super) struct Witness {
    vantage: Arc<Vantage>,
    capture: Result<Capture, String>,
    before: Counters,
}

/// What a witness saw.
pub(super) struct WitnessSaw {
    pub(super) name: String,
    pub(super) packets: Result<Vec<Outer>, String>,
    before: Counters,
    after: Counters,
}

/// Counters of the receiving side at one moment.
struct Counters {
    /// Packets that the VXLAN device received; `None` without the device.
    device_rx: Result<Option<u64>, String>,
    snmp: Result<Snmp, String>,
}

/// Some counters of `/proc/net/snmp` (RFC 1213 names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Snmp {
    forwarded: u64,
    csum_errors: u64,
    no_ports: u64,
}

impl Witness {
    /// Begins to watch.
    pub(super) async fn open(wire: &VxlanWire, vantage: &Arc<Vantage>, marker: &[u8], deadline: Instant, until: StdInstant) -> Self {
        let before = Counters::read(&vantage.net, &wire.device, deadline).await;
        let capture = Capture::start(&vantage.net, &wire.parent, wire.port, marker, until);
        Self { vantage: vantage.clone(), capture, before }
    }

    /// Ends watching.
    pub(super) async fn close(self, wire: &VxlanWire, deadline: Instant) -> WitnessSaw {
        let after = Counters::read(&self.vantage.net, &wire.device, deadline).await;
        let packets = match self.capture {
            Ok(capture) => capture.finish().await,
            Err(reason) => Err(reason),
        };
        WitnessSaw { name: self.vantage.id.clone(), packets, before: self.before, after }
    }
}

impl WitnessSaw {
    /// Records `witness.*`.
    pub(super) fn facts(&self, wire: &VxlanWire, facts: &mut Facts) {
        match &self.packets {
            Ok(packets) => {
                facts.set("witness.arrived", packets.iter().filter(|p| wire.is_request(p)).count());
                facts.set("witness.answered", packets.iter().filter(|p| wire.is_reply(p)).count());
                let first = packets.iter().find(|p| wire.is_request(p));
                facts.set_or_unknown("witness.outer_ttl", first.map(|p| p.ttl), "no packet was seen arriving");
                facts.set_or_unknown("witness.outer_checksum", first.map(|p| p.checksum), "no packet was seen arriving");
            }
            Err(reason) => {
                for path in ["witness.arrived", "witness.answered", "witness.outer_ttl", "witness.outer_checksum"] {
                    facts.unknown(path, reason.as_str());
                }
            }
        }
        self.device_facts(wire, facts);
        match (&self.before.snmp, &self.after.snmp) {
            (Ok(before), Ok(after)) => {
                facts.set("witness.forwarded", after.forwarded.saturating_sub(before.forwarded));
                facts.set("witness.csum_errors", after.csum_errors.saturating_sub(before.csum_errors));
                facts.set("witness.no_ports", after.no_ports.saturating_sub(before.no_ports));
            }
            (Err(reason), _) | (_, Err(reason)) => {
                for path in ["witness.forwarded", "witness.csum_errors", "witness.no_ports"] {
                    facts.unknown(path, reason.as_str());
                }
            }
        }
    }

    fn device_facts(&self, wire: &VxlanWire, facts: &mut Facts) {
        let no_device = format!("no device {} on {}", wire.device, self.name);
        match (&self.before.device_rx, &self.after.device_rx) {
            (Ok(before), Ok(after)) => {
                facts.set("witness.device_present", after.is_some());
                let received = before.zip(*after).map(|(before, after)| after.saturating_sub(before));
                facts.set_or_unknown("witness.device_rx", received, &no_device);
            }
            (Err(reason), _) | (_, Err(reason)) => {
                facts.unknown("witness.device_present", reason.as_str()).unknown("witness.device_rx", reason.as_str());
            }
        }
    }
}

impl Counters {
    async fn read(net: &Net, device: &str, deadline: Instant) -> Self {
        Self { device_rx: device_rx(net, device, deadline).await, snmp: snmp(net) }
    }
}

async fn device_rx(net: &Net, device: &str, deadline: Instant) -> Result<Option<u64>, String> {
    let devices = Netlink::open(net, deadline)?.devices().await?;
    Ok(devices.iter().find(|d| d.name == device).map(|d| d.stats.rx_packets))
}

/// `/proc/thread-self/net` follows the namespace of the thread, `/proc/net` that of the process' first thread.
fn snmp(net: &Net) -> Result<Snmp, String> {
    let text = net.with(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).and_then(|read| read);
    let text = text.map_err(|e| format!("cannot read /proc/net/snmp: {e}"))?;
    Snmp::parse(&text).ok_or_else(|| "/proc/net/snmp lacks a counter".to_owned())
}

impl Snmp {
    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            forwarded: counter(text, "Ip:", "ForwDatagrams")?,
            csum_errors: counter(text, "Udp:", "InCsumErrors")?,
            no_ports: counter(text, "Udp:", "NoPorts")?,
        })
    }
}

/// Each protocol has a line of names and below it a line of values.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(protocol));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|n| n == name)?;
    values.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: Forwarding DefaultTTL InReceives ForwDatagrams\nIp: 1 64 1000 42\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors \
                    SndbufErrors InCsumErrors\nUdp: 9 7 0 5 0 0 3\nUdpLite: InDatagrams NoPorts\nUdpLite: 0 0\n";
        assert_eq!(Snmp::parse(text), Some(Snmp { forwarded: 42, csum_errors: 3, no_ports: 7 }));
        assert_eq!(Snmp::parse("Ip: ForwDatagrams\n"), None);
    }
}
