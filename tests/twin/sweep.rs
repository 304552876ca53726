//! Arbitrary pairs of faults. What two faults make together nobody can say in general; what they must not make, one can: no cause
//! is claimed that neither of them has, no cause that is there is called refuted, and what one of them breaks is never called well.
//!
//! Not part of the default run: `cargo test --test twin -- sweep:SEED:COUNT` draws COUNT pairs, the same ones for the same seed;
//! `pair:FAULT:FAULT:VANTAGES` runs one of them again. `--keep=FOLDER` writes the reports of those that fail, `--playbooks=FOLDER`
//! and `--checks=FOLDER` try definitions that are not built in yet.

use super::{NODES, claimed, look, troubled};
use fathom::def::{Catalog, Sources};
use fathom::report::{CauseState, Report, RivalState};
use fathom::twin::Twin;
use fathom::twin::fault::{FAULTS, Fault, parse};
use std::collections::HashSet;
use std::path::Path;

/// Two faults of one twin, in the order in which they are applied, and from where it is looked at.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) faults: [&'static Fault; 2],
    pub(super) from: String,
}

/// Faults that cannot be there together, and why: the one that is applied later takes the place of the other.
const EXCLUSIVE: &[(&[&str], &str)] = &[
    (
        &[
            "forward-policy-drop",
            "forward-policy-drop-docker",
            "iptables-duplicate-rules",
            "networkpolicy-blocks",
            "networkpolicy-drops",
            "networkpolicy-egress",
            "netpol-startup-race",
        ],
        "each writes a node's table `filter` anew",
    ),
    (&["udp8472-blocked", "udp8472-rejected"], "each writes tethys' table `input-filter` anew"),
    (&["tailscale-stopped", "tailscaled-killed", "ts-key-expired"], "calypso's tailscaled has one state"),
    (
        &["egress-ip-differs", "exit-node-without-lan-access", "exit-node-swallows-cluster-cidr", "exit-node-approval-removed"],
        "one of them lets the exit node go, which the others need",
    ),
    (
        &["ts-restart-removes-flannel", "tailscaled-killed", "flannel-recreated-bare", "fdb-missing", "fdb-stale", "neighbour-missing"],
        "without calypso's flannel.1 there are no entries that could be wrong",
    ),
    (
        &["ts-restart-removes-flannel", "tailscaled-killed", "flannel-recreated-bare", "podcidr-route-missing"],
        "the route went with flannel.1",
    ),
    (&["api-server-down", "k3s-cert-expired", "clock-skew"], "there is one API server: away, or with one certificate"),
    (&["k3s-tunnel-gone", "kubelet-san-wrong"], "the way to the kubelet fails in one way"),
    (&["kube-proxy-dead", "kube-proxy-rules-missing", "kube-proxy-stale-dnat"], "each writes calypso's service rules anew"),
    (&["coredns-down", "coredns-loop", "coredns-single-replica-node-down"], "CoreDNS is away for one reason"),
    (&["search-domain-hijack", "ndots-amplification"], "pods inherit one list of search domains"),
    (&["magicdns-in-node-resolv", "k3s-fallback-8888"], "a node has one resolv.conf"),
    (&["captive-portal-or-mitm", "captive-portal-plain", "warp-gateway-policy-or-tls-inspection"], "each writes the gateway's table anew"),
    (&["external-5xx", "cf-524"], "the edge gives one answer"),
    (&["storage-access-denied", "storage-unavailable"], "a pod has one log"),
    (&["pg-not-postgres", "pg-tls-failed"], "one thing answers in the database's place"),
    (&["pg-password-refused", "pg-role-missing"], "a role has one password, or is not there"),
    (&["vllm-queue-full", "vllm-queueing", "vllm-long-prefill-hol", "vllm-preempting"], "the model server has one load"),
    (
        &[
            "vllm-queue-full",
            "vllm-engine-crashed",
            "vllm-metrics-endpoint-wrong",
            "vllm-oom-run",
            "vllm-ocr-repetition",
            "vllm-cpu-bound-preprocessing",
        ],
        "the model server has one trouble",
    ),
    (&["vllm-loading", "vllm-oom-start"], "both close the model server's port"),
];

/// Other causes that a fault brings along where it is not decided: fault, cause, why it is right to claim that one.
const BROUGHT_ALONG: &[(&str, &str, &str)] = &[
    ("vllm-oom-start", "vllm-loading", "from outside of its host a start that fails looks like one that lasts; the title says so"),
    ("netpol-startup-race", "networkpolicy-blocks", "its policy lets calypso's pods in, and keeps the others out by intent"),
];

impl Pair {
    /// As the command line takes it.
    pub(super) fn name(&self) -> String {
        let [a, b] = self.faults;
        format!("pair:{}:{}:{}", a.id, b.id, self.from)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        let [a, b, from] = parts[..] else { return Err(format!("`pair:{text}` is not pair:FAULT:FAULT:VANTAGES")) };
        let faults = parse(&format!("{a},{b}"))?;
        let [a, b] = faults[..] else { return Err(format!("`pair:{text}` names no two faults")) };
        Ok(Self { faults: [a, b], from: from.to_owned() })
    }

