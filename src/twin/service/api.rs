//! The Kubernetes API, read-only: what kube-apiserver 1.33 answers to GET and to reviews of access, over TLS with client certificates.

mod access;
mod discovery;
mod health;
pub mod kubelet;
mod list;
mod log;
mod protobuf;
mod status;
mod table;
mod view;
mod watch;

use super::ServerHandle;
use super::http::{self, Body, Caller, Style, answer, query_pairs, with_body};
use super::pki::{Authority, User};
use crate::twin::cluster::{Cluster, Resource};
use crate::vantage::Net;
use access::Asked;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use kubelet::{Log, Trouble};
use rustls::ServerConfig;
use serde_json::Value;
use status::Failure;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use view::View;

/// How long a request waits for a datastore that hangs (measured: 10 to 30 s).
const DATASTORE_PATIENCE: Duration = Duration::from_secs(10);
/// Largest body of a request: reviews are short.
const MOST_BYTES: usize = 64 << 10;
/// The content type of aggregated discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A running API server.
pub struct ApiHandle {
    server: ServerHandle,
    state: Arc<State>,
}

/// What can be changed while it runs.
#[derive(Default)]
struct State {
    hung: AtomicBool,
    clock_ahead_s: AtomicI64,
    kubelets: Mutex<BTreeMap<Ipv4Addr, Trouble>>,
}

impl ApiHandle {
    /// Makes the datastore hang, or lets it go on: `/readyz` and `/livez` fail, lists fail after 10 s, what is served from the
    /// cache (`/version`, `resourceVersion=0`) goes on.
    pub fn set_datastore_hung(&self, hung: bool) {
        self.state.hung.store(hung, Ordering::SeqCst);
    }

    /// Sets how far the host's clock is ahead, as the `Date` of every answer shows.
    pub fn set_clock_ahead(&self, ahead: chrono::TimeDelta) {
        self.state.clock_ahead_s.store(ahead.num_seconds(), Ordering::SeqCst);
    }

    /// Breaks the way to the kubelet of a node's address, or mends it.
    pub fn set_kubelet(&self, node: Ipv4Addr, trouble: Option<Trouble>) {
        let mut kubelets = self.state.kubelets.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => _ = kubelets.insert(node, trouble),
            None => _ = kubelets.remove(&node),
        }
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
    net: Net,
    cluster: Cluster,
    authority: Arc<Authority>,
    version: Arc<str>,
    state: Arc<State>,
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
    let state = Arc::new(State::default());
    let api = Api { net: net.clone(), cluster, authority, version: version.into(), state: state.clone() };
    let server = http::serve(net, address, Some(tls), Style::Title, move |caller, request| {
        let api = api.clone();
        async move { api.handle(caller, request).await }
    })?;
    Ok(ApiHandle { server, state })
}

/// What a request is answered with, before it has headers.
enum Reply {
    Json(StatusCode, Value),
    Aggregated(Value),
    Text(StatusCode, String),
    Stream(Body),
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
    subresource: Option<String>,
}

/// Of a GET request what its answer depends on.
struct Question {
    path: String,
    query: Vec<(String, String)>,
    accept: String,
    host: Option<String>,
}

impl Question {
    fn of(request: &Request<Incoming>) -> Self {
        let accept = request.headers().get("accept").and_then(|v| v.to_str().ok()).unwrap_or("*/*");
        Self {
            path: request.uri().path().to_owned(),
            query: query_pairs(request.uri().query()),
            accept: accept.to_owned(),
            host: request.uri().authority().map(ToString::to_string),
        }
    }

    fn on(&self, name: &str) -> bool {
        http::find(&self.query, name).is_some_and(|v| v != "false" && v != "0")
    }
}

impl Api {
    async fn handle(&self, caller: Caller, request: Request<Incoming>) -> Response<Body> {
        let pretty = wants_pretty(&request);
        let user = self.authority.user(&caller.certificates);
        let reply = match &user {
            None => Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized").into(),
            Some(user) => self.route(user, request).await,
        };
        let mut response = render(reply, pretty, user.is_some());
        let ahead = self.state.clock_ahead_s.load(Ordering::SeqCst);
        if ahead != 0
            && let Ok(date) = http::date_at(chrono::Utc::now() + chrono::TimeDelta::seconds(ahead)).parse()
        {
            response.headers_mut().insert("date", date);
        }
        response
    }

    async fn route(&self, user: &User, request: Request<Incoming>) -> Reply {
        let question = Question::of(&request);
        let segments: Vec<&str> = question.path.split('/').filter(|s| !s.is_empty()).collect();
        if request.method() == Method::POST {
            let body = http::read_body(request, MOST_BYTES).await.unwrap_or_default();
            return match (access::review(user, &segments, &body), target(&segments)) {
                (Some(reply), _) => reply,
                (None, Some(_)) => status::method_not_allowed().into(),
                (None, None) => not_found(),
            };
        }
        if request.method() != Method::GET {
            return if target(&segments).is_some() { status::method_not_allowed().into() } else { not_found() };
        }
        match segments[..] {
            ["version"] => Reply::Json(StatusCode::OK, discovery::version(&self.version)),
            ["readyz" | "livez" | "healthz", ..] => health::check(&segments, &question.query, self.state.hung.load(Ordering::SeqCst)),
            ["api"] | ["apis"] if discovery::wants_aggregated(&question.accept) => Reply::Aggregated(discovery::aggregated(segments[0])),
            _ => match (discovery::document(&segments, question.host.as_deref()), target(&segments)) {
                (Some(document), _) => Reply::Json(StatusCode::OK, document),
                (None, Some(target)) => self.objects(user, &target, &question).await.unwrap_or_else(Reply::from),
                (None, None) => not_found(),
            },
        }
    }

