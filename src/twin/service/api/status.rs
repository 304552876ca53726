//! `Status` objects: how the API says no.

use super::access::Asked;
use crate::twin::cluster::Resource;
use hyper::StatusCode;
use serde_json::{Value, json};

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// HTTP status.
    pub(super) code: StatusCode,
    /// The `Status` object.
    pub(super) body: Value,
}

impl Failure {
    /// A `Status` without details; an empty reason is left out.
    pub(super) fn new(code: StatusCode, reason: &str, message: &str) -> Self {
        Self::with(code, reason, message, Value::Null)
    }

    fn with(code: StatusCode, reason: &str, message: &str, details: Value) -> Self {
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message});
        if !reason.is_empty() {
            body["reason"] = json!(reason);
        }
        if !details.is_null() {
            body["details"] = details;
        }
        body["code"] = json!(code.as_u16());
        Self { code, body }
    }
}

/// 400.
pub(super) fn bad_request(message: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "BadRequest", message)
}

/// 500 with what went wrong inside of the server or behind it.
pub(super) fn internal(message: &str) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

/// 404 for an object.
pub(super) fn not_found(resource: Resource, name: &str) -> Failure {
    let group = resource.group();
    let full = if group.is_empty() { resource.plural().to_owned() } else { format!("{}.{group}", resource.plural()) };
    let mut details = json!({"name": name});
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details["kind"] = json!(resource.plural());
    Failure::with(StatusCode::NOT_FOUND, "NotFound", &format!("{full} \"{name}\" not found"), details)
}

/// 405.
pub(super) fn method_not_allowed() -> Failure {
    let message = "the server does not allow this method on the requested resource";
    Failure::with(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, json!({}))
}

/// 504 for a `resourceVersion` from the future.
pub(super) fn too_large(asked: u64, current: u64) -> Failure {
    let details =
        json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    Failure::with(StatusCode::GATEWAY_TIMEOUT, "Timeout", &message, details)
}

/// 410 for a list that cannot go on: its version is gone.
pub(super) fn expired(version: u64) -> Failure {
    Failure::new(
        StatusCode::GONE,
        "Expired",
        &format!("The provided continue parameter is too old to go on from: version {version} is gone"),
    )
}

/// 410 as the last event of a watch from a version that is gone.
pub(super) fn too_old(asked: u64, oldest: u64) -> Failure {
    Failure::new(StatusCode::GONE, "Expired", &format!("too old resource version: {asked} ({oldest})"))
}

/// 422 for initial events on a watch: a feature that 1.33 has switched off.
pub(super) fn no_initial_events() -> Failure {
    let because = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    let cause = json!({"reason": "FieldValueForbidden", "message": format!("Forbidden: {because}"), "field": "sendInitialEvents"});
    let details = json!({"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause]});
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: {because}");
    Failure::with(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message, details)
}

/// 415 for a body that is not JSON.
pub(super) fn not_json() -> Failure {
    let message = "the body of the request was in an unknown format - accepted media types include: application/json";
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

/// 403: `what` is the resource with its subresource, `place` the namespace or none.
pub(super) fn forbidden(user: &str, asked: &Asked<'_>) -> Failure {
    let (group, resource) = (asked.group, asked.resource.split('/').next().unwrap_or(""));
    let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let named = asked.name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let place = asked.namespace.map_or_else(|| "at the cluster scope".to_owned(), |ns| format!("in the namespace \"{ns}\""));
    let message = format!(
        "{full}{named} is forbidden: User \"{user}\" cannot {} resource \"{}\" in API group \"{group}\" {place}",
        asked.verb, asked.resource
    );
    let mut details = json!({});
    for (key, value) in [("name", asked.name), ("group", Some(group).filter(|g| !g.is_empty())), ("kind", Some(resource))] {
        if let Some(value) = value {
            details[key] = json!(value);
        }
    }
    Failure::with(StatusCode::FORBIDDEN, "Forbidden", &message, details)
}

/// 500 when the datastore does not answer.
pub(super) fn datastore_hung() -> Failure {
    let message = "rpc error: code = Unavailable desc = keepalive ping failed to receive ACK within timeout";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}
