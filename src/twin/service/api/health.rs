//! `/readyz`, `/livez`, `/healthz`.

use super::Reply;
use hyper::StatusCode;

/// The checks of kube-apiserver 1.33 in its order; `true` for those that `/livez` leaves out.
const CHECKS: &[(&str, bool)] = &[
    ("ping", false),
    ("log", false),
    ("etcd", false),
    ("etcd-readiness", true),
    ("informer-sync", true),
    ("poststarthook/start-apiserver-admission-initializer", false),
    ("poststarthook/generic-apiserver-start-informers", false),
    ("poststarthook/priority-and-fairness-config-consumer", false),
    ("poststarthook/priority-and-fairness-filter", false),
    ("poststarthook/storage-object-count-tracker-hook", false),
    ("poststarthook/start-apiextensions-informers", false),
    ("poststarthook/start-apiextensions-controllers", false),
    ("poststarthook/crd-informer-synced", false),
    ("poststarthook/start-system-namespaces-controller", false),
    ("poststarthook/start-cluster-authentication-info-controller", false),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", false),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", false),
    ("poststarthook/start-legacy-token-tracking-controller", false),
    ("poststarthook/start-service-ip-repair-controllers", false),
    ("poststarthook/rbac/bootstrap-roles", false),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", false),
    ("poststarthook/priority-and-fairness-config-producer", false),
    ("poststarthook/bootstrap-controller", false),
    ("poststarthook/start-kubernetes-service-cidr-controller", false),
    ("poststarthook/start-kube-aggregator-informers", false),
    ("poststarthook/apiservice-status-local-available-controller", false),
    ("poststarthook/apiservice-status-remote-available-controller", false),
    ("poststarthook/apiservice-registration-controller", false),
    ("poststarthook/apiservice-discovery-controller", false),
    ("poststarthook/kube-apiserver-autoregistration", false),
    ("autoregister-completion", false),
    ("poststarthook/apiservice-openapi-controller", false),
    ("poststarthook/apiservice-openapiv3-controller", false),
    ("shutdown", true),
];

/// Answers a health path, split into segments, as a whole or for one check.
pub(super) fn check(segments: &[&str], query: &[(String, String)], datastore_hung: bool) -> Reply {
    let (endpoint, one) = (segments[0], segments[1..].join("/"));
    let ready = endpoint == "readyz";
    let mut checks = CHECKS.iter().filter(|(_, only_ready)| ready || !only_ready).map(|(name, _)| *name);
    if !one.is_empty() {
        return match checks.find(|name| *name == one) {
            None => Reply::Text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
            Some(name) if failed(name, datastore_hung) => {
                Reply::Text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed: reason withheld\n"))
            }
            Some(_) => Reply::Text(StatusCode::OK, "ok".into()),
        };
    }
    let verbose = query.iter().any(|(name, _)| name == "verbose");
    match (datastore_hung, verbose) {
        (true, _) => Reply::Text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}{endpoint} check failed\n", lines(checks, true))),
        (false, true) => Reply::Text(StatusCode::OK, format!("{}{endpoint} check passed\n", lines(checks, false))),
        (false, false) => Reply::Text(StatusCode::OK, "ok".into()),
    }
}

fn failed(name: &str, datastore_hung: bool) -> bool {
    datastore_hung && name.starts_with("etcd")
}

fn lines<'a>(checks: impl Iterator<Item = &'a str>, datastore_hung: bool) -> String {
    let line = |name| if failed(name, datastore_hung) { format!("[-]{name} failed: reason withheld\n") } else { format!("[+]{name} ok\n") };
    checks.map(line).collect()
}
