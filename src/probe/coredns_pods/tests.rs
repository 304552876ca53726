use super::super::kube_client::fake::{Fake, Reply, Tls};
use super::*;
use crate::vantage::Net;
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const NODE: &str = "/api/v1/nodes/srv712429";
const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const LOG: &str = "/api/v1/namespaces/kube-system/pods/coredns-1/log";

fn json_reply(value: &Value) -> Reply {
    Reply::Body(200, value.to_string().into_bytes())
}

fn pods(ready: &str, state: &Value) -> Reply {
    json_reply(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
        "metadata": {"name": "coredns-1", "namespace": "kube-system"},
        "spec": {"nodeName": "srv712429", "containers": [{"name": "coredns"}]},
        "status": {"phase": "Running", "podIP": "10.42.0.53", "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "coredns", "image": "", "imageID": "", "ready": false, "restartCount": 7, "state": state,
                "lastState": {"terminated": {"exitCode": 1}}}]}}]}))
}

fn node(ready: &str) -> Reply {
    json_reply(&json!({"metadata": {"name": "srv712429"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
}

fn config() -> Reply {
    json_reply(&json!({"metadata": {"name": "coredns"}, "data": {"Corefile": ".:53 {\n    loop\n    forward . /etc/resolv.conf\n}\n"}}))
}

fn waiting() -> Value {
    json!({"waiting": {"reason": "CrashLoopBackOff"}})
}

async fn look(logs: bool, routes: &[(&'static str, Reply)]) -> Observation {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    let probe = CoreDnsPods { selector: selector(), namespace: namespace(), configmap: configmap(), logs };
    probe.observe(&fake.context(Net::Here, Duration::from_secs(5))).await
}

#[tokio::test]
async fn a_crash_loop_is_seen_with_its_reason_and_its_log() {
    let log = Reply::Body(200, include_bytes!("../../../tests/data/coredns/log-loop.txt").to_vec());
    let seen = look(true, &[(PODS, pods("False", &waiting())), (NODE, node("True")), (CONFIG, config()), (LOG, log)]).await;
    let facts = seen.facts.known();
    assert_eq!(
        (&facts["known"], &facts["ready"], &facts["restarts"], &facts["on_ready_nodes"]),
        (&json!(1), &json!(0), &json!(7), &json!(1))
    );
    assert_eq!((&facts["waiting"], &facts["nodes_not_ready"]), (&json!(["CrashLoopBackOff"]), &json!([])));
    assert_eq!((&facts["log_loop"], &facts["log_patterns"], &facts["log_upstreams"]), (&json!(true), &json!(["loop"]), &json!([])));
    assert_eq!((&facts["forward"], &facts["plugins"]), (&json!(["/etc/resolv.conf"]), &json!(["loop", "forward"])));
    assert!(seen.evidence.iter().any(|e| e.kind == "log" && e.text.starts_with("[FATAL] plugin/loop")), "{:?}", seen.evidence);
}

#[tokio::test]
async fn a_node_that_is_not_ready_or_gone_bears_no_pod() {
    for reply in [node("Unknown"), Reply::Body(404, br#"{"kind":"Status","message":"not found","code":404}"#.to_vec())] {
        let seen = look(false, &[(PODS, pods("True", &json!({}))), (NODE, reply), (CONFIG, config())]).await;
        let facts = seen.facts.known();
        assert_eq!((&facts["on_ready_nodes"], &facts["nodes_not_ready"]), (&json!(0), &json!(["srv712429"])));
        assert!(seen.facts.unknowns()["log_loop"].contains("not asked"));
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_unknown_by_name_and_nothing_else_is() {
    let forbidden = || Reply::Body(403, br#"{"kind":"Status","message":"no","code":403}"#.to_vec());
    let routes = [(PODS, pods("True", &json!({}))), (NODE, forbidden()), (CONFIG, forbidden()), (LOG, forbidden())];
    let seen = look(true, &routes).await;
    let unknown = seen.facts.unknowns();
    for (path, what) in [("on_ready_nodes", "get nodes"), ("forward", "get configmaps"), ("log_loop", "get pods/log")] {
        assert!(unknown[path].contains(&format!("403 Forbidden ({what})")), "{path}: {:?}", unknown.get(path));
    }
    assert_eq!(seen.facts.known()["ready"], 1);
}

#[tokio::test]
async fn no_log_yet_is_an_empty_log_and_a_kubelet_that_is_away_is_unknown() {
    let status = |code: u16| Reply::Body(code, format!(r#"{{"kind":"Status","message":"m","code":{code}}}"#).into_bytes());
    for (code, known) in [(400, true), (500, false)] {
        let seen = look(true, &[(PODS, pods("False", &waiting())), (NODE, node("True")), (CONFIG, config()), (LOG, status(code))]).await;
        assert_eq!(seen.facts.known().get("log_loop"), known.then_some(&json!(false)), "{code}");
    }
}

#[tokio::test]
async fn a_log_that_drips_is_unknown_in_time() {
    let began = std::time::Instant::now();
    let seen = look(true, &[(PODS, pods("True", &json!({}))), (NODE, node("True")), (CONFIG, config()), (LOG, Reply::Drip)]).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(seen.facts.unknowns()["log_loop"].contains("TIMEOUT"), "{:?}", seen.facts.unknowns());
}
