use super::super::kube_client::fake::{Fake, Reply, Tls};
use super::*;
use crate::vantage::Net;
use serde_json::json;
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/apps/pods";
const LOG: &str = "/api/v1/namespaces/apps/pods/sink-1/log";

fn pods(restarts: i32) -> Reply {
    Reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
        "metadata": {"name": "sink-1", "namespace": "apps"}, "spec": {"containers": [{"name": "sink"}]},
        "status": {"containerStatuses": [{"name": "sink", "image": "", "imageID": "", "ready": true, "restartCount": restarts}]}}]}))
}

async fn look(routes: &[(&'static str, Reply)]) -> Observation {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    let probe = (KIND.decode)(&toml::from_str("namespace = 'apps'\nlabels = { app = 'sink' }").unwrap()).unwrap();
    let seen = probe.observe(&fake.context(Net::Here, Duration::from_secs(5))).await;
    for fact in KIND.facts {
        let told = seen.facts.get(fact.path).is_some() || seen.facts.unknowns().contains_key(fact.path) || seen.facts.is_empty();
        assert!(told, "{} is neither known nor unknown", fact.path);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fails_at_its_storage_says_so() {
    let log = "INFO wrote 12 rows\nERROR bucket vessel-parquet: SlowDown\nERROR bucket vessel-parquet: SlowDown\n";
    let seen = look(&[(PODS, pods(0)), (LOG, Reply::Body(200, log.as_bytes().to_vec()))]).await;
    let facts = seen.facts.known();
    assert_eq!((&facts["pods"], &facts["lines"], &facts["matched"], &facts["storage_fails"]), (&json!(1), &json!(3), &json!(2), &json!(2)));
    assert_eq!((&facts["patterns"], &facts["storage_codes"]), (&json!(["storage_fails"]), &json!(["SlowDown"])));
    assert!(seen.evidence.iter().any(|e| e.kind == "log" && e.text.contains("SlowDown")), "{:?}", seen.evidence);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_logs_learns_which_right_is_missing() {
    let forbidden = || Reply::Body(403, br#"{"kind":"Status","message":"no","code":403}"#.to_vec());
    let seen = look(&[(PODS, pods(0)), (LOG, forbidden())]).await;
    assert_eq!(seen.facts.unknowns()["matched"], "403 Forbidden (get pods/log)");
    assert_eq!(seen.facts.get("pods"), Some(&json!(1)));
    let seen = look(&[(PODS, forbidden())]).await;
    assert!(seen.facts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_log_has_said_nothing() {
    let none = Reply::Body(400, br#"{"kind":"Status","message":"waiting to start","code":400}"#.to_vec());
    let seen = look(&[(PODS, pods(3)), (LOG, none)]).await;
    assert_eq!(
        (seen.facts.get("lines"), seen.facts.get("matched"), seen.facts.get("restarts")),
        (Some(&json!(0)), Some(&json!(0)), Some(&json!(3)))
    );
}