    /// Why these two cannot be there together.
    fn exclusive(&self) -> Option<&'static str> {
        let both = |group: &[&str]| self.faults.iter().all(|f| group.contains(&f.id));
        EXCLUSIVE.iter().find(|(group, _)| both(group)).map(|(_, why)| *why)
    }
}

/// The pairs that a word of the command line asks for; none if it is another word.
pub(super) fn asked_for(word: &str) -> Option<Result<Vec<Pair>, String>> {
    if let Some(pair) = word.strip_prefix("pair:") {
        return Some(Pair::parse(pair).map(|pair| vec![pair]));
    }
    let (seed, count) = word.strip_prefix("sweep:")?.split_once(':')?;
    let (Ok(seed), Ok(count)) = (seed.parse(), count.parse()) else {
        return Some(Err(format!("`{word}` is not sweep:SEED:COUNT")));
    };
    Some(Ok(draw(seed, count)))
}

/// So many different pairs that can be there together, from the vantage sets that decide one of their faults or from the nodes.
fn draw(seed: u64, count: usize) -> Vec<Pair> {
    let mut random = SplitMix(seed);
    let mut drawn = HashSet::new();
    let mut pairs = Vec::new();
    while pairs.len() < count && drawn.len() < FAULTS.len() * (FAULTS.len() - 1) {
        let faults = [random.pick(FAULTS), random.pick(FAULTS)];
        let [a, b] = faults;
        if a.id == b.id || !drawn.insert((a.id, b.id)) {
            continue;
        }
        let sets: Vec<&str> = a.decided_from.iter().chain(b.decided_from).copied().chain([NODES]).collect();
        let pair = Pair { faults, from: random.pick(&sets).to_owned() };
        match pair.exclusive() {
            Some(why) => println!("{} passed over: {why}", pair.name()),
            None => pairs.push(pair),
        }
    }
    pairs
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.next() % of.len() as u64).expect("less than a length")]
    }
}

/// Where the command line's `--NAME=FOLDER` points.
fn folder(name: &str) -> Option<String> {
    std::env::args().find_map(|a| a.strip_prefix(&format!("--{name}=")).map(str::to_owned))
}

/// The built-in definitions, and those to be tried.
pub(super) fn sources() -> Sources {
    let all = |name| folder(name).into_iter().map(Into::into).collect();
    Sources { inventory: None, checks: all("checks"), playbooks: all("playbooks") }
}

pub(super) async fn run(pair: &Pair, twin: &Twin, catalog: &Catalog) -> Result<(), String> {
    for fault in pair.faults {
        if let Err(why) = fault.apply(twin).await {
            println!("{} passed over: {} cannot be applied here: {why:#}", pair.name(), fault.id);
            return Ok(());
        }
    }
    let report = look(twin, catalog, &pair.from).await?;
    let wrong = wrong(pair, &report);
    if wrong.is_empty() {
        return Ok(());
    }
    if let Some(folder) = folder("keep") {
        let file = Path::new(&folder).join(pair.name().replace(['/', ':'], "_")).with_extension("json");
        std::fs::write(file, serde_json::to_vec_pretty(&report).expect("a report is JSON")).map_err(|e| e.to_string())?;
    }
    let (exit, claimed) = (report.run.exit_code, claimed(&report));
    Err(format!("{}\nexit {exit}; claimed: {claimed}\nunexplained: {:?}\n{}", wrong.join("\n"), report.unexplained, troubled(&report)))
}

/// What must not be in the report of a pair, and is.
fn wrong(pair: &Pair, report: &Report) -> Vec<String> {
    let causes: Vec<&str> = pair.faults.iter().filter_map(|f| f.cause()).collect();
    let brought = |code: &str| BROUGHT_ALONG.iter().any(|(fault, cause, _)| *cause == code && pair.faults.iter().any(|f| f.id == *fault));
    let supported = report.diagnoses.iter().filter(|d| d.state == CauseState::Supported).map(|d| d.code.as_str());
    let third = supported.filter(|code| !causes.contains(code) && !brought(code)).map(|code| format!("neither has the cause {code}"));
    let decided = |f: &&Fault| f.cause().is_some() && f.decided_from.contains(&pair.from.as_str());
    // Where a fault is not decided it may harm others only, and be ruled out for whom one asks.
    let seen = |code: &str| pair.faults.into_iter().any(|f| f.cause() == Some(code) && decided(&f));
    let rivals = report.diagnoses.iter().flat_map(|d| &d.rivals);
    let refuted = rivals.filter(|r| r.state == RivalState::Refuted && seen(&r.code));
    let refuted = refuted.map(|r| format!("{} is there and called refuted: {}", r.code, r.because));
    let called_well = pair.faults.into_iter().find(|f| decided(f) && report.run.exit_code == 0);
    let called_well = called_well.map(|f| format!("exit 0, although {} is seen from there", f.id));
    let mut wrong: Vec<String> = third.chain(refuted).chain(called_well).collect();
    wrong.dedup();
    wrong
}
