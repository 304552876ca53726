//! Requests to a Kubernetes API server from inside a vantage's network. Shared by the probes that ask it.
//!
//! kube's client does the work (kubeconfig, certificates, tokens, exec plugins); around it come a deadline per request, a bound
//! on every body, and failures in stable words.

#[cfg(test)]
mod captured;
mod clock;
mod config;
mod exec;
mod failure;
#[cfg(test)]
pub(in crate::probe) mod fake;
mod list;
mod log;

pub(crate) use failure::{At, Failure};
pub(crate) use list::{MOST_SEEN, Shape, kept as kept_of_list};
pub(crate) use log::Container;

use super::{Context, net, tls};
use crate::check::clean;
pub(crate) use crate::encoding::percent_encoded as encode;
use crate::vantage::Net;
use bytes::Bytes;
use chrono::Utc;
use config::{Found, Missing};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Body as _;
use hyper::header::{ACCEPT, HOST, HeaderValue};
use kube::client::Body;
use kube::{Client, Config};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::{Ipv4Addr, SocketAddrV4, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest wait for one whole answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the TLS handshake: the TCP one has been proven before.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest body that is read.
const MOST_BYTES: usize = 10 << 20;

/// Why there is no client.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// No kubeconfig; the sentence names every place that was tried.
    NoKubeconfig(String),
    /// A kubeconfig that cannot be used.
    Unusable {
        /// Where it came from.
        source: String,
        /// What is wrong.
        failure: Failure,
    },
}

impl OpenError {
    /// One clause for a reason.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NoKubeconfig(reason) => reason,
            Self::Unusable { failure, .. } => &failure.word,
        }
    }
}

/// A client of one API server, in one network, until one deadline.
pub(crate) struct KubeApi {
    /// The kubeconfig that was used.
    pub(crate) source: String,
    /// The server's URL, as the kubeconfig has it.
    pub(crate) server: String,
    /// The context of the kubeconfig.
    pub(crate) context: String,
    config: Config,
    /// The vantage, for whom else an exec plugin's credentials are good.
    place: String,
    net: Net,
    deadline: Instant,
}

/// A client whose server accepted a TCP connection.
pub(crate) struct Connected {
    client: Client,
    net: Net,
    deadline: Instant,
    requests: AtomicUsize,
    /// Time of the TCP handshake; absent where the server has no IPv4 address.
    pub(crate) handshake: Option<Duration>,
}

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body, at most 10 MB.
    pub(crate) body: Bytes,
    /// How many seconds the server's clock is ahead of ours, by the answer's `Date`; half a second exact, and the time of the answer.
    pub(crate) clock_ahead_s: Option<f64>,
}

/// Opens the API as this vantage's kubeconfig describes it, and connects.
pub(crate) async fn connected(cx: &Context) -> Result<Connected, String> {
    let api = KubeApi::open(cx).await.map_err(|e| e.reason().to_owned())?;
    api.connect().await.map_err(|failure| format!("the Kubernetes API {} cannot be reached: {}", api.server, failure.word))
}