    async fn objects(&self, user: &User, target: &Target, question: &Question) -> Result<Reply, Failure> {
        let watch = target.name.is_none() && question.on("watch");
        let plural = target.resource.plural();
        let resource = target.subresource.as_ref().map_or_else(|| plural.to_owned(), |sub| format!("{plural}/{sub}"));
        let verb = match (&target.name, watch) {
            (Some(_), _) => "get",
            (None, true) => "watch",
            (None, false) => "list",
        };
        let (namespace, name) = (target.namespace.as_deref(), target.name.as_deref());
        access::check(user, &Asked { verb, group: target.resource.group(), resource: &resource, namespace, name })?;
        let cached = name.is_none() && http::find(&question.query, "resourceVersion") == Some("0");
        if self.state.hung.load(Ordering::SeqCst) && !cached {
            tokio::time::sleep(DATASTORE_PATIENCE).await;
            return Err(status::datastore_hung());
        }
        if let (Some(name), Some(sub)) = (name, target.subresource.as_deref()) {
            return self.subresource(namespace.unwrap_or(""), name, sub, question).await;
        }
        let view = View::of(&question.accept, http::find(&question.query, "includeObject"));
        if watch {
            let selection = list::Selection::of(target.resource, namespace, &question.query)?;
            return watch::body(&self.cluster, selection, &question.query, view).map(Reply::Stream);
        }
        let value = match name {
            Some(name) => {
                let found = self.cluster.read(|objects| objects.get(target.resource, namespace.unwrap_or(""), name).cloned());
                view.one(target.resource, found.ok_or_else(|| status::not_found(target.resource, name))?)
            }
            None => {
                let goes_on = |version| self.cluster.changes_since(version).is_ok();
                let (metadata, objects) =
                    self.cluster.read(|objects| list::list(objects, target.resource, namespace, &question.query, goes_on))?;
                view.list(target.resource, &metadata, objects)
            }
        };
        Ok(Reply::Json(StatusCode::OK, value))
    }

    /// What only a kubelet can answer.
    async fn subresource(&self, namespace: &str, name: &str, subresource: &str, question: &Question) -> Result<Reply, Failure> {
        if kubelet::needs_upgrade(subresource) {
            return Err(kubelet::upgrade_required());
        }
        let log = self.cluster.read(|objects| Log::of(objects, namespace, name))?;
        let trouble = |node| self.state.kubelets.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        log.dial(&self.net, trouble).await?;
        Ok(log::log(&self.cluster, namespace, name, &question.query))
    }
}

fn not_found() -> Reply {
    Reply::Text(StatusCode::NOT_FOUND, "404 page not found\n".into())
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
    let (resource, namespace, name, sub) = match rest {
        [plural] => (resource(plural, false)?, None, None, None),
        ["namespaces", namespace, plural] => (resource(plural, true)?, Some(namespace), None, None),
        ["namespaces", namespace, plural, name] => (resource(plural, true)?, Some(namespace), Some(name), None),
        ["namespaces", namespace, "pods", name, sub @ ("log" | "exec" | "attach" | "portforward")] => {
            (resource("pods", true)?, Some(namespace), Some(name), Some(sub))
        }
        [plural, name] => (resource(plural, false).filter(|r| !r.namespaced())?, None, Some(name), None),
        _ => return None,
    };
    let owned = |text: Option<&&str>| text.map(|s| (*s).to_owned());
    Some(Target { resource, namespace: owned(namespace), name: owned(name), subresource: owned(sub) })
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
    let mut stream = None;
    let (status, content_type, body) = match reply {
        Reply::Json(status, value) if pretty => (status, "application/json", format!("{value:#}")),
        Reply::Json(status, value) => (status, "application/json", format!("{value}\n")),
        Reply::Aggregated(value) => (StatusCode::OK, AGGREGATED, format!("{value}\n")),
        Reply::Text(status, text) => (status, "text/plain; charset=utf-8", text),
        Reply::Stream(body) => {
            stream = Some(body);
            (StatusCode::OK, "application/json", String::new())
        }
    };
    let audit = audit_id();
    let mut headers = vec![("audit-id", audit.as_str()), ("cache-control", "no-cache, private"), ("content-type", content_type)];
    if status == StatusCode::GATEWAY_TIMEOUT {
        headers.push(("retry-after", "1"));
    }
    if content_type.starts_with("text") || status == StatusCode::FORBIDDEN {
        headers.push(("x-content-type-options", "nosniff"));
    }
    if known {
        headers.push(("x-kubernetes-pf-flowschema-uid", "adb8dba8-75ef-4bbc-92c7-404142661328"));
        headers.push(("x-kubernetes-pf-prioritylevel-uid", "63ee4d1a-e091-4c4c-b20d-8c86741ca9fa"));
    }
    match stream {
        Some(body) => with_body(status, &headers, body),
        None => answer(status, &headers, body),
    }
}

/// A random UUID (RFC 9562, version 4).
fn audit_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    let (a, b) = (word(), word());
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 48 & 0x3fff | 0x8000, b & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests;
