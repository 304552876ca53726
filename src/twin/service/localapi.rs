//! tailscaled's LocalAPI, as 1.98 answers it: status, preferences, DERP map, DNS configuration, ping.

mod ping;
mod state;
mod status;

pub use state::{Backend, ExitNode, Live, Peer, TailscaleState};

use super::ServerHandle;
use super::http::{self, Body, Caller, Style, answer, query_pairs};
use crate::vantage::{Net, UnixAddress};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, Mutex, PoisonError};

/// The version it claims.
const VERSION: &str = "1.98.10";
/// The only `Host` that it serves.
const HOST: &str = "local-tailscaled.sock";

/// A running LocalAPI.
pub struct TailscaleHandle {
    server: ServerHandle,
    state: Arc<Mutex<TailscaleState>>,
}

impl TailscaleHandle {
    /// Changes what tailscaled says.
    pub fn update<R>(&self, change: impl FnOnce(&mut TailscaleState) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What tailscaled says now.
    pub fn state(&self) -> TailscaleState {
        self.update(|state| state.clone())
    }

    /// Stops it; its socket is gone (an abstract one refuses, a socket file is left behind and refuses, as after a crash).
    pub async fn stop(self) -> TailscaleState {
        let state = self.state();
        self.server.stop().await;
        state
    }
}

/// Serves the LocalAPI at a unix socket. Abstract names belong to the network, so they are bound inside of it.
pub fn serve(net: &Net, address: &UnixAddress, state: TailscaleState) -> io::Result<TailscaleHandle> {
    let listener = bind(net, address)?;
    let state = Arc::new(Mutex::new(state));
    let mut server = ServerHandle::new(None);
    let shared = state.clone();
    server.accept(listener, move |stream| {
        let state = shared.clone();
        let caller = Caller { address: None, certificates: Vec::new() };
        http::talk(stream, Style::Title, caller, move |_, request| {
            let state = state.clone();
            async move { handle(&state, request).await }
        })
    });
    Ok(TailscaleHandle { server, state })
}

fn bind(net: &Net, address: &UnixAddress) -> io::Result<tokio::net::UnixListener> {
    let listener = match address {
        UnixAddress::Path(path) => {
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                // What a process that died has left behind; an error shows when binding.
                std::fs::remove_file(path).ok();
            }
            UnixListener::bind(path)?
        }
        UnixAddress::Abstract(name) => {
            let address = SocketAddr::from_abstract_name(name)?;
            net.with(|| UnixListener::bind_addr(&address))??
        }
    };
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

async fn handle(state: &Mutex<TailscaleState>, request: Request<Incoming>) -> Response<Body> {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("");
    if !host.is_empty() && host != HOST {
        return text(StatusCode::FORBIDDEN, "invalid localapi request\n");
    }
    let mut now = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if now.hangs {
        return std::future::pending().await;
    }
    now.refresh();
    let query = query_pairs(request.uri().query());
    let get = request.method() == Method::GET;
    match request.uri().path().strip_prefix("/localapi/v0/") {
        Some("status") if get => json(&status::status(&now, http::find(&query, "peers") != Some("false"))),
        Some("prefs") if get => json(&status::prefs(&now)),
        Some("derpmap") if get => json(&status::derp_map(&now)),
        Some("dns-config") if get => json(&status::dns_config(&now)),
        Some("ping") if request.method() == Method::POST => ping::ping(&now, &query).await,
        Some("ping") => text(StatusCode::BAD_REQUEST, "want POST\n"),
        Some("status" | "prefs" | "derpmap" | "dns-config") => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The headers of every answer around a content type.
fn with_headers(status: StatusCode, content_type: &str, body: Vec<u8>) -> Response<Body> {
    let policy = "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; script-src-attr 'none'";
    let headers = [
        ("content-security-policy", policy),
        ("content-type", content_type),
        ("tailscale-cap", "138"),
        ("tailscale-version", VERSION),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ];
    answer(status, &headers, body)
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    with_headers(status, "text/plain; charset=utf-8", text.into())
}

/// JSON indented by tabs, with a newline at the end.
fn json(value: &Value) -> Response<Body> {
    let mut body = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    // Writing a value into memory cannot fail.
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, format)).ok();
    body.push(b'\n');
    with_headers(StatusCode::OK, "application/json", body)
}

#[cfg(test)]
mod captured;
#[cfg(test)]
mod tests;
