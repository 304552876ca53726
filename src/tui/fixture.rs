//! A recorded-looking run for tests: UDP 8472 is dropped between the nodes, seen from both, plus one failure that no
//! cause explains, a warning, things that could not be looked at and a node that is declared down.

use crate::check::{Evidence, Grade, Verdict};
use crate::report::{
    CauseState, CheckReport, Diagnosis, ExpectationReport, Fix, InventoryReport, Report, Rival, RivalState, RunReport, SCHEMA, Support,
    Tool, VantageReport,
};
use crate::run::{Planned, Run, RunEvent};
use crate::vantage::{Transport, VantageKind};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// 2026-03-14 03:12:07 UTC plus some milliseconds.
pub(crate) fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_773_457_927, 0).unwrap() + TimeDelta::milliseconds(ms)
}

/// The failing run as its events, from start to finish.
pub(crate) fn blocked_vxlan() -> Vec<RunEvent> {
    events(failing_checks())
}

/// A run of the same plan in which nothing fails.
pub(crate) fn healthy() -> Vec<RunEvent> {
    events(failing_checks().into_iter().map(healed).collect())
}

fn healed(mut check: CheckReport) -> CheckReport {
    if check.outcome != Verdict::Skip {
        check.outcome = Verdict::Pass;
        check.reason = None;
        check.blocked_by = None;
        check.expectations.iter_mut().for_each(|e| e.held = Some(true));
    }
    check
}

fn events(checks: Vec<CheckReport>) -> Vec<RunEvent> {
    let mut events = vec![started(&checks)];
    let mut now = 40;
    for mut check in checks {
        if check.attempts > 0 {
            check.started_at = Some(at(now));
            events.push(RunEvent::Probing { id: check.id.clone(), at: at(now) });
            now += 60;
        }
        events.push(RunEvent::Judged { check: Box::new(check) });
    }
    events.push(RunEvent::Finished { at: at(4210), complete: true, interrupted: false });
    events
}

fn started(checks: &[CheckReport]) -> RunEvent {
    RunEvent::Started {
        run: "20260314T031207Z-7f3a".into(),
        at: at(0),
        inventory: InventoryReport { name: "oceanid".into(), source: "built-in".into(), sha256: "9f2c".repeat(16) },
        vantages: vec![vantage("calypso", "asked for with --from"), vantage("tethys", "asked for with --from")],
        planned: checks.iter().map(planned).collect(),
    }
}

fn vantage(id: &str, why: &str) -> VantageReport {
    VantageReport { id: id.into(), kind: VantageKind::Node, transport: Transport::Twin, why: why.into(), node: Some(id.into()) }
}

fn planned(check: &CheckReport) -> Planned {
    Planned {
        id: check.id.clone(),
        check: check.check.clone(),
        layer: check.layer,
        title: check.title.clone(),
        vantage: check.vantage.clone(),
        needs: check.blocked_by.iter().cloned().collect(),
        decided: (check.outcome == Verdict::Skip).then_some(Verdict::Skip),
    }
}

fn check(layer: u8, id: &str, vantage: &str, title: &str, facts: Value) -> CheckReport {
    CheckReport {
        id: id.into(),
        check: id.split('[').next().unwrap().into(),
        layer,
        title: title.into(),
        outcome: Verdict::Pass,
        vantage: vantage.into(),
        target: String::new(),
        facts,
        expectations: Vec::new(),
        blocked_by: None,
        reason: None,
        attempts: 1,
        started_at: None,
        duration_ms: 38,
        evidence: Vec::new(),
        by_hand: None,
    }
}

impl CheckReport {
    fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    fn expect(mut self, that: &str, code: &str, say: &str, grade: Grade, held: Option<bool>, values: Value) -> Self {
        let values = serde_json::from_value(values).unwrap();
        self.expectations.push(ExpectationReport { that: that.into(), code: code.into(), say: say.into(), grade, held, values });
        self
    }

    fn note(mut self, kind: &str, text: &str) -> Self {
        self.evidence.push(Evidence { kind: kind.into(), text: text.into() });
        self
    }

    fn by_hand(mut self, command: &str) -> Self {
        self.by_hand = Some(command.into());
        self
    }

    fn took(mut self, ms: u64) -> Self {
        self.duration_ms = ms;
        self
    }

    fn comes_to(mut self, outcome: Verdict, reason: &str) -> Self {
        self.outcome = outcome;
        self.reason = Some(reason.into());
        self
    }

