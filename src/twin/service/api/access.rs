//! Who may do what: the administrator everything, others what their rules say; and the reviews that tell it.

use super::Reply;
use super::protobuf;
use super::status::{Failure, forbidden, not_json};
use crate::twin::service::pki::User;
use hyper::StatusCode;
use serde_json::{Value, json};

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `get`, `list`, `watch`, ..
    pub(super) verb: &'a str,
    /// API group; empty for the core group.
    pub(super) group: &'a str,
    /// Resource in the plural, with its subresource: `pods/log`.
    pub(super) resource: &'a str,
    /// Namespace, if the path has one.
    pub(super) namespace: Option<&'a str>,
    /// Name of one object.
    pub(super) name: Option<&'a str>,
}

/// Group, resources, verbs.
type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The rules of the user `fathom-viewer`.
const VIEWER: &[Rule] = &[("", &["nodes", "services"], &["get", "list"]), ("discovery.k8s.io", &["endpointslices"], &["get", "list"])];
/// What `system:basic-user` allows everybody who is known.
const EVERYBODY: &[Rule] = &[
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
    ("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
];
/// Paths that `system:discovery` and `system:public-info-viewer` allow everybody who is known.
const PATHS: &[&str] =
    &["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"];

fn is_admin(user: &User) -> bool {
    user.groups.iter().any(|group| group == "system:masters")
}

fn rules(user: &User) -> impl Iterator<Item = &'static Rule> {
    let own: &[Rule] = if user.name == User::viewer().name { VIEWER } else { &[] };
    own.iter().chain(EVERYBODY)
}

/// Whether a user may.
pub(super) fn allowed(user: &User, asked: &Asked<'_>) -> bool {
    let covers =
        |(group, resources, verbs): &Rule| *group == asked.group && resources.contains(&asked.resource) && verbs.contains(&asked.verb);
    is_admin(user) || rules(user).any(covers)
}

/// 403 unless a user may.
pub(super) fn check(user: &User, asked: &Asked<'_>) -> Result<(), Failure> {
    if allowed(user, asked) { Ok(()) } else { Err(forbidden(&user.name, asked)) }
}

/// The answer to a review that was posted; `None` for a path of none.
pub(super) fn review(user: &User, segments: &[&str], body: &[u8]) -> Option<Reply> {
    let status = match segments {
        ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => access,
        ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"] => all_rules,
        ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => who,
        _ => return None,
    };
    let read = serde_json::from_slice::<Value>(body).ok().or_else(|| protobuf::review(body));
    let Some(mut object) = read.filter(Value::is_object) else { return Some(not_json().into()) };
    object["metadata"] = json!({"creationTimestamp": null});
    object["status"] = status(user, &object["spec"]);
    Some(Reply::Json(StatusCode::CREATED, object))
}

fn access(user: &User, spec: &Value) -> Value {
    let text = |key: &str| spec["resourceAttributes"][key].as_str().unwrap_or("");
    if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        let known = |p: &&str| p.strip_suffix('*').map_or(**p == *path, |prefix| path.starts_with(prefix));
        return json!({"allowed": is_admin(user) || PATHS.iter().any(known)});
    }
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        sub => format!("{}/{sub}", text("resource")),
    };
    let asked = Asked { verb: text("verb"), group: text("group"), resource: &resource, namespace: None, name: None };
    json!({"allowed": allowed(user, &asked)})
}

fn all_rules(user: &User, _: &Value) -> Value {
    let rule = |(group, resources, verbs): &Rule| json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    let mut resources: Vec<Value> = rules(user).map(rule).collect();
    let mut paths = vec![json!({"verbs": ["get"], "nonResourceURLs": PATHS})];
    if is_admin(user) {
        resources.insert(0, json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.insert(0, json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn who(user: &User, _: &Value) -> Value {
    let groups: Vec<&str> = user.groups.iter().map(String::as_str).chain(["system:authenticated"]).collect();
    json!({"userInfo": {"username": user.name, "groups": groups}})
}
