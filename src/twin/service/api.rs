//! The Kubernetes API, read-only: what kube-apiserver 1.33 answers to GET, over TLS with client certificates.

mod discovery;
mod health;
mod list;
mod log;
mod status;

use super::ServerHandle;
use super::http::{self, Body, Caller, Style, answer, query_pairs};
use super::pki::Authority;
use crate::twin::cluster::{Cluster, Objects, Resource};
use crate::vantage::Net;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use rustls::ServerConfig;
use serde_json::{Value, json};
use status::Failure;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a request waits for a datastore that hangs (measured: 10 to 30 s).
const DATASTORE_PATIENCE: Duration = Duration::from_secs(10);

/// A running API server.
pub struct ApiHandle {
    server: ServerHandle,
    hung: Arc<AtomicBool>,
}

impl ApiHandle {
    /// Makes the datastore hang, or lets it go on: `/readyz` and `/livez` fail, lists fail after 10 s, what is served from the
    /// cache (`/version`, `resourceVersion=0`) goes on.
    pub fn set_datastore_hung(&self, hung: bool) {
        self.hung.store(hung, Ordering::SeqCst);
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.server.address()
    }

    /// Stops the server.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

#[derive(Clone)]
struct Api {
    cluster: Cluster,
    authority: Arc<Authority>,
    version: Arc<str>,
    hung: Arc<AtomicBool>,
}

/// Serves a cluster's API. `tls` comes from [`Authority::server_that_asks`]; `version` is `gitVersion`, such as `v1.33.4+k3s1`.
pub fn serve(
    net: &Net,
    address: SocketAddrV4,
    cluster: Cluster,
    authority: Arc<Authority>,
    tls: Arc<ServerConfig>,
    version: &str,
) -> io::Result<ApiHandle> {
    let hung = Arc::new(AtomicBool::new(false));
    let api = Api { cluster, authority, version: version.into(), hung: hung.clone() };
    let server = http::serve(net, address, Some(tls), Style::Title, move |caller, request| {
        let api = api.clone();
        async move { api.handle(caller, request).await }
    })?;
    Ok(ApiHandle { server, hung })
}

/// What a request is answered with, before it has headers.
enum Reply {
    Json(StatusCode, Value),
    Text(StatusCode, String),
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Json(failure.code, failure.body)
    }
}

/// Objects by path.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
}

impl Api {
    async fn handle(&self, caller: Caller, request: Request<Incoming>) -> Response<Body> {
        let pretty = wants_pretty(&request);
        if !self.authority.admits(&caller.certificates) {
            return render(Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized").into(), pretty, false);
        }
        render(self.route(&request).await, pretty, true)
    }

    async fn route(&self, request: &Request<Incoming>) -> Reply {
        let query = query_pairs(request.uri().query());
        let path = request.uri().path();
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let get = request.method() == Method::GET;
        match segments[..] {
            ["version"] if get => Reply::Json(StatusCode::OK, discovery::version(&self.version)),
            ["api", "v1", "namespaces", namespace, "pods", pod, "log"] if get => log::log(&self.cluster, namespace, pod, &query),
            ["readyz" | "livez" | "healthz", ..] if get => health::check(&segments, &query, self.hung.load(Ordering::SeqCst)),
            _ => match (discovery::document(&segments, request.uri().authority().map(|a| a.as_str())), target(&segments)) {
                (Some(document), _) if get => Reply::Json(StatusCode::OK, document),
                (_, Some(target)) if get => self.objects(target, &query).await,
                (None, None) => Reply::Text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
                _ => status::method_not_allowed().into(),
            },
        }
    }

    async fn objects(&self, target: Target, query: &[(String, String)]) -> Reply {
        let cached = target.name.is_none() && http::find(query, "resourceVersion") == Some("0");
        if self.hung.load(Ordering::SeqCst) && !cached {
            tokio::time::sleep(DATASTORE_PATIENCE).await;
            return status::datastore_hung().into();
        }
        if http::find(query, "watch").is_some_and(|v| v != "false" && v != "0") {
            return status::method_not_allowed().into();
        }
        let found = self.cluster.read(|objects| match &target.name {
            Some(name) => get(objects, &target, name),
            None => list::list(objects, target.resource, target.namespace.as_deref(), query),
        });
        found.map_or_else(Reply::from, |value| Reply::Json(StatusCode::OK, value))
    }
}

fn get(objects: &Objects, target: &Target, name: &str) -> Result<Value, Failure> {
    let namespace = target.namespace.as_deref().unwrap_or("");
    let object = objects.get(target.resource, namespace, name).ok_or_else(|| status::not_found(target.resource, name))?;
    let mut whole = json!({"kind": target.resource.kind(), "apiVersion": target.resource.api_version()});
    if let (Some(whole), Some(object)) = (whole.as_object_mut(), object.as_object()) {
        whole.extend(object.clone());
    }
    Ok(whole)
}

/// The objects that a path names, if it is the path of any.
fn target(segments: &[&str]) -> Option<Target> {
    let (group, rest) = match segments {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, "v1", rest @ ..] => (*group, rest),
        _ => return None,
    };
    let resource = |plural: &str, namespaced: bool| {
        Resource::ALL.into_iter().find(|r| r.plural() == plural && r.group() == group && (r.namespaced() || !namespaced))
    };
    let (resource, namespace, name) = match rest {
        [plural] => (resource(plural, false)?, None, None),
        ["namespaces", namespace, plural] => (resource(plural, true)?, Some(namespace), None),
        ["namespaces", namespace, plural, name] => (resource(plural, true)?, Some(namespace), Some(name)),
        [plural, name] => (resource(plural, false).filter(|r| !r.namespaced())?, None, Some(name)),
        _ => return None,
    };
    Some(Target { resource, namespace: namespace.map(|s| (*s).to_owned()), name: name.map(|s| (*s).to_owned()) })
}

/// kube-apiserver indents for people: curl, wget and browsers, or who asks by `?pretty`.
fn wants_pretty(request: &Request<Incoming>) -> bool {
    let query = query_pairs(request.uri().query());
    let agent = request.headers().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or("");
    match http::find(&query, "pretty") {
        Some(value) => value != "false" && value != "0",
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix)),
    }
}

/// `known` is whether the caller passed authentication; only then priority and fairness adds its headers.
fn render(reply: Reply, pretty: bool, known: bool) -> Response<Body> {
    let (status, content_type, body) = match reply {
        Reply::Json(status, value) if pretty => (status, "application/json", format!("{value:#}")),
        Reply::Json(status, value) => (status, "application/json", format!("{value}\n")),
        Reply::Text(status, text) => (status, "text/plain; charset=utf-8", text),
    };
    let audit = audit_id();
    let mut headers = vec![("audit-id", audit.as_str()), ("cache-control", "no-cache, private"), ("content-type", content_type)];
    if status == StatusCode::GATEWAY_TIMEOUT {
        headers.push(("retry-after", "1"));
    }
    if content_type.starts_with("text") {
        headers.push(("x-content-type-options", "nosniff"));
    }
    if known {
        headers.push(("x-kubernetes-pf-flowschema-uid", "adb8dba8-75ef-4bbc-92c7-404142661328"));
        headers.push(("x-kubernetes-pf-prioritylevel-uid", "63ee4d1a-e091-4c4c-b20d-8c86741ca9fa"));
    }
    answer(status, &headers, body)
}

/// A random UUID (RFC 9562, version 4).
fn audit_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    let (a, b) = (word(), word());
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 48 & 0x3fff | 0x8000, b & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests;
