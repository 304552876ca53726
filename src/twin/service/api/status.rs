//! `Status` objects: how the API says no.

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

/// 500 when the datastore does not answer.
pub(super) fn datastore_hung() -> Failure {
    let message = "rpc error: code = Unavailable desc = keepalive ping failed to receive ACK within timeout";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}
