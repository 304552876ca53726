//! The counters of one network namespace at one moment.

use crate::probe::netlink::Netlink;
use crate::probe::nft::{FORWARD, Ruleset};
use crate::vantage::Net;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Fact name, protocol line and name in `/proc/net/snmp` and `/proc/net/netstat` (RFC 1213, proc_net(5)).
const PROTOCOLS: &[(&str, &str, &str)] = &[
    ("ip_forwarded", "Ip:", "ForwDatagrams"),
    ("ip_fragments_made", "Ip:", "FragCreates"),
    ("ip_reassembled", "Ip:", "ReasmOKs"),
    ("ip_reassembly_failed", "Ip:", "ReasmFails"),
    ("ip_no_routes", "Ip:", "OutNoRoutes"),
    ("icmp_unreachable_sent", "Icmp:", "OutDestUnreachs"),
    ("udp_no_ports", "Udp:", "NoPorts"),
    ("udp_checksum_errors", "Udp:", "InCsumErrors"),
    ("tcp_retransmitted", "Tcp:", "RetransSegs"),
    ("reverse_path_filtered", "TcpExt:", "IPReversePathFilter"),
];

/// Fact name and name in `/proc/net/snmp6` (RFC 4293, proc_net(5)), which has one counter per line.
const PROTOCOLS_6: &[(&str, &str)] = &[
    ("ip6_forwarded", "Ip6OutForwDatagrams"),
    ("ip6_fragments_made", "Ip6FragCreates"),
    ("ip6_no_routes", "Ip6OutNoRoutes"),
    ("icmp6_unreachable_sent", "Icmp6OutDestUnreachs"),
    ("udp6_checksum_errors", "Udp6InCsumErrors"),
];

/// Fact name and column in `/proc/net/stat/nf_conntrack`, which has one line per CPU in hexadecimal.
const CONNTRACK: &[(&str, &str)] =
    &[("conntrack.dropped", "drop"), ("conntrack.early_dropped", "early_drop"), ("conntrack.insert_failed", "insert_failed")];

/// Values by fact name, and the reasons why some are not known.
#[derive(Clone, Debug, Default)]
pub(in crate::probe) struct Snapshot {
    pub(in crate::probe) values: BTreeMap<String, u64>,
    pub(in crate::probe) unknown: BTreeMap<String, String>,
}

/// The facts that every snapshot can have, without devices and named counters.
pub(in crate::probe) fn names() -> impl Iterator<Item = &'static str> {
    let protocols = PROTOCOLS.iter().map(|(name, _, _)| *name).chain(PROTOCOLS_6.iter().map(|(name, _)| *name));
    protocols.chain(CONNTRACK.iter().map(|(name, _)| *name)).chain(["forward_dropped"])
}

impl Snapshot {
    /// Reads them all.
    pub(in crate::probe) async fn read(net: &Net, device: Option<&str>, deadline: Instant) -> Self {
        let mut all = Self::default();
        all.protocols(net);
        all.conntrack(net);
        all.firewall(net).await;
        if let Some(device) = device {
            all.device(net, device, deadline).await;
        }
        all
    }

    /// Those of the protocols only.
    pub(in crate::probe) fn protocols_of(net: &Net) -> Self {
        let mut some = Self::default();
        some.protocols(net);
        some
    }

    /// Those of connection tracking only.
    pub(in crate::probe) fn conntrack_of(net: &Net) -> Self {
        let mut some = Self::default();
        some.conntrack(net);
        some
    }

    fn put(&mut self, name: &str, value: Result<u64, String>) {
        match value {
            Ok(value) => self.values.insert(name.to_owned(), value).map(|_| ()),
            Err(reason) => self.unknown.insert(name.to_owned(), reason).map(|_| ()),
        };
    }

    fn protocols(&mut self, net: &Net) {
        let snmp = read(net, "snmp").and_then(|text| Ok(text + &read(net, "netstat")?));
        for (name, protocol, column) in PROTOCOLS {
            let value = snmp.clone().and_then(|text| counter(&text, protocol, column).ok_or(format!("the kernel does not count {column}")));
            self.put(name, value);
        }
        // Without IPv6 in the kernel there is no such file: that is unknown, not 0.
        let six = read(net, "snmp6");
        for (name, column) in PROTOCOLS_6 {
            self.put(name, six.clone().and_then(|text| line(&text, column).ok_or(format!("the kernel does not count {column}"))));
        }
    }

    fn conntrack(&mut self, net: &Net) {
        let stat = read(net, "stat/nf_conntrack");
        for (name, column) in CONNTRACK {
            self.put(name, stat.clone().and_then(|text| column_sum(&text, column).ok_or(format!("conntrack does not count {column}"))));
        }
    }

