//! A stand-in for vLLM 0.32 serving one model, with a set pace: the same answers, byte for byte where they do not depend on a model.

mod chunks;
mod engine;
mod fetch;
mod image;
mod metrics;
mod request;

use super::ServerHandle;
use super::http::{self, Body, Style, answer, date, read_body, with_body};
use crate::vantage::Net;
use engine::{Engine, Token};
pub use engine::{Traffic, Trouble};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use request::{Endpoint, Refusal, Work};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

const METRICS_TYPE: &str = "text/plain; version=1.0.0; charset=utf-8";
/// Largest request body.
const LARGEST_BODY: usize = 64 << 20;

/// How fast tokens come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the request to the first token.
    pub first_token: Duration,
    /// From one token to the next.
    pub interval: Duration,
}

/// What is served.
#[derive(Clone, Debug)]
pub struct Vllm {
    /// The model's name.
    pub model: String,
    /// Longest sequence, in tokens.
    pub max_model_len: u32,
    /// How fast tokens come.
    pub pace: Pace,
}

impl Vllm {
    /// Serves it.
    pub fn serve(self, net: &Net, address: SocketAddrV4) -> io::Result<VllmHandle> {
        let engine = Arc::new(Engine::new(self, net));
        let server = listen(&engine, net, address)?;
        let address = server.address().unwrap_or(address);
        Ok(VllmHandle { server: Mutex::new(Some(server)), engine, net: net.clone(), address })
    }
}

fn listen(engine: &Arc<Engine>, net: &Net, address: SocketAddrV4) -> io::Result<ServerHandle> {
    let shared = engine.clone();
    http::serve(net, address, None, Style::Lower, move |_, request| {
        let engine = shared.clone();
        async move { route(&engine, request).await }
    })
}

/// A running server.
pub struct VllmHandle {
    server: Mutex<Option<ServerHandle>>,
    engine: Arc<Engine>,
    net: Net,
    address: SocketAddrV4,
}

impl VllmHandle {
    /// Freezes the engine process, or lets it go on: every GET stays 200, streams have headers and then nothing, counters are flat.
    pub fn set_frozen(&self, frozen: bool) {
        self.engine.set_frozen(frozen);
    }

    /// Changes the pace for tokens that are still to come.
    pub fn set_pace(&self, pace: Pace) {
        self.engine.change(|served| served.pace = pace);
    }

    /// Serves the model under another name.
    pub fn set_model(&self, model: &str) {
        self.engine.change(|served| model.clone_into(&mut served.model));
    }

    /// Adds requests of others to the gauges `num_requests_running` and `num_requests_waiting`.
    pub fn set_load(&self, running: u32, waiting: u32) {
        self.engine.set_load(running, waiting);
    }

    /// Sets what other clients make it do.
    pub fn set_traffic(&self, traffic: Traffic) {
        self.engine.set_traffic(traffic);
    }