    fn blocked(mut self, by: &str) -> Self {
        self.blocked_by = Some(by.into());
        self.attempts = 0;
        self.duration_ms = 0;
        self.comes_to(Verdict::Blocked, &format!("needs {by}, which failed"))
    }

    fn skipped(mut self, reason: &str) -> Self {
        self.attempts = 0;
        self.duration_ms = 0;
        self.comes_to(Verdict::Skip, reason)
    }
}

fn failing_checks() -> Vec<CheckReport> {
    [physical(), kubernetes(), service(), application()].concat()
}

fn physical() -> Vec<CheckReport> {
    let up = |node: &str, address: &str| {
        check(
            1,
            &format!("tailscale-up[{node}]"),
            node,
            &format!("tailscaled on {node} runs and has its address"),
            json!({"tailscale": {"backend": "Running", "address": address}}),
        )
        .expect(
            "tailscale.backend == 'Running'",
            "tailscale-not-running",
            &format!("tailscaled on {node} is Running"),
            Grade::Fail,
            Some(true),
            json!({"tailscale.backend": "Running"}),
        )
        .by_hand("tailscale status --json | jq .BackendState")
    };
    let device = |node: &str| {
        check(
            1,
            &format!("overlay-parent[{node}]"),
            node,
            &format!("tailscale0 on {node} is up"),
            json!({"link": {"mtu": 1280, "up": true}}),
        )
        .expect("link.mtu == 1280", "mtu", "tailscale0 MTU is 1280", Grade::Fail, Some(true), json!({"link.mtu": 1280}))
    };
    vec![
        device("calypso"),
        device("tethys"),
        up("calypso", "100.83.53.38"),
        up("tethys", "100.95.51.125"),
        check(1, "tailscale-up[styx]", "styx", "tailscaled on styx runs and has its address", json!({}))
            .skipped("styx is declared down in the inventory"),
        check(
            1,
            "tailscale-path[calypso>tethys]",
            "calypso",
            "calypso reaches tethys over Tailscale directly",
            json!({"path": {"rtt_median_ms": 41.7, "via": "derp-4", "lost": 0}}),
        )
        .target("100.95.51.125")
        .took(212)
        .expect(
            "path.via == 'direct'",
            "tailscale-relayed",
            "packets to tethys go through relay derp-4",
            Grade::Warn,
            Some(false),
            json!({"path.via": "derp-4"}),
        )
        .comes_to(Verdict::Warn, "packets to tethys go through relay derp-4 (41.7 ms)"),
    ]
}

fn kubernetes() -> Vec<CheckReport> {
    let device = |node: &str, mac: Value| {
        check(
            2,
            &format!("flannel-device[{node}]"),
            node,
            &format!("flannel.1 on {node} carries VNI 1 on UDP 8472"),
            json!({"link": {"present": true, "mtu": 1230, "vxlan": {"vni": 1, "port": 8472, "learning": false}, "mac": mac}}),
        )
        .expect("link.vxlan.port == 8472", "vxlan-port", "the port is 8472", Grade::Fail, Some(true), json!({"link.vxlan.port": 8472}))
        .by_hand("ip -d link show flannel.1")
    };
    vec![
        device("calypso", json!("5a:1e:77:0c:41:02")),
        device("tethys", json!("5a:1e:77:0c:41:00")),
        wire("calypso", "tethys", "10.42.0.1"),
        wire("tethys", "calypso", "10.42.2.1"),
        check(2, "pod-echo[calypso>tethys]", "calypso", "a pod on calypso reaches a pod on tethys", json!({}))
            .blocked("vxlan-wire[calypso>tethys]"),
        check(2, "pod-echo[tethys>calypso]", "tethys", "a pod on tethys reaches a pod on calypso", json!({}))
            .blocked("vxlan-wire[tethys>calypso]"),
        check(2, "node-ready[calypso]", "calypso", "the API says that calypso is Ready", json!({"kube": {"unknown": "no kubeconfig"}}))
            .expect("kube.ready", "node-not-ready", "calypso is not Ready", Grade::Fail, None, json!({}))
            .comes_to(Verdict::Unknown, "no kubeconfig: tried KUBECONFIG, ~/.kube/config and /etc/rancher/k3s/k3s.yaml"),
    ]
}