    async fn firewall(&mut self, net: &Net) {
        let net = net.clone();
        let read = tokio::task::spawn_blocking(move || Ruleset::read(&net)).await;
        match read.unwrap_or_else(|_| Err("the reader of nftables ended badly".to_owned())) {
            Ok(ruleset) => {
                let none = if ruleset.at(FORWARD).any(|c| c.drops) { Err("the chain does not count".to_owned()) } else { Ok(0) };
                self.put("forward_dropped", ruleset.dropped_by_policy(FORWARD).map_or(none, Ok));
                for (name, packets) in ruleset.counters.into_iter().take(256) {
                    self.put(&format!("named.{name}"), Ok(packets));
                }
            }
            Err(reason) => self.put("forward_dropped", Err(reason)),
        }
    }

    async fn device(&mut self, net: &Net, device: &str, deadline: Instant) {
        let devices = match Netlink::open(net, deadline) {
            Ok(netlink) => netlink.devices().await,
            Err(reason) => Err(reason),
        };
        let found = devices.and_then(|all| all.into_iter().find(|d| d.name == device).ok_or(format!("no device {device}")));
        let stats = found.map(|d| d.stats);
        let get = |f: fn(&rtnetlink::packet_route::link::Stats64) -> u64| stats.as_ref().map(f).map_err(Clone::clone);
        let values = [get(|s| s.rx_packets), get(|s| s.tx_packets), get(|s| s.rx_dropped), get(|s| s.tx_dropped), get(|s| s.tx_errors)];
        for (name, value) in DEVICE.iter().zip(values) {
            self.put(name, value);
        }
    }
}

/// The facts of a device.
pub(in crate::probe) const DEVICE: [&str; 5] =
    ["device.received", "device.sent", "device.receive_dropped", "device.send_dropped", "device.send_errors"];

/// `/proc/thread-self/net` follows the namespace of the thread, `/proc/net` that of the process' first thread.
fn read(net: &Net, file: &str) -> Result<String, String> {
    let text = net.with(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))).and_then(|read| read);
    text.map_err(|e| format!("cannot read /proc/net/{file}: {e}"))
}

/// Each protocol has a line of names and below it a line of values.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(protocol));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split(' ').position(|n| n == name)?;
    values.split(' ').nth(place)?.parse().ok()
}

/// A name and a value on each line.
fn line(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '\t'])?.trim().parse().ok())
}

fn column_sum(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let place = lines.next()?.split_whitespace().position(|n| n == name)?;
    let values = lines.map(|line| u64::from_str_radix(line.split_whitespace().nth(place).unwrap_or_default(), 16).ok());
    values.collect::<Option<Vec<_>>>().map(|all| all.into_iter().fold(0, u64::saturating_add))
}

/// For fuzzers: counters that were found in a file of any of the three forms.
pub(in crate::probe) fn kept(text: &str) -> usize {
    let tables = PROTOCOLS.iter().filter(|(_, protocol, column)| counter(text, protocol, column).is_some()).count();
    let lines = PROTOCOLS_6.iter().filter(|(_, column)| line(text, column).is_some()).count();
    tables + lines + CONNTRACK.iter().filter(|(_, column)| column_sum(text, column).is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "Ip: Forwarding ForwDatagrams FragCreates\nIp: 1 42 7\nUdpLite: NoPorts\nUdpLite: 9\nUdp: NoPorts InCsumErrors\nUdp: 3 5\n";
        assert_eq!((counter(text, "Ip:", "FragCreates"), counter(text, "Udp:", "NoPorts")), (Some(7), Some(3)));
        assert_eq!((counter(text, "Ip:", "ReasmOKs"), counter("Ip: A\n", "Ip:", "A")), (None, None));
    }

    #[test]
    fn counters_of_version_6_have_a_line_each() {
        let text = "Ip6InReceives                   \t12\nIp6OutForwDatagrams             \t42\nIp6OutForwDatagramsX\t9\n";
        assert_eq!((line(text, "Ip6OutForwDatagrams"), line(text, "Ip6OutForw"), line(text, "Udp6NoPorts")), (Some(42), None, None));
    }

    #[test]
    fn conntrack_counts_in_hexadecimal_on_every_cpu() {
        let text = "entries  drop early_drop\n00000010  0000000a 00000001\n00000010  00000006 00000000\n";
        assert_eq!((column_sum(text, "drop"), column_sum(text, "early_drop"), column_sum(text, "x")), (Some(16), Some(1), None));
    }
}
