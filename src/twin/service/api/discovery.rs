//! What there is: `/version`, `/api`, `/apis` and the resource lists, as far as `kubectl get` needs them.

use crate::twin::cluster::Resource;
use serde_json::{Value, json};

/// `/version` for a `gitVersion` such as `v1.33.4+k3s1`.
pub(super) fn version(git_version: &str) -> Value {
    let mut parts = git_version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("33"));
    let compatible = minor.parse::<u32>().map_or_else(|_| minor.to_owned(), |m| m.saturating_sub(1).to_string());
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": compatible,
        "gitVersion": git_version, "gitCommit": "$Format:%H$", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go1.26.8", "compiler": "gc", "platform": "linux/amd64",
    })
}

/// The discovery document of a path, if it has one. `server` is the name by which the client addresses the server.
pub(super) fn document(segments: &[&str], server: Option<&str>) -> Option<Value> {
    match segments {
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server.unwrap_or("")}],
        })),
        ["api", "v1"] => Some(resources("", "v1")),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups().map(group).collect::<Vec<_>>()})),
        ["apis", name] => groups().find(|g| g == name).map(|name| {
            let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
            for (key, value) in group(name).as_object().into_iter().flatten() {
                document[key] = value.clone();
            }
            document
        }),
        ["apis", name, "v1"] => groups().find(|g| g == name).map(|name| resources(name, &format!("{name}/v1"))),
        _ => None,
    }
}

const VERBS: [&str; 3] = ["get", "list", "watch"];

/// Whether a client takes the aggregated form, as kubectl since 1.26 does.
pub(super) fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| range.contains("as=APIGroupDiscoveryList") && range.contains("v=v2") && !range.contains("v2beta"))
}

/// Every group of `/api` or `/apis` with all of its resources in one document.
pub(super) fn aggregated(root: &str) -> Value {
    let core = root == "api";
    let names = if core { vec![""] } else { groups().collect() };
    let items: Vec<Value> = names.into_iter().map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(group: &str) -> Value {
    let entry = |resource: Resource| {
        let mut entry = json!({
            "resource": resource.plural(),
            "responseKind": {"group": group, "version": "v1", "kind": resource.kind()},
            "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
            "singularResource": resource.kind().to_lowercase(),
            "verbs": VERBS,
        });
        if !resource.short_names().is_empty() {
            entry["shortNames"] = json!(resource.short_names());
        }
        if resource == Resource::Pods {
            let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
            entry["subresources"] = json!([{"subresource": "log", "responseKind": kind, "verbs": ["get"]}]);
        }
        entry
    };
    let review = |(_, plural, kind): &Review| {
        json!({"resource": plural, "responseKind": {"group": group, "version": "v1", "kind": kind}, "scope": "Cluster",
            "singularResource": kind.to_lowercase(), "verbs": ["create"]})
    };
    let resources = Resource::ALL.into_iter().filter(|r| r.group() == group).map(entry);
    let all: Vec<Value> = resources.chain(REVIEWS.iter().filter(|(g, ..)| *g == group).map(review)).collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": [{"version": "v1", "resources": all, "freshness": "Current"}]})
}

/// Group, plural, kind.
type Review = (&'static str, &'static str, &'static str);

/// What a client asks about itself.
const REVIEWS: &[Review] = &[
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
];

fn groups() -> impl Iterator<Item = &'static str> {
    ["authentication.k8s.io", "authorization.k8s.io", "discovery.k8s.io", "networking.k8s.io"].into_iter()
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, group_version: &str) -> Value {
    let entry = |resource: Resource| {
        let mut entry = json!({
            "name": resource.plural(), "singularName": resource.kind().to_lowercase(), "namespaced": resource.namespaced(),
            "kind": resource.kind(), "verbs": VERBS,
        });
        if !resource.short_names().is_empty() {
            entry["shortNames"] = json!(resource.short_names());
        }
        entry
    };
    let review = |(_, plural, kind): &Review| json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]});
    let entries = Resource::ALL.into_iter().filter(|r| r.group() == group).map(entry);
    let entries: Vec<Value> = entries.chain(REVIEWS.iter().filter(|(g, ..)| *g == group).map(review)).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries})
}