    /// Gives it a trouble, or none.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.engine.set_trouble(trouble);
    }

    /// Sends several tokens in each chunk but the first (`--stream-interval`).
    pub fn set_stream_interval(&self, tokens: u32) {
        self.engine.set_stream_interval(tokens);
    }

    /// Adds to each answer what it cost: kinds of prompt tokens and times, as options of the server switch on.
    pub fn set_details(&self, details: bool) {
        self.engine.set_details(details);
    }

    /// Asks for a key (`--api-key`) below `/v1`.
    pub fn set_api_key(&self, key: Option<&str>) {
        self.engine.set_api_key(key);
    }

    /// Changes the longest sequence that it takes (`--max-model-len`).
    pub fn set_max_model_len(&self, tokens: u32) {
        self.engine.change(|served| served.max_model_len = tokens);
    }

    /// Tells what names resolve to on its host, for images that it fetches itself.
    pub fn set_names(&self, names: BTreeMap<String, Ipv4Addr>) {
        self.engine.change_host(|host| host.names = names);
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddrV4> {
        Some(self.address)
    }

    /// Closes its port, as while the service loads the model.
    pub async fn close(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// Opens its port again.
    pub fn open(&self) -> io::Result<()> {
        let server = listen(&self.engine, &self.net, self.address)?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Stops it.
    pub async fn stop(self) {
        self.close().await;
    }
}

/// uvicorn's headers around a content type; an empty one is left out.
fn reply(status: StatusCode, content_type: &str, body: String) -> Response<Body> {
    let (date, length) = (date(), body.len().to_string());
    let mut headers = vec![("date", date.as_str()), ("server", "uvicorn"), ("content-length", length.as_str())];
    if !content_type.is_empty() {
        headers.push(("content-type", content_type));
    }
    headers.push(("vary", "Origin"));
    answer(status, &headers, body)
}

fn json_reply(status: StatusCode, body: &Value) -> Response<Body> {
    reply(status, "application/json", body.to_string())
}

fn not_allowed(allow: &str) -> Response<Body> {
    let (date, body) = (date(), "{\"detail\":\"Method Not Allowed\"}");
    let headers = [
        ("date", date.as_str()),
        ("server", "uvicorn"),
        ("allow", allow),
        ("content-length", "31"),
        ("content-type", "application/json"),
        ("vary", "Origin"),
    ];
    answer(StatusCode::METHOD_NOT_ALLOWED, &headers, body)
}

/// Said by the layer in front of the application, which adds no `vary`.
fn unauthorized() -> Response<Body> {
    let refusal = Refusal::unauthorized();
    let (date, body) = (date(), refusal.body.to_string());
    let length = body.len().to_string();
    let headers = [("date", date.as_str()), ("server", "uvicorn"), ("content-length", &length), ("content-type", "application/json")];
    answer(refusal.status, &headers, body)
}

async fn route(engine: &Arc<Engine>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let get = request.method() == Method::GET;
    let post = request.method() == Method::POST;
    if path.starts_with("/v1/") && !engine.admits_key(request.headers().get("authorization").map(HeaderValue::as_bytes)) {
        return unauthorized();
    }
    match path.as_str() {
        "/health" | "/ping" if engine.crashed() && get => reply(StatusCode::SERVICE_UNAVAILABLE, "", String::new()),
        "/metrics" if get && engine.trouble() == Trouble::NoMetrics => reply(StatusCode::OK, METRICS_TYPE, String::new()),
        "/health" | "/ping" if get || (post && path == "/ping") => reply(StatusCode::OK, "", String::new()),
        "/version" if get => json_reply(StatusCode::OK, &json!({"version": "0.32.0"})),
        "/load" if get => json_reply(StatusCode::OK, &json!({"server_load": 0})),
        "/v1/models" if get => json_reply(StatusCode::OK, &chunks::models(&engine.served(), engine.started())),
        "/metrics" if get => reply(StatusCode::OK, METRICS_TYPE, engine.metrics()),
        "/v1/chat/completions" if post => complete(engine, request, Endpoint::Chat).await,
        "/v1/completions" if post => complete(engine, request, Endpoint::Text).await,
        "/tokenize" if post => tokenize(engine, request).await,
        "/health" | "/ping" | "/version" | "/load" | "/v1/models" | "/metrics" => not_allowed("GET"),
        "/v1/chat/completions" | "/v1/completions" | "/tokenize" => not_allowed("POST"),
        _ => json_reply(StatusCode::NOT_FOUND, &json!({"detail": "Not Found"})),
    }
}

/// One token a word; their numbers mean nothing.
async fn tokenize(engine: &Arc<Engine>, request: Request<Incoming>) -> Response<Body> {
    let body = read_body(request, LARGEST_BODY).await.unwrap_or_default();
    let prompt = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let words = prompt["prompt"].as_str().unwrap_or_default().split_whitespace().count();
    let numbers: Vec<usize> = (1..=words).collect();
    let body = json!({"count": words, "max_model_len": engine.served().max_model_len, "tokens": numbers, "token_strs": null});
    json_reply(StatusCode::OK, &body)
}

async fn complete(engine: &Arc<Engine>, request: Request<Incoming>, endpoint: Endpoint) -> Response<Body> {
    let content_type = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let read = match read_body(request, LARGEST_BODY).await {
        Some(body) => request::read(&engine.served(), endpoint, &content_type, &body),
        None => Err(Refusal::too_large()),
    };
    let admitted = match read.and_then(|work| engine.admit(&work).map(|()| work)) {
        Ok(Work { fetch: Some(url), .. }) => Err(fetch::image(&engine.host(), &url).await),
        other => other,
    };
    match admitted {
        Err(refusal) => json_reply(refusal.status, &refusal.body),
        Ok(work) => {
            engine.preprocess(&work).await;
            let (events, model, details) = (engine.start(&work), engine.served().model, engine.details());
            if work.stream {
                streamed(events, chunks::Lines::new(work, model, engine.stream_interval(), details))
            } else {
                whole(events, &work, &model, details).await
            }
        }
    }
}

/// An answer of server-sent events; its headers leave at once, before the engine has done anything.
fn streamed(events: mpsc::Receiver<Token>, lines: chunks::Lines) -> Response<Body> {
    let stream = futures::stream::unfold((events, lines), |(mut events, mut lines)| async move {
        loop {
            if let Some(text) = lines.pop() {
                return Some((Ok::<_, Infallible>(Frame::data(text.into())), (events, lines)));
            }
            if lines.closed() {
                return None;
            }
            lines.add(events.recv().await);
        }
    });
    let date = date();
    let headers =
        [("date", date.as_str()), ("server", "uvicorn"), ("content-type", "text/event-stream; charset=utf-8"), ("vary", "Origin")];
    with_body(StatusCode::OK, &headers, Body::new(StreamBody::new(stream)))
}

/// An answer in one piece.
async fn whole(mut events: mpsc::Receiver<Token>, work: &Work, model: &str, details: Option<chunks::Details>) -> Response<Body> {
    let (mut text, mut reason, mut tokens) = (String::new(), "length", 0);
    while let Some(token) = events.recv().await {
        if token.died {
            let refusal = Refusal::dead();
            return json_reply(refusal.status, &refusal.body);
        }
        text.push_str(token.text);
        tokens += 1;
        reason = token.finish.unwrap_or(reason);
    }
    let mut body = chunks::whole(work, model, &text, reason, tokens);
    if let Some(details) = details {
        details.add_to(&mut body, work, tokens, false);
    }
    json_reply(StatusCode::OK, &body)
}

#[cfg(test)]
mod captures;
#[cfg(test)]
mod tests;