fn wire(from: &str, to: &str, address: &str) -> CheckReport {
    let facts = json!({"wire": {
        "sent": 3, "echoes": 0, "left": 3, "returned": 0, "vni": 1,
        "outer_destination": "100.95.51.125", "last_seen": format!("leaving tailscale0 on {from}"),
        "rtt_median_ms": {"unknown": "no echo came back"},
        "witness": {"arrived": 0, "device_present": true, "device_rx": 0, "csum_errors": 0, "no_ports": 0},
    }});
    let say = format!("3 echo requests left {from} for {to} and 0 came back");
    check(2, &format!("vxlan-wire[{from}>{to}]"), from, &format!("VXLAN packets from {from} reach {to} and come back"), facts)
        .target(&format!("{address} through flannel.1"))
        .took(3012)
        .expect("wire.left > 0", "vxlan-not-sent", "nothing left", Grade::Fail, Some(true), json!({"wire.left": 3}))
        .expect("wire.echoes > 0", "vxlan-no-echo", &say, Grade::Fail, Some(false), json!({"wire.echoes": 0, "wire.sent": 3}))
        .expect("wire.rtt_median_ms < 200.0", "vxlan-slow", "the overlay is slow", Grade::Warn, None, json!({}))
        .comes_to(Verdict::Fail, &say)
        .note(
            "packet",
            "tailscale0 OUT 100.83.53.38.41522 > 100.95.51.125.8472: VXLAN, vni 1\n  10.42.2.0 > 10.42.0.1: ICMP echo request, seq 1",
        )
        .note("error", "recvmsg on \u{1b}[31mflannel.1\u{1b}[0m: deadline of 3 s passed with 0 replies")
        .by_hand("tcpdump -ni tailscale0 udp port 8472")
}

fn service() -> Vec<CheckReport> {
    let root = "vxlan-wire[calypso>tethys]";
    vec![
        check(3, "coredns-health[tethys]", "tethys", "CoreDNS answers its health check", json!({"http": {"status": 200}}))
            .target("10.42.0.3:8080"),
        check(3, "dns-internal[calypso]", "calypso", "kubernetes.default resolves from calypso", json!({})).blocked(root),
        check(
            3,
            "dns-internal[tethys]",
            "tethys",
            "kubernetes.default resolves from tethys",
            json!({"dns": {"rcode": "NOERROR", "ms": 0.4}}),
        )
        .target("10.43.0.10:53"),
        check(3, "service-ip[calypso]", "calypso", "a ClusterIP answers from calypso", json!({})).blocked(root),
    ]
}

fn application() -> Vec<CheckReport> {
    vec![
        check(
            4,
            "postgres[tethys]",
            "tethys",
            "CrunchyBridge accepts a TLS connection",
            json!({"postgres": {"tls": true, "auth": "scram-sha-256"}}),
        )
        .target("18.116.211.217:5432")
        .took(96),
        check(4, "upload-http[tethys]", "tethys", "upload.goldfish.io answers 200", json!({"http": {"status": 503, "ttfb_ms": 31.2}}))
            .target("https://upload.goldfish.io/health")
            .took(74)
            .expect(
                "http.status == 200",
                "http-status",
                "https://upload.goldfish.io/health answers 503",
                Grade::Fail,
                Some(false),
                json!({"http.status": 503}),
            )
            .comes_to(Verdict::Fail, "https://upload.goldfish.io/health answers 503")
            .note("http", "HTTP/1.1 503 Service Unavailable\nserver: envoy\n\nno healthy upstream"),
        check(4, "vllm-models[calypso]", "calypso", "vLLM on the DGX Spark lists its model", json!({"vllm": {"models": ["ocr-7b"]}}))
            .target("192.168.2.119:8000")
            .took(12),
        check(4, "argilla-http[calypso]", "calypso", "Argilla answers from calypso", json!({})).blocked("service-ip[calypso]"),
    ]
}

