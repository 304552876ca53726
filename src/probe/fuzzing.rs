//! Entry points of the parsers that fathom itself owns, for fuzzers: any bytes in, a count of what was kept out.
//!
//! `fuzz/` has a target for each (cargo-fuzz, a nightly toolchain); the tests here run all of them over mutations of a real sample
//! with any toolchain. No parser may panic, take long, or keep more than it promises.

use super::{capture, coredns, coredns_pods, der, kube_client, nft, pg_wire, pod_log, prometheus, query, resolv, sse, stun, warp};

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

#[cfg(test)]
mod tests;
