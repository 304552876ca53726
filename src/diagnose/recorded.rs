//! The built-in checks and causes against facts as they were recorded, or must be recorded, of a network that the twin cannot be;
//! and how much work a diagnosis is.

use super::{Findings, diagnose};
use crate::check::judge::judge;
use crate::check::{Facts, Observation, Verdict};
use crate::def::{Catalog, Inventory, Sources};
use crate::report::{CauseState, CheckReport, InventoryReport, RivalState};
use crate::run::{Filter, Plan, Run, RunEvent};
use crate::vantage::{HostFiles, Net, Transport, Vantage, VantageKind};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::sync::Arc;

fn catalog() -> Catalog {
    Catalog::load(&Sources::default()).unwrap_or_else(|f| panic!("{f:?}"))
}

fn node(name: &str) -> Arc<Vantage> {
    let (id, node) = (name.to_owned(), Some(name.to_owned()));
    let (kind, transport) = (VantageKind::Node, Transport::Local);
    Arc::new(Vantage { id, kind, transport, why: String::new(), node, net: Net::Here, files: HostFiles::default() })
}

/// A run from these nodes in which these checks saw these facts; others were not looked at.
fn run(catalog: &Catalog, nodes: &[&str], seen: &[(&str, Value)]) -> Run {
    let vantages: Vec<_> = nodes.iter().map(|name| node(name)).collect();
    let checks = seen.iter().map(|(id, _)| (*id).to_owned()).collect();
    let plan = Plan::make(catalog, &vantages, &Filter { checks, ..Filter::default() }).unwrap();
    let at = DateTime::<Utc>::UNIX_EPOCH;
    let inventory = InventoryReport { name: String::new(), source: String::new(), sha256: String::new() };
    let mut run = Run::new();
    run.apply(&RunEvent::Started { run: String::new(), at, inventory, vantages: plan.vantage_reports(), planned: plan.outline() });
    for (id, facts) in seen {
        let instance = plan.instances.iter().find(|i| i.id == *id).unwrap_or_else(|| panic!("no instance {id}"));
        let observation = Observation { facts: Facts::from_json(facts), ..Observation::default() };
        let judged = judge(&observation, instance.root, &instance.bindings, &instance.expectations);
        let check = CheckReport {
            id: instance.id.clone(),
            check: instance.check.clone(),
            layer: instance.layer,
            title: instance.title.clone(),
            outcome: judged.verdict,
            vantage: instance.vantage.clone(),
            target: String::new(),
            facts: facts.clone(),
            expectations: judged.expectations,
            blocked_by: None,
            reason: judged.reason,
            attempts: 1,
            started_at: Some(at),
            duration_ms: 1,
            evidence: Vec::new(),
            by_hand: None,
        };
        run.apply(&RunEvent::Judged { check: Box::new(check) });
    }
    run.apply(&RunEvent::Finished { at, complete: true, interrupted: false });
    run
}

fn claimed(findings: &Findings) -> Vec<&str> {
    findings.diagnoses.iter().filter(|d| d.state == CauseState::Supported).map(|d| d.code.as_str()).collect()
}

fn wire(arrived: u32, beside: Value) -> Value {
    json!({
        "sent": 3, "echoes": 0, "left": 3, "returned": 0, "last_seen": "left calypso", "outer_destination": "198.51.100.7",
        "other_port_refused_by": beside,
        "witness": {"arrived": arrived, "device_present": true, "device_rx": 0, "csum_errors": 0, "no_ports": 0},
    })
}

