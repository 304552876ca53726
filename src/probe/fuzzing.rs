//! Entry points of the parsers that fathom itself owns, for fuzzers: any bytes in, a count of what was kept out.
//!
//! `fuzz/` has a target for each (cargo-fuzz, a nightly toolchain); the tests here run all of them over mutations of a real sample
//! with any toolchain. No parser may panic, take long, or keep more than it promises.

use super::pmtu::echo::{after_ip_header, sequence_number};
use super::{
    capture, coredns, coredns_pods, counters, der, errqueue, http_proxy, kube_client, netlink, nft, pg_wire, pod_log, prometheus, query,
    resolv, socket, sse, stun, trace, warp,
};

/// A parser.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Parses bytes; returns how many entries, or bytes, it kept of them.
    pub run: fn(&[u8]) -> usize,
    /// The most that it may keep of an input of this many bytes.
    pub most: fn(usize) -> usize,
}

/// Every parser.
pub static TARGETS: &[Target] = &[
    Target { name: "resolv_conf", run: |b| resolv::kept(&text(b)), most: |_| 64 },
    Target { name: "corefile", run: |b| coredns_pods::kept_of_corefile(&text(b)), most: |_| 128 },
    Target { name: "coredns_log", run: |b| coredns_pods::kept_of_log(&text(b)), most: |_| 32 },
    Target { name: "app_log", run: |b| pod_log::kept(&text(b)), most: |_| 18 },
    Target { name: "coredns_metrics", run: |b| coredns::kept(&text(b)), most: |_| 128 },
    Target { name: "kube_pods", run: coredns_pods::kept_of_pods, most: |n| n },
    Target { name: "prometheus", run: |b| prometheus::samples(&text(b)).count(), most: |n| n },
    Target { name: "dns_answer", run: query::kept, most: |_| 16 },
    Target { name: "sse", run: events, most: |n| n },
    Target { name: "pg_wire", run: pg_wire::kept, most: |_| 4 * 505 },
    Target { name: "nft", run: nft::kept, most: |n| n },
    Target { name: "warp_settings", run: warp::kept, most: |n| n },
    Target { name: "vxlan_packet", run: capture::kept, most: |_| 1 },
    Target { name: "certificate", run: der::kept, most: |_| 201 },
    Target { name: "xt_table", run: nft::kept_of_xt, most: |n| n },
    Target { name: "stun", run: stun::kept, most: |_| 1 },
    Target { name: "api_list", run: kube_client::kept_of_list, most: |_| 1000 },
    Target { name: "icmp_reply", run: reply, most: |_| 2 },
    Target { name: "icmp_error", run: error, most: |_| 40 },
    Target { name: "netlink", run: message, most: |_| 1 },
    Target { name: "proc_net", run: |b| counters::kept(&text(b)) + socket::kept(&text(b)), most: |n| n + 32 },
    Target { name: "proxy_variables", run: |b| http_proxy::kept(&text(b)), most: |_| 256 + 8 },
];

/// Runs the parser of a name.
///
/// # Panics
/// If there is no such parser, or if it keeps more than it promises: a fuzzer must notice both.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no parser {name}"));
    let kept = (target.run)(bytes);
    assert!(kept <= (target.most)(bytes.len()), "{name} kept {kept} of {} bytes", bytes.len());
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Bytes of the events of a stream that comes in two pieces.
fn events(bytes: &[u8]) -> usize {
    let mut stream = sse::Sse::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [first, second].into_iter().filter_map(|piece| stream.feed(piece).ok()).flatten().map(|event| event.len().min(bytes.len())).sum()
}

/// A packet that a raw ICMP socket hands over: an echo reply of ours by its mark, and by its identifier.
fn reply(packet: &[u8]) -> usize {
    const OURS: [u8; 4] = [0xfa, 0x70, 0, 1];
    let number = sequence_number(after_ip_header(packet), Some(u16::from_be_bytes([OURS[0], OURS[1]])));
    usize::from(trace::shot::is_echo_reply(packet, OURS)) + usize::from(number.is_some())
}

/// Type and code of an ICMP error, and what it repeats of the packet that it is about.
fn error(bytes: &[u8]) -> usize {
    let (head, packet) = bytes.split_at(bytes.len().min(2));
    let [kind, code] = head else { return 0 };
    errqueue::words(*kind, *code).len() + usize::from(sequence_number(packet, None).is_some())
}

/// A reply of the kernel. Its length is right: the socket's own framing has cut it there.
fn message(bytes: &[u8]) -> usize {
    let mut framed = bytes.to_vec();
    let length = u32::try_from(framed.len()).unwrap_or(u32::MAX);
    if let Some(head) = framed.get_mut(..4) {
        head.copy_from_slice(&length.to_ne_bytes());
    }
    usize::from(netlink::understood(&framed))
}

#[cfg(test)]
mod tests;