impl KubeApi {
    /// Finds and reads the kubeconfig. Nothing is sent.
    pub(crate) async fn open(cx: &Context) -> Result<Self, OpenError> {
        let (vantage, inventory) = (cx.vantage.clone(), cx.inventory.clone());
        let reading = tokio::task::spawn_blocking(move || config::find(&vantage, &inventory));
        let found = match timeout_at(cx.deadline, reading).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => return Err(OpenError::NoKubeconfig("the kubeconfig could not be read in time".to_owned())),
        };
        let Found { source, context, mut config } = match found {
            Ok(found) => found,
            Err(Missing::Nowhere(reason)) => return Err(OpenError::NoKubeconfig(clean(&reason, 600))),
            Err(Missing::Unusable { source, failure }) => return Err(OpenError::Unusable { source, failure }),
        };
        config.connect_timeout = Some(HANDSHAKE_TIMEOUT);
        config.default_retry = false;
        let server = clean(&config.cluster_url.to_string(), 200);
        let context = clean(&context, 120);
        let (place, net) = (cx.vantage.id.clone(), cx.vantage.net.clone());
        Ok(Self { source, server, context, config, place, net, deadline: cx.deadline })
    }

    /// Connects once, for the kernel's own word on it, and makes the client.
    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        let address = self.address().await?;
        let handshake = match address {
            Some(to) => Some(net::connect(&self.net, to, self.deadline).await.map_err(|e| Failure::new(At::Connect, e.word))?.1),
            None => None,
        };
        let client = self.client(address).await?;
        Ok(Connected { client, net: self.net.clone(), deadline: self.deadline, requests: AtomicUsize::new(0), handshake })
    }

    /// By what the kubeconfig proves who asks: `client certificate`, `token`, `exec plugin NAME`, ..
    pub(crate) fn credentials(&self) -> String {
        config::credentials(&self.config)
    }

    /// The certificate that the server shows (DER), also one that is not to be trusted.
    pub(crate) async fn server_certificate(&self) -> Option<Vec<u8>> {
        let (_, recorder) = self.untrusted().await?;
        recorder.seen().map(|seen| seen.certificate.to_vec())
    }

    /// How far the clock of a server is ahead whose certificate is refused: it is asked for `/version` without credentials, and
    /// whatever it answers has a date.
    pub(crate) async fn clock_ahead_s(&self) -> Option<f64> {
        let (session, _) = self.untrusted().await?;
        clock::of_untrusted(session?, self.config.cluster_url.host()?, self.deadline.min(Instant::now() + HANDSHAKE_TIMEOUT)).await
    }

    /// A TLS session with whoever is there, and what was shown in the handshake. Some servers end the session without a client
    /// certificate; theirs has been seen by then.
    async fn untrusted(&self) -> Option<(Option<TlsStream<TcpStream>>, Arc<tls::Recorder>)> {
        let address = self.address().await.ok().flatten()?;
        let (stream, _) = net::connect(&self.net, address, self.deadline).await.ok()?;
        let (config, recorder) = tls::recording(None).ok()?;
        let name = ServerName::try_from(self.config.cluster_url.host()?.to_owned()).ok()?;
        let until = self.deadline.min(Instant::now() + HANDSHAKE_TIMEOUT);
        let session = timeout_at(until, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
        Some((session.ok().and_then(Result::ok), recorder))
    }

    /// The client certificate of the kubeconfig (DER).
    pub(crate) async fn client_certificate(&self) -> Option<Vec<u8>> {
        let auth = &self.config.auth_info;
        let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
            // The data are PEM in base64: in the dress of PEM themselves, the reader of PEM decodes them.
            (Some(data), _) => {
                let dressed = format!("-----BEGIN CERTIFICATE-----\n{data}\n-----END CERTIFICATE-----\n");
                CertificateDer::from_pem_slice(dressed.as_bytes()).ok()?.to_vec()
            }
            (None, Some(path)) => tokio::fs::read(path).await.ok()?,
            (None, None) => return None,
        };
        CertificateDer::from_pem_slice(&pem).ok().map(|certificate| certificate.to_vec())
    }

    /// The server's IPv4 address; `None` if it has only an IPv6 one. A name is resolved inside the network.
    async fn address(&self) -> Result<Option<SocketAddrV4>, Failure> {
        let url = &self.config.cluster_url;
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        let host = url.host().unwrap_or_default().to_owned();
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Some(SocketAddrV4::new(ip, port)));
        }
        if host.starts_with('[') {
            return Ok(None);
        }
        let (net, name) = (self.net.clone(), host.clone());
        let looking = tokio::task::spawn_blocking(move || net.with(|| (name, port).to_socket_addrs().map(Vec::from_iter)));
        let v4 = |a: &std::net::SocketAddr| if let std::net::SocketAddr::V4(v4) = a { Some(*v4) } else { None };
        match timeout_at(self.deadline, looking).await {
            Ok(Ok(Ok(Ok(addresses)))) => Ok(addresses.iter().find_map(v4)),
            _ => Err(Failure::new(At::Connect, format!("cannot resolve {host}"))),
        }
    }

    /// kube's client. It reads files and may ask for a token, synchronously, hence the thread; that too must be inside the network.
    async fn client(&self, address: Option<SocketAddrV4>) -> Result<Client, Failure> {
        let (net, mut config) = (self.net.clone(), self.config.clone());
        exec::fill(&mut config.auth_info, &net, &self.place, self.deadline).await?;
        let provider = exec::without_provider_command(&mut config.auth_info);
        if let Some(address) = address {
            pin(&mut config, address);
        }
        let building = tokio::task::spawn_blocking(move || net.with(|| Client::try_from(config)));
        match timeout_at(self.deadline, building).await {
            Ok(Ok(Ok(Ok(client)))) => Ok(client),
            Ok(Ok(Ok(Err(_)))) if provider.is_some() => Err(Failure::new(At::Config, provider.unwrap_or_default())),
            Ok(Ok(Ok(Err(error)))) => Err(Failure { at: At::Config, ..Failure::from_kube(&error) }),
            Ok(Ok(Err(error))) => Err(Failure::new(At::Config, error.to_string())),
            Ok(Err(_)) => Err(Failure::new(At::Config, "the client could not be made")),
            Err(_) => Err(Failure::new(At::Config, "the kubeconfig's credentials took too long")),
        }
    }
}