/// A cluster whose flannel runs on the underlay by intent: calypso's view of tethys.
fn on_underlay(catalog: &mut Catalog, wire: Value) -> Findings {
    let mut inventory = Inventory::clone(&catalog.inventory);
    inventory.overlay.parent = "eth0".into();
    catalog.inventory = Arc::new(inventory);
    let local = catalog.inventory.node("calypso").unwrap().lan;
    let device =
        json!({"present": true, "up": true, "vni": 1, "port": 8472, "parent": "eth0", "local": local, "mtu": 1450, "parent_mtu": 1500});
    let seen = [
        ("flannel-device[calypso]", device),
        ("node-reach[calypso/tethys]", json!({"sent": 3, "received": 3, "loss_percent": 0.0})),
        ("vxlan-port[calypso->tethys]", json!({"sent": true, "refused": false, "answered": false})),
        ("pod-echo[calypso->tethys]", wire),
    ];
    diagnose(&run(catalog, &["calypso", "tethys"], &seen), catalog)
}

#[test]
fn what_is_swallowed_on_the_way_is_told_from_what_the_peer_filters() {
    let refused = || json!("198.51.100.7");
    assert_eq!(claimed(&on_underlay(&mut catalog(), wire(0, refused()))), ["udp8472-eaten-by-hypervisor"]);
    assert_eq!(claimed(&on_underlay(&mut catalog(), wire(3, json!({"unknown": "packets arrive"})))), ["udp8472-blocked"]);
    // Another port is silent too: it may be every port, and so no claim.
    let silent = on_underlay(&mut catalog(), wire(0, json!({"unknown": "no ICMP error came"})));
    assert_eq!(claimed(&silent), [""; 0]);
    assert_eq!(silent.diagnoses[0].code, "udp8472-eaten-by-hypervisor");
    assert_eq!(silent.unexplained, ["pod-echo[calypso->tethys]"]);
}

/// calypso's overlay and tailnet towards tethys, as the twin's relay that loses trains shows them; `train` is how many of the tailnet's
/// own full-size packets in a row arrive, `relayed` how the path goes.
fn stall(train: u32, path: &str, version: &str) -> Findings {
    let exchange = json!({"small": "ok", "small_ms": 2.1, "large": "stalled", "large_ms": 4100.0, "large_bytes": 1400, "retransmitted": 9});
    let seen = [
        (
            "overlay-mtu[calypso->tethys]",
            json!({"reachable": true, "device": "flannel.1", "device_mtu": 1230, "largest": 1230, "limit": "device", "full_sent": 8,
                   "full_answered": 1, "fragments_made": 0, "exchange": exchange}),
        ),
        (
            "tailnet-mtu[calypso->tethys]",
            json!({"reachable": true, "device": "tailscale0", "device_mtu": 1280, "largest": 1280, "limit": "device", "full_sent": 8,
                   "full_answered": train, "fragments_made": 0}),
        ),
        (
            "tailnet-path[calypso->tethys]",
            json!({"running": true, "peer": {"present": true, "answers": true, "path": path, "ping_relay": "", "ping_ms": 30.0}}),
        ),
        ("tailscale-up[calypso]", json!({"running": true, "key_expired": false, "version": version})),
    ];
    let catalog = catalog();
    diagnose(&run(&catalog, &["calypso"], &seen), &catalog)
}

#[test]
fn a_stall_is_laid_to_offload_only_where_the_tailnet_itself_is_fast_and_direct() {
    assert_eq!(claimed(&stall(8, "direct", "1.98.10")), ["vxlan-over-ts-gso-stall"]);
    for other in [stall(3, "direct", "1.98.10"), stall(8, "direct", "1.52.1")] {
        assert_eq!(claimed(&other), [""; 0]);
        assert_eq!(other.unexplained, ["overlay-mtu[calypso->tethys]"]);
    }
    assert_eq!(claimed(&stall(8, "relay", "1.98.10")), ["derp-relay"], "a relay is slow by itself");
}

