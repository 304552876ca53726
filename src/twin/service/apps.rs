//! Small HTTP applications: an address echo, and an application with a health path.

use super::ServerHandle;
use super::http::{self, Style, answer};
use crate::vantage::Net;
use hyper::{Method, Response, StatusCode};
use rustls::ServerConfig;
use serde_json::json;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

/// Serves an echo: every GET is answered with the caller's address as text and a newline, as `https://ifconfig.me/ip` and its like do.
pub fn echo(net: &Net, address: impl Into<SocketAddr>, tls: Option<Arc<ServerConfig>>) -> io::Result<ServerHandle> {
    http::serve(net, address, tls, Style::Title, |caller, _| {
        let text = caller.address.map(|address| format!("{address}\n")).unwrap_or_default();
        async move { answer(StatusCode::OK, &[("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")], text) }
    })
}

/// An answer given in the place of the application's own, by what stands in front of it.
#[derive(Clone, Debug)]
pub struct Instead {
    /// HTTP status.
    pub status: u16,
    /// The `Server` header.
    pub server: &'static str,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// Switches an application's answers.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<Mutex<Option<Instead>>>);

impl Switch {
    /// Answers this in the place of everything, or the application again.
    pub fn set(&self, instead: Option<Instead>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = instead;
    }

    fn get(&self) -> Option<Instead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a JSON application is.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name, repeated in every answer.
    pub name: String,
    /// The `Server` header: `uvicorn`, `cloudflare`.
    pub server: String,
    /// Paths that are answered with 200; every other one with 404.
    pub paths: Vec<String>,
    /// What stands in front of it.
    pub switch: Switch,
}

impl Instead {
    fn answer(self) -> Response<http::Body> {
        let mut headers = vec![("server", self.server), ("content-type", "text/html; charset=UTF-8")];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        answer(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &headers, self.body)
    }
}

impl App {
    /// An application with the usual paths: `/` and the common health paths.
    pub fn new(name: &str, server: &str) -> Self {
        let paths = ["/", "/health", "/healthz", "/ready", "/api/health", "/api/v1/status", "/ping"];
        Self { name: name.to_owned(), server: server.to_owned(), paths: paths.map(str::to_owned).to_vec(), switch: Switch::default() }
    }

    /// Answers one more path with 200.
    pub fn path(mut self, path: &str) -> Self {
        self.paths.push(path.to_owned());
        self
    }

    /// Serves it.
    pub fn serve(self, net: &Net, address: SocketAddrV4, tls: Option<Arc<ServerConfig>>) -> io::Result<ServerHandle> {
        let app = Arc::new(self);
        http::serve(net, address, tls, Style::Lower, move |_, request| {
            let (status, body) = match filler(request.method(), request.uri().path()) {
                Some(filler) => (StatusCode::OK, filler),
                None => {
                    let (status, body) = app.look(request.method(), request.uri().path());
                    (status, body.to_string())
                }
            };
            let app = app.clone();
            async move {
                if let Some(instead) = app.switch.get() {
                    return instead.answer();
                }
                answer(status, &[("server", &app.server), ("content-type", "application/json")], body)
            }
        })
    }

    fn look(&self, method: &Method, path: &str) -> (StatusCode, serde_json::Value) {
        let known = self.paths.iter().any(|known| known == path);
        match (known, method == Method::GET || method == Method::HEAD) {
            (true, true) => (StatusCode::OK, json!({"name": self.name, "path": path, "status": "ok"})),
            (true, false) => (StatusCode::METHOD_NOT_ALLOWED, json!({"detail": "Method Not Allowed"})),
            (false, _) => (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
        }
    }
}

/// `/bytes/N` serves a JSON string of N bytes, at most 1 MB: something large to fetch.
fn filler(method: &Method, path: &str) -> Option<String> {
    let length: usize = path.strip_prefix("/bytes/").filter(|_| method == Method::GET)?.parse().ok()?;
    Some(format!("\"{}\"", "x".repeat(length.clamp(2, 1_000_000) - 2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::service::pki::Authority;
    use std::net::Ipv4Addr;

    const LOOPBACK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    #[tokio::test]
    async fn the_echo_names_the_caller_over_tls_too() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let authority = Authority::new("twin").unwrap();
        let tls = authority.server(&["echo.example"], &[Ipv4Addr::LOCALHOST]).unwrap();
        let (plain, secure) = (echo(&Net::Here, LOOPBACK, None).unwrap(), echo(&Net::Here, LOOPBACK, Some(tls)).unwrap());
        let ca = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
        for url in [format!("http://{}/", plain.address().unwrap()), format!("https://{}/ip", secure.address().unwrap())] {
            assert_eq!(client.get(url).send().await.unwrap().text().await.unwrap(), "127.0.0.1\n");
        }
    }

    #[tokio::test]
    async fn an_app_answers_its_paths_and_no_others() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let app = App::new("argilla", "uvicorn").path("/api/_status").serve(&Net::Here, LOOPBACK, None).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (path, status) in [("/api/health", 200), ("/api/_status", 200), ("/nothere", 404)] {
            let answer = client.get(format!("http://{}{path}", app.address().unwrap())).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), &answer.headers()["server"]), (status, &"uvicorn".parse().unwrap()));
        }
    }
}
