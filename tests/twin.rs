//! The twin matrix: the healthy twin from every vantage, each fault from every vantage set that suffices for it, what
//! is left after it is mended, and pairs of faults. Real packets, in one process that enters private namespaces before
//! its first thread exists; so it has a `main` of its own, and runs as root and as an ordinary user.
//!
//! `cargo test --test twin -- WORD..` runs the cases whose names hold one of the words; [`sweep`] has more.

#[path = "twin/sweep.rs"]
mod sweep;

use fathom::check::Verdict;
use fathom::def::{Catalog, Inventory, Sources};
use fathom::report::build::{FailOn, build};
use fathom::report::{CauseState, CheckReport, Report, RivalState};
use fathom::run::{Filter, Limits, Plan, Run, start};
use fathom::twin::Twin;
use fathom::twin::fault::{FAULTS, Fault};
use fathom::vantage::select::of_the_twin;
use fathom::vantage::{Source, Vantage};
use futures::StreamExt;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Twins at work at once: they wait for timeouts, and two cores are busy with these. Many more would fill the kernel's neighbour
/// table, which all namespaces share (gc_thresh3): ENOBUFS.
const AT_ONCE: usize = 8;

#[derive(Clone)]
enum Case {
    Healthy(&'static str),
    Fault(&'static Fault, &'static str),
    Mended(&'static Fault),
    Undecided(&'static Fault, &'static str),
    Pair(&'static Fault, &'static Fault, &'static str),
    /// Any two, of which nothing else may be claimed.
    Sweep(sweep::Pair),
    Viewer(&'static str),
    Drift(&'static Fault, &'static str, &'static str),
    OnModelHost(Option<&'static Fault>),
    /// Flannel on the underlay, outside of the tailnet.
    OnUnderlay(Option<&'static Fault>),
}

impl Case {
    fn name(&self) -> String {
        match self {
            Self::Healthy(from) => format!("healthy from {from}"),
            Self::Fault(fault, from) => format!("{} from {from}", fault.id),
            Self::Undecided(fault, from) => format!("{} undecided from {from}", fault.id),
            Self::Mended(fault) => format!("{} mended", fault.id),
            Self::Pair(a, b, _) => format!("{} and {}", a.id, b.id),
            Self::Sweep(pair) => pair.name(),
            Self::Viewer(from) => format!("viewer from {from}"),
            Self::Drift(fault, from, _) => format!("{} drift from {from}", fault.id),
            Self::OnUnderlay(fault) => format!("{} with flannel on the underlay", fault.map_or("healthy", |f| f.id)),
            Self::OnModelHost(fault) => format!("{} on the model server's host", fault.map_or("healthy", |f| f.id)),
        }
    }

    /// What its twin has from the start; a pair of a sweep says itself where one cannot be applied.
    fn faults(&self) -> Vec<&'static Fault> {
        match self {
            Self::Healthy(_) | Self::Viewer(_) | Self::Sweep(_) => Vec::new(),
            Self::Fault(fault, _) | Self::Mended(fault) | Self::Undecided(fault, _) | Self::Drift(fault, ..) => vec![fault],
            Self::Pair(a, b, _) => vec![a, b],
            Self::OnModelHost(fault) | Self::OnUnderlay(fault) => fault.iter().copied().collect(),
        }
    }

    /// The fault whose twin it shares with the other cases of that fault.
    fn shares(&self) -> Option<&'static str> {
        match self {
            Self::Fault(fault, _) | Self::Mended(fault) | Self::Undecided(fault, _) | Self::Drift(fault, ..) => Some(fault.id),
            _ => None,
        }
    }
}

const NODES: &str = "calypso,tethys";
const WITH_WORKSTATION: &str = "calypso,tethys,workstation";

/// Faults far enough from each other that both must be named, from the nodes and from where else one of them is seen.
const PAIRS: &[(&str, &str, &str)] = &[
    ("endpoints-empty-selector", "pg-allowlist-drop", NODES),
    ("exit-node-without-lan-access", "endpoints-empty-selector", NODES),
    ("ip-forward-zero", "pg-source-refused-by-gateway", NODES),
    ("egress-ip-differs", "vllm-engine-dead-health-ok", NODES),
    ("flannel-recreated-bare", "pg-source-refused-by-gateway", NODES),
    ("vllm-queueing", "pg-tls-required", NODES),
    ("vllm-wrong-model-name", "external-5xx", NODES),
    ("vllm-ocr-repetition", "pg-too-many-clients", NODES),
    ("vllm-slow-path", "storage-unavailable", NODES),
    ("derp-relay", "pg-allowlist-drop", NODES),
    ("derp-relay", "warp-split-tunnel-excludes-cidr", WITH_WORKSTATION),
    ("derp-relay", "cloudflared-route-or-origin-dial", WITH_WORKSTATION),
    ("exit-node-approval-removed", "cloudflared-no-quic", WITH_WORKSTATION),
    ("exit-node-approval-removed", "warp-dns-fallback", WITH_WORKSTATION),
    ("tailscale-stopped", "warp-split-tunnel-excludes-cidr", WITH_WORKSTATION),
    // Both nodes then have the same hardware address, and each takes the other's packets for its own.
    ("stale-vtep-mac", "stale-vtep-mac-not-learnt", NODES),
    ("rp-filter-strict", "warp-split-tunnel-excludes-cidr", WITH_WORKSTATION),
];

/// Vantage sets that cannot know: nothing may be claimed, and the right cause must be among the possible ones.
const UNDECIDED: &[(&str, &str)] = &[
    ("udp8472-blocked", "calypso"),
    ("vxlan-bad-outer-checksum", "calypso"),
    ("stale-vtep-mac", "tethys"),
    ("fwmark-collision", "calypso"),
    ("networkpolicy-drops", "calypso"),
    ("networkpolicy-egress", "pod:apps/md-query-proxy"),
    ("networkpolicy-drops", "pod:apps/md-query-proxy"),
    ("internal-traffic-policy-local", "workstation"),
];

/// Where a fault hurts nobody and differs from the document: a warning with this code, and nothing else.
const DRIFT: &[(&str, &str, &str)] = &[("networkpolicy-drops", "tethys", "network-policy-undocumented")];

fn cases() -> Vec<Case> {
    let find = |id: &str| FAULTS.iter().copied().find(|f| f.id == id).unwrap_or_else(|| panic!("no fault {id}"));
    let healthy =
        ["calypso", "tethys", "workstation", "ci", "pod:apps/csv-ingestion-worker", "pod:apps/md-query-proxy", "calypso,tethys", "all"];
    let healthy = healthy.into_iter().map(Case::Healthy);
    let faults = FAULTS.iter().flat_map(|f| f.decided_from.iter().map(|from| Case::Fault(f, from)));
    let mended = FAULTS.iter().map(|f| Case::Mended(f));
    let pairs = PAIRS.iter().map(|(a, b, from)| Case::Pair(find(a), find(b), from));
    let undecided = UNDECIDED.iter().map(|(id, from)| Case::Undecided(find(id), from));
    let drift = DRIFT.iter().map(|(id, from, code)| Case::Drift(find(id), from, code));
    let on_model_host = [None, Some(find("vllm-oom-start")), Some(find("vllm-loading"))].into_iter().map(Case::OnModelHost);
    let on_underlay = [None, Some(find("udp8472-eaten-by-hypervisor")), Some(find("udp8472-blocked"))].into_iter().map(Case::OnUnderlay);
    let viewers = ["calypso", "tethys"].into_iter().map(Case::Viewer);
    healthy
        .chain(faults)
        .chain(undecided)
        .chain(drift)
        .chain(mended)
        .chain(pairs)
        .chain(viewers)
        .chain(on_model_host)
        .chain(on_underlay)
        .collect()
}

fn main() -> ExitCode {
    fathom::vantage::netns::enter_private().expect("the twin needs network namespaces: run as root, or allow unprivileged user namespaces");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let swept = words.iter().filter_map(|w| sweep::asked_for(w)).map(|pairs| pairs.unwrap_or_else(|e| panic!("{e}")));
    let swept: Vec<Case> = swept.flatten().map(Case::Sweep).collect();
    let named = |c: &Case| words.is_empty() || words.iter().any(|w| c.name().contains(w));
    let cases: Vec<Case> = cases().into_iter().filter(named).chain(swept).collect();
    if std::env::args().any(|a| a == "--list") {
        cases.iter().for_each(|c| println!("{}: test", c.name()));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} cases of the twin matrix", cases.len());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build().expect("runtime");
    let catalog = Arc::new(Catalog::load(&sweep::sources()).unwrap_or_else(|f| panic!("the built-in catalogue has faults: {f:?}")));
    let failures = runtime.block_on(run_all(cases, catalog));
    println!("\ntwin matrix: {}. {} failed\n", if failures.is_empty() { "ok" } else { "FAILED" }, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cases that one twin serves, one after the other: every look at a fault, and at last what is left when it is mended. To build
/// a twin and to take it down costs the kernel as much as a look.
fn by_twin(cases: Vec<Case>) -> Vec<Vec<Case>> {
    let mut twins: Vec<Vec<Case>> = Vec::new();
    for case in cases {
        match twins.iter_mut().find(|twin| case.shares().is_some() && twin[0].shares() == case.shares()) {
            Some(twin) => twin.push(case),
            None => twins.push(vec![case]),
        }
    }
    twins
}

async fn run_all(cases: Vec<Case>, catalog: Arc<Catalog>) -> Vec<String> {
    let twins = futures::stream::iter(by_twin(cases)).map(|cases| run_twin(cases, catalog.clone()));
    twins.buffer_unordered(AT_ONCE).map(futures::stream::iter).flatten().collect().await
}

/// Runs cases one after the other in one twin, and names those that fail.
async fn run_twin(cases: Vec<Case>, catalog: Arc<Catalog>) -> Vec<String> {
    let mut began = Instant::now();
    let stage = unless_it_panics(set_up(cases[0].clone(), catalog)).await.map(Arc::new);
    let mut failed = Vec::new();
    for case in cases {
        let name = case.name();
        let outcome = match stage.clone() {
            Ok(stage) => unless_it_panics(async move { run_case(&case, &stage.twin, &stage.catalog).await }).await,
            Err(why) => Err(why),
        };
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("test {name} ... ok ({took:.1} s)"),
            Err(why) => {
                println!("test {name} ... FAILED ({took:.1} s)\n    {}", why.replace('\n', "\n    "));
                failed.push(name);
            }
        }
        began = Instant::now();
    }
    failed
}

async fn unless_it_panics<T: Send + 'static>(future: impl Future<Output = Result<T, String>> + Send + 'static) -> Result<T, String> {
    tokio::spawn(future).await.unwrap_or_else(|panic| Err(format!("panicked: {panic}")))
}

/// A twin, and the catalogue whose inventory it is built from.
struct Stage {
    twin: Twin,
    catalog: Arc<Catalog>,
}

async fn set_up(case: Case, catalog: Arc<Catalog>) -> Result<Stage, String> {
    let catalog = if matches!(case, Case::OnUnderlay(_)) { Arc::new(on_underlay()?) } else { catalog };
    let twin = Twin::start(catalog.inventory.clone(), &[]).await.map_err(|e| format!("{e:#}"))?;
    for fault in case.faults() {
        fault.apply(&twin).await.map_err(|e| format!("{e:#}"))?;
    }
    Ok(Stage { twin, catalog })
}

/// The catalogue with an inventory whose flannel runs on the nodes' own network; both nodes are reached there.
fn on_underlay() -> Result<Catalog, String> {
    let mut catalog = Catalog::load(&Sources::default()).map_err(|f| format!("{f:?}"))?;
    let mut inventory = Inventory::clone(&catalog.inventory);
    inventory.overlay.parent = "eth0".to_owned();
    // With an exit node what VXLAN sends to public addresses would go through the tailnet all the same.
    inventory.tailnet.exit_node = None;
    for node in inventory.nodes.iter_mut().filter(|n| n.lan.is_some()) {
        (node.public, node.lan, node.lan_cidr) = (Some(SECOND), None, None);
    }
    inventory.vllms.clear();
    inventory.warp = None;
    catalog.inventory = Arc::new(inventory);
    Ok(catalog)
}

/// calypso's address where it has one of its own on the internet (RFC 5737).
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 60);

async fn run_case(case: &Case, twin: &Twin, catalog: &Catalog) -> Result<(), String> {
    match case {
        Case::Healthy(from) => clean(&look(twin, catalog, from).await?),
        Case::Fault(fault, from) => {
            let report = look(twin, catalog, from).await?;
            no_whisper(&report, fault)?;
            fault.cause().map_or_else(|| clean(&report), |cause| names(&report, &[cause]))
        }
        Case::Undecided(fault, from) => undecided(&look(twin, catalog, from).await?, fault.expects),
        Case::Drift(_, from, code) => drifts(&look(twin, catalog, from).await?, code),
        Case::Mended(fault) => {
            fault.undo(twin).await.map_err(|e| format!("{e:#}"))?;
            clean(&look(twin, catalog, NODES).await?)
        }
        Case::Pair(a, b, from) => names(&look(twin, catalog, from).await?, &[a.expects, b.expects]),
        Case::Sweep(pair) => sweep::run(pair, twin, catalog).await,
        Case::OnModelHost(fault) => {
            let here = twin.model_host().ok_or("the twin has no model server")?;
            let only = Filter { checks: vec!["vllm".to_owned()], ..Filter::default() };
            let report = look_at(vec![here], catalog, "workstation", &only).await?;
            fault.map_or_else(|| clean(&report), |fault| names(&report, &[fault.expects]))
        }
        Case::OnUnderlay(fault) => {
            let what = Filter { playbooks: vec!["pods-unreachable".to_owned()], ..Filter::default() };
            let report = look_at(twin.vantages(), catalog, NODES, &what).await?;
            fault.map_or_else(|| clean(&report), |fault| names(&report, &[fault.expects]))
        }
        Case::Viewer(from) => {
            let mut vantages = twin.vantages();
            let kubeconfig = twin.servers.viewer_kubeconfig();
            vantages.iter_mut().for_each(|v| v.files.kubeconfig = Some(Source::Text(kubeconfig.to_owned())));
            needs_more(&look_from(vantages, catalog, from).await?)
        }
    }
}

async fn look(twin: &Twin, catalog: &Catalog, from: &str) -> Result<Report, String> {
    look_from(twin.vantages(), catalog, from).await
}

async fn look_from(vantages: Vec<Vantage>, catalog: &Catalog, from: &str) -> Result<Report, String> {
    look_at(vantages, catalog, from, &Filter::default()).await
}

async fn look_at(vantages: Vec<Vantage>, catalog: &Catalog, from: &str, what: &Filter) -> Result<Report, String> {
    let vantages = of_the_twin(Some(from), vantages)?;
    let plan = Plan::make(catalog, &vantages, what)?;
    let mut running = start(plan, catalog, Limits { timeout: Duration::from_secs(90), ..Limits::default() });
    let mut run = Run::new();
    while let Some(event) = running.events.recv().await {
        run.apply(&event);
    }
    Ok(build(&run, catalog, FailOn::default()))
}

/// What is wrong with the network as it is documented, and so with the healthy twin too: a K3s version that is exposed to losing
/// flannel.1, and a Worker that sends PDF files where the model server takes images. Check, and the expectation that does not hold.
const DOCUMENTED_WARNINGS: &[(&str, &str)] = &[("k3s-version", "k3s-loses-flannel"), ("ocr-page", "ocr-pdf-as-image")];

fn documented(check: &CheckReport) -> bool {
    let broken: Vec<&str> = check.expectations.iter().filter(|e| e.held != Some(true)).map(|e| e.code.as_str()).collect();
    check.outcome == Verdict::Warn && DOCUMENTED_WARNINGS.iter().any(|(id, code)| *id == check.check && broken == [*code])
}

/// Nothing that a probe saw holds the fault's name: the diagnosis must come from evidence.
fn no_whisper(report: &Report, fault: &Fault) -> Result<(), String> {
    let told = report.checks.iter().find(|c| {
        let seen = format!("{} {}", c.facts, c.evidence.iter().map(|e| e.text.as_str()).collect::<String>());
        seen.contains(fault.id) || fault.cause().is_some_and(|cause| seen.contains(cause))
    });
    told.map_or(Ok(()), |c| Err(format!("{} shows the name of the fault {}", c.id, fault.id)))
}

/// Nothing fails, nothing is unknown or blocked, nothing is claimed, and something passes.
fn clean(report: &Report) -> Result<(), String> {
    let bad: Vec<String> = report
        .checks
        .iter()
        .filter(|c| !matches!(c.outcome, Verdict::Pass | Verdict::Skip))
        .filter(|c| !documented(c))
        .map(|c| format!("{} is {}: {}", c.id, c.outcome, c.reason.clone().unwrap_or_default()))
        .collect();
    if !bad.is_empty() || !report.diagnoses.is_empty() || report.run.exit_code != 0 || report.summary.pass == 0 || !report.run.complete {
        return Err(format!("not clean (exit {}):\n{}\nclaimed: {}", report.run.exit_code, bad.join("\n"), claimed(report)));
    }
    Ok(())
}

/// Nothing fails, nothing is claimed, and what differs is told with a code.
fn drifts(report: &Report, code: &str) -> Result<(), String> {
    let told = |c: &CheckReport| c.outcome == Verdict::Warn && c.expectations.iter().any(|e| e.code == code && e.held == Some(false));
    let failing = report.checks.iter().filter(|c| c.outcome == Verdict::Fail).count();
    if report.checks.iter().any(told) && failing == 0 && report.diagnoses.is_empty() && report.run.exit_code == 0 {
        return Ok(());
    }
    Err(format!("expected a warning {code}, got exit {} with {failing} failing; claimed: {}", report.run.exit_code, claimed(report)))
}

/// Checks that need more than listing nodes, services and endpoint slices, and what a user with no more is told.
const NEEDS_MORE: &[(&str, &str)] = &[
    ("kubelet-logs", "403 Forbidden (list pods)"),
    ("coredns-pods", "403 Forbidden (list pods)"),
    ("coredns-log", "403 Forbidden (list pods)"),
    ("network-policy", "403 Forbidden (list networkpolicies)"),
    ("app-log", "403 Forbidden (list pods)"),
];

/// Exactly the checks that need more are unknown, with verb and resource; nothing fails and nothing is claimed.
fn needs_more(report: &Report) -> Result<(), String> {
    let reason = |c: &CheckReport| c.reason.clone().unwrap_or_default();
    let right = |c: &CheckReport| match NEEDS_MORE.iter().find(|(check, _)| *check == c.check) {
        Some((_, told)) => c.outcome == Verdict::Skip || (c.outcome == Verdict::Unknown && reason(c).contains(told)),
        None => matches!(c.outcome, Verdict::Pass | Verdict::Skip) || documented(c),
    };
    let wrong: Vec<String> =
        report.checks.iter().filter(|c| !right(c)).map(|c| format!("{} is {}: {}", c.id, c.outcome, reason(c))).collect();
    let unknown = report.checks.iter().filter(|c| c.outcome == Verdict::Unknown).count();
    if wrong.is_empty() && unknown > 0 && report.run.exit_code == 3 && report.diagnoses.is_empty() {
        return Ok(());
    }
    Err(format!("exit {}, {unknown} unknown\n{}\nclaimed: {}", report.run.exit_code, wrong.join("\n"), claimed(report)))
}

/// The first diagnosis is the expected one, every expected one is supported with evidence, and no other is.
fn names(report: &Report, expected: &[&str]) -> Result<(), String> {
    let supported: Vec<&str> = report.diagnoses.iter().filter(|d| d.state == CauseState::Supported).map(|d| d.code.as_str()).collect();
    let first = report.diagnoses.first().map(|d| d.code.as_str());
    let all_there = expected.iter().all(|e| supported.contains(e)) && supported.iter().all(|s| expected.contains(s));
    let first_is_right = first.is_some_and(|f| expected.contains(&f));
    let proven = report
        .diagnoses
        .iter()
        .filter(|d| d.state == CauseState::Supported)
        .all(|d| d.supports.iter().all(|s| s.held == Some(true) && !s.values.is_empty()));
    if all_there && first_is_right && proven && report.run.exit_code == 1 && report.unexplained.is_empty() {
        return Ok(());
    }
    Err(format!(
        "expected {expected:?} (exit 1), got exit {}\nclaimed: {}\nunexplained: {:?}\n{}",
        report.run.exit_code,
        claimed(report),
        report.unexplained,
        troubled(report)
    ))
}

/// Nothing is claimed, and what it is stands among what it may be.
fn undecided(report: &Report, expected: &str) -> Result<(), String> {
    let claims = report.diagnoses.iter().any(|d| d.state == CauseState::Supported);
    let mut rivals = report.diagnoses.iter().flat_map(|d| &d.rivals);
    if let Some(refuted) = rivals.find(|r| r.state == RivalState::Refuted && r.code == expected) {
        return Err(format!("{expected} is there and called refuted: {}", refuted.because));
    }
    if !claims && report.diagnoses.iter().any(|d| d.code == expected) && report.run.exit_code == 1 {
        return Ok(());
    }
    Err(format!(
        "expected {expected} to be possible and nothing to be claimed (exit 1), got exit {}: {}\n{}",
        report.run.exit_code,
        claimed(report),
        troubled(report)
    ))
}

fn claimed(report: &Report) -> String {
    report.diagnoses.iter().map(|d| format!("{} ({:?}, {:?})", d.code, d.state, d.instance)).collect::<Vec<_>>().join("; ")
}

/// Every check that failed or could not look, and why.
fn troubled(report: &Report) -> String {
    let troubled = report.checks.iter().filter(|c| matches!(c.outcome, Verdict::Fail | Verdict::Unknown));
    troubled.map(|c| format!("{} is {}: {}", c.id, c.outcome, c.reason.clone().unwrap_or_default())).collect::<Vec<_>>().join("\n")
}