/// Puts the address in place of the server's name: hyper would resolve it on a thread outside of the network. The name
/// stays what the certificate and the `Host` header are about.
fn pin(config: &mut Config, address: SocketAddrV4) {
    let Some(host) = config.cluster_url.host().filter(|host| host.parse::<Ipv4Addr>().is_err()).map(str::to_owned) else {
        return;
    };
    let name = config.cluster_url.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let mut parts = config.cluster_url.clone().into_parts();
    parts.authority = address.to_string().parse().ok();
    if let Ok(url) = hyper::Uri::from_parts(parts) {
        config.cluster_url = url;
        config.tls_server_name.get_or_insert(host);
        config.headers.extend(name.map(|name| (HOST, name)));
    }
}

impl Connected {
    /// Asks for a path; at most 5 seconds, at most until the deadline.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.get_as(path, "application/json").await
    }

    async fn get_as(&self, path: &str, accept: &'static str) -> Result<Answer, Failure> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let patience = self.deadline.saturating_duration_since(Instant::now()).min(REQUEST_TIMEOUT);
        // kube opens its connection while this future is polled, so its socket is made inside the network.
        match timeout(patience, self.net.wrap(self.fetch_kept(path, accept))).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(At::Http, "TIMEOUT")),
        }
    }

    /// The client keeps its connections, and a server may close one while it is being used again. That says nothing about the
    /// server: a GET is then sent once more (RFC 9112 section 9.3.1).
    async fn fetch_kept(&self, path: &str, accept: &'static str) -> Result<Answer, Failure> {
        match self.fetch(path, accept).await {
            Err(failure) if failure.before_any_answer() => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                self.fetch(path, accept).await
            }
            result => result,
        }
    }

    async fn fetch(&self, path: &str, accept: &'static str) -> Result<Answer, Failure> {
        let request = Request::get(path).header(ACCEPT, accept).body(Body::empty());
        let request = request.map_err(|e| Failure::new(At::Http, format!("not a path: {e}")))?;
        let asked = Utc::now();
        let response = self.client.send(request).await.map_err(|e| Failure::from_kube(&e))?;
        let status = response.status().as_u16();
        let clock_ahead_s = clock::ahead_s(response.headers(), asked);
        // What says itself that it is too large need not be read to find out.
        if response.body().size_hint().lower() > MOST_BYTES as u64 {
            return Err(too_large());
        }
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(cut_short)?;
        Ok(Answer { status, body: body.to_bytes(), clock_ahead_s })
    }

    /// How many requests have been sent.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Asks for one object. `what` is verb and resource, for a refusal: `get services`.
    pub(crate) async fn object<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, Failure> {
        self.get(path).await?.json(what)
    }
}

fn cut_short(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    match error.downcast::<kube::Error>() {
        Ok(error) => Failure { detail: Failure::from_kube(&error).detail, ..Failure::new(At::Http, "an answer that was cut short") },
        Err(_) => too_large(),
    }
}

fn too_large() -> Failure {
    Failure::new(At::TooLarge, "an answer of more than 10 MB")
}

/// What the API server sends with every error (`kind: Status`).
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

impl Answer {
    /// The object in the answer, or why there is none.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, Failure> {
        if let Some(failure) = self.failure(what) {
            return Err(failure);
        }
        serde_json::from_slice(&self.body).map_err(|e| self.no_api(&e))
    }

    /// The answer is not what an API server sends.
    fn no_api(&self, error: &serde_json::Error) -> Failure {
        let begins = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        Failure { detail: clean(&format!("{error}: {begins}"), 300), ..Failure::new(At::NotApi, "not an API server") }
    }

    /// What a status other than 2xx means; `what` is verb and resource.
    pub(crate) fn failure(&self, what: &str) -> Option<Failure> {
        if (200..300).contains(&self.status) {
            return None;
        }
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        let Ok(said) = serde_json::from_slice::<Status>(&self.body) else {
            let detail = clean(&format!("{} {text}", self.status), 300);
            return Some(Failure { detail, ..Failure::new(At::NotApi, "not an API server") });
        };
        let (at, word) = match self.status {
            401 => (At::Denied, "401 Unauthorized".to_owned()),
            403 => (At::Denied, format!("403 Forbidden ({what})")),
            status => (At::Status(status), format!("{status} {}", said.message).trim_end().to_owned()),
        };
        Some(Failure { detail: clean(&said.message, 300), ..Failure::new(at, word) })
    }
}