/// The report of a run; the diagnosis is there as soon as a `vxlan-wire` check has failed.
pub(crate) fn report(run: &Run) -> Report {
    let failing: Vec<String> = run.checks_in_order().filter(|c| c.outcome == Verdict::Fail).map(|c| c.id.clone()).collect();
    let (explained, unexplained): (Vec<_>, Vec<_>) = failing.into_iter().partition(|id| id.starts_with("vxlan-wire"));
    let finished = run.finished_at.unwrap_or(at(0));
    Report {
        schema: SCHEMA.into(),
        tool: Tool { name: "fathom".into(), version: "0.1.0".into() },
        run: RunReport {
            id: run.id.clone(),
            started_at: run.started_at.unwrap_or(at(0)),
            duration_ms: u64::try_from((finished - at(0)).num_milliseconds()).unwrap(),
            complete: run.complete,
            exit_code: if run.summary().fail > 0 { 1 } else { 0 },
        },
        inventory: run.inventory.clone().unwrap(),
        vantages: run.vantages.clone(),
        summary: run.summary(),
        diagnoses: if explained.is_empty() { Vec::new() } else { vec![diagnosis(explained), possible()] },
        unexplained,
        checks: run.checks_in_order().cloned().collect(),
    }
}

/// The report of the whole failing run.
pub(crate) fn failing_report() -> Report {
    report(&Run::fold(&blocked_vxlan()))
}

fn support(that: &str, say: &str, values: Value, held: Option<bool>) -> Support {
    Support { that: that.into(), say: say.into(), values: serde_json::from_value(values).unwrap(), held }
}

fn rival(code: &str, state: RivalState, because: &str) -> Rival {
    Rival { code: code.into(), state, because: because.into() }
}

fn instance(node: &str, peer: &str) -> BTreeMap<String, String> {
    [("node".to_owned(), node.to_owned()), ("peer".to_owned(), peer.to_owned())].into()
}

fn diagnosis(explains: Vec<String>) -> Diagnosis {
    Diagnosis {
        code: "udp8472-blocked".into(),
        title: "UDP 8472 from calypso is dropped before it reaches tethys".into(),
        layer: 2,
        playbook: "pod-cross-node".into(),
        instance: instance("calypso", "tethys"),
        state: CauseState::Supported,
        supports: vec![
            support(
                "wire.left > 0 && wire.echoes == 0",
                "3 VXLAN packets left calypso's tailscale0 and no echo came back",
                json!({"wire.left": 3, "wire.echoes": 0}),
                Some(true),
            ),
            support(
                "wire.witness.arrived == 0 && wire.witness.device_rx == 0",
                "none of them arrived at tethys, neither on tailscale0 nor on flannel.1",
                json!({"wire.witness.arrived": 0, "wire.witness.device_rx": 0}),
                Some(true),
            ),
            support("path.lost == 0", "ICMP over the same tunnel loses nothing", json!({"path.lost": 0}), Some(true)),
        ],
        rivals: vec![
            rival("vxlan-bad-outer-checksum", RivalState::Refuted, "UdpInCsumErrors on tethys did not move (wire.witness.csum_errors = 0)"),
            rival("flannel-device-missing", RivalState::Refuted, "flannel.1 exists on both nodes"),
            rival("vtep-mac-stale", RivalState::Refuted, "tethys' flannel.1 received nothing at all (wire.witness.device_rx = 0)"),
            rival("udp8472-eaten-by-hypervisor", RivalState::Untested, "needs an outside capture between the nodes"),
        ],
        explains,
        fix: vec![
            Fix {
                say: "Find the rule that drops UDP 8472 on tailscale0".into(),
                run: Some("nft list ruleset | grep -n 8472".into()),
                at: Some("node:tethys".into()),
                risk: None,
            },
            Fix {
                say: "Admit it between the nodes".into(),
                run: Some("nft insert rule inet filter input iifname tailscale0 udp dport 8472 accept".into()),
                at: Some("node:tethys".into()),
                risk: Some("opens the VXLAN port to every tailnet member that the ACL lets through".into()),
            },
        ],
        verify: vec!["vxlan-wire[calypso>tethys]".into(), "pod-echo[calypso>tethys]".into()],
    }
}

fn possible() -> Diagnosis {
    Diagnosis {
        code: "tailscale-acl-denies".into(),
        title: "The tailnet's ACL does not admit UDP 8472 from calypso to tethys".into(),
        layer: 1,
        playbook: "pod-cross-node".into(),
        instance: instance("calypso", "tethys"),
        state: CauseState::Possible,
        supports: vec![
            support("wire.witness.arrived == 0", "nothing arrives at tethys", json!({"wire.witness.arrived": 0}), Some(true)),
            support("tailscale.filter.admits_8472", "tethys' packet filter does not list the port", json!({}), None),
        ],
        rivals: Vec::new(),
        explains: Vec::new(),
        fix: Vec::new(),
        verify: Vec::new(),
    }
}