/// The inventory with so many workers beside tethys, and a run from the first of them to all: one does not answer.
fn one_of(many: u8) -> (Catalog, Run) {
    let mut catalog = catalog();
    let mut inventory = Inventory::clone(&catalog.inventory);
    let model = inventory.node("calypso").unwrap().clone();
    inventory.nodes.retain(|n| n.name == "tethys");
    inventory.pods.retain(|p| p.node == "tethys");
    for n in 1..=many {
        let mut worker = model.clone();
        worker.name = format!("worker{n}");
        worker.kube_name.clone_from(&worker.name);
        worker.tailscale = Some([100, 64, 1, n].into());
        worker.pod_cidr = format!("10.42.{n}.0/24").parse().unwrap();
        inventory.nodes.push(worker);
    }
    catalog.inventory = Arc::new(inventory);
    let echoes = |received: u32| json!({"sent": 3, "received": received, "loss_percent": f64::from(3 - received) * 33.4, "error": ""});
    let others: Vec<(String, Value)> =
        (2..=many).map(|n| (format!("node-reach[worker1/worker{n}]"), echoes(if n == 7 { 0 } else { 3 }))).collect();
    let seen: Vec<(&str, Value)> = others.iter().map(|(id, facts)| (id.as_str(), facts.clone())).collect();
    let run = run(&catalog, &["worker1"], &seen);
    (catalog, run)
}

#[test]
fn the_work_grows_with_what_failed_and_not_with_the_nodes() {
    let tested = |many: u8| {
        let (catalog, run) = one_of(many);
        let failing: Vec<_> = run.checks_in_order().filter(|c| c.outcome == Verdict::Fail).map(super::failure).collect();
        assert_eq!(failing.len(), 1);
        super::test::all(&run, &catalog, &failing).len()
    };
    // 22 500 and 57 600 pairs, and one failure, which is about two nodes and the exit node.
    let (some, many) = (tested(150), tested(240));
    assert!(many == some && (100..1500).contains(&many), "{some} and {many} causes tested");
}

#[test]
fn a_cause_between_two_of_many_nodes_is_found() {
    let (catalog, mut all) = one_of(20);
    let path = json!({"running": true, "peer": {"present": true, "answers": true, "path": "relay", "ping_relay": "fra", "ping_ms": 90.0,
                      "pings": 4, "rpf_dropped": 0}});
    let back = json!({"unmarked": true, "marked": true, "rp_filter": 0});
    let seen = [("tailnet-path[worker1->worker7]", path), ("return-path[worker1]", back)];
    for check in run(&catalog, &["worker1"], &seen).checks_in_order() {
        all.apply(&RunEvent::Judged { check: Box::new(check.clone()) });
    }
    let findings = diagnose(&all, &catalog);
    assert_eq!(claimed(&findings), ["derp-relay"]);
    assert_eq!((&findings.diagnoses[0].instance["node"], &findings.diagnoses[0].instance["peer"]), (&"worker1".into(), &"worker7".into()));
    assert_eq!(findings.unexplained, ["node-reach[worker1/worker7]"]);
}

/// A firewall drops what the server behind it would answer: of the causes that only its answer tells, none is ruled out.
#[test]
fn what_another_cause_hides_is_untested_and_not_refuted() {
    let catalog = catalog();
    let database = json!({"resolved": true, "address": "18.116.211.217", "address_given": true, "connected": false, "connect_error": "TIMEOUT",
                          "connect_ms": 5000.0, "tls": false, "sqlstate": "", "message": "", "source_seen": ""});
    let egress = json!({"answered": 3, "agree": true, "address": catalog.inventory.egress.address});
    let findings =
        diagnose(&run(&catalog, &["calypso"], &[("database[calypso/crunchybridge]", database), ("egress[calypso]", egress)]), &catalog);
    assert_eq!(claimed(&findings), ["pg-allowlist-drop"]);
    let state = |code: &str| findings.diagnoses[0].rivals.iter().find(|r| r.code == code).map(|r| r.state);
    assert_eq!(state("pg-not-postgres"), Some(RivalState::Untested));
    assert_eq!(state("pg-tls-required"), Some(RivalState::Untested));
    assert_eq!(state("pg-refused"), Some(RivalState::Refuted));
}
