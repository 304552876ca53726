//! GET of a URL, phase by phase: resolve, connect, TLS, send, headers, body.

use super::basic_auth;
use super::http1::{self, Answer};
use super::lookup::{How, Lookup, lookup};
use super::net::{connect_to, ms};
use super::resolv::ResolvConf;
use super::tls;
use crate::check::{Observation, clean, secret};
use crate::vantage::Vantage;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::header::AUTHORIZATION;
use reqwest::Url;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Most bytes of a body that are kept.
const MOST_BODY_BYTES: usize = 64 << 10;

/// An `http` or `https` URL with a host name or an IPv4 address.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct HttpUrl(Url);

impl TryFrom<String> for HttpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The text itself stays out of the message: it may hold a password.
        let url = Url::parse(&text).map_err(|e| format!("not a URL: {e}"))?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) if !host.starts_with('[') => Ok(Self(url)),
            ("http" | "https", _) => Err("a URL needs a host name or an IPv4 address".to_owned()),
            (other, _) => Err(format!("a URL must be http or https, not {other}")),
        }
    }
}

impl fmt::Display for HttpUrl {
    /// Without what is or may be secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&secret::mask(self.0.as_str()))
    }
}

impl HttpUrl {
    /// The host's name or address.
    pub(super) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Whether the host is a name, not an address.
    pub(super) fn has_name(&self) -> bool {
        self.host().parse::<Ipv4Addr>().is_err()
    }

    /// The port, also where the URL leaves it to the scheme.
    pub(super) fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }

    /// A text of the server without what this URL holds in secret: some servers repeat what they were sent.
    fn redact(&self, text: &str) -> String {
        let login = self.0.password().and_then(|password| basic_auth::header(self.0.username(), password));
        let header = login.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Basic ")).unwrap_or_default();
        let held = secret::held_by(&self.0);
        secret::without(text, held.iter().map(String::as_str).chain([header]))
    }

    /// Whether it is asked for over TLS.
    pub(super) fn https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The whole URL without user, password and fragment, as a proxy is asked for it.
    pub(super) fn absolute(&self) -> String {
        let mut url = self.0.clone();
        url.set_fragment(None);
        // Of an http URL both can be taken away.
        let _ = (url.set_username(""), url.set_password(None));
        url.into()
    }

    fn request(&self) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
        let url = &self.0;
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let host = url.port().map_or_else(|| self.host().to_owned(), |port| format!("{}:{port}", self.host()));
        let mut request = http1::request(Method::GET, &path, &host);
        if let (Some(password), Some(headers)) = (url.password(), request.headers_mut()) {
            headers.extend(basic_auth::header(url.username(), password).map(|value| (AUTHORIZATION, value)));
        }
        request.body(Full::default())
    }
}

/// A redirect's target as reports may show it: login pages carry tokens in the query, in user information and in the path.
fn without_secrets(location: &str) -> String {
    let bare = location.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}//{host}{}", secret::mask_path(path))
        }
        None => secret::mask_path(bare),
    }
}

/// Where a request stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Name resolution.
    Resolve,
    /// TCP handshake.
    Connect,
    /// TLS handshake.
    Tls,
    /// No byte of the request could be written.
    Send,
    /// Waiting for the head of the answer.
    Headers,
    /// Reading the body.
    Body,
    /// It did not stop.
    Done,
}

impl Stage {
    /// The word for reports.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Send => "send",
            Self::Headers => "headers",
            Self::Body => "body",
            Self::Done => "done",
        }
    }
}

/// What came of a request. A time is there if its phase began, also if the phase failed.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Where it stopped.
    pub(super) stage: Stage,
    /// Errno word, TIMEOUT, EOF, `dns: ..`, `tls: ..`, `not HTTP`; empty if the answer came.
    pub(super) error: String,
    /// The name lookup; none for an address literal.
    pub(super) lookup: Option<Lookup>,
    /// Address connected to.
    pub(super) address: Option<IpAddr>,
    /// Name resolution; zero for an address literal.
    pub(super) resolve: Option<Duration>,
    /// TCP handshake.
    pub(super) connect: Option<Duration>,
    /// TLS handshake; zero for http.
    pub(super) tls: Option<Duration>,
    /// From the request's last byte to the headers.
    pub(super) first_byte: Option<Duration>,
    /// Everything.
    pub(super) total: Duration,
    /// HTTP status; 0 if there was no answer.
    pub(super) status: u16,
    /// The `Server` header; empty if absent.
    pub(super) server: String,
    /// The `Location` header without user, password and query; empty if absent.
    pub(super) location: String,
    /// The `CF-Ray` header, by which Cloudflare marks what passed its edge; empty if absent.
    pub(super) cf_ray: String,
    /// The server's certificate; also if it is not to be trusted.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The start of the body.
    pub(super) body: Vec<u8>,
}

type Step<T> = Result<T, (Stage, String)>;

/// By which protocol to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    Four,
    /// IPv6. The name is still looked up over IPv4, as the cluster's resolvers are.
    Six,
}

/// Asks for a URL from a vantage. No redirect is followed: it is the answer. The error says why nothing could be tried.
pub(super) async fn get(vantage: &Vantage, url: &HttpUrl, nameserver: Option<SocketAddrV4>, deadline: Instant) -> Result<Exchange, String> {
    get_over(Family::Four, vantage, url, nameserver, deadline).await
}

/// [`get`] over a protocol of choice.
pub(super) async fn get_over(
    family: Family,
    vantage: &Vantage,
    url: &HttpUrl,
    nameserver: Option<SocketAddrV4>,
    deadline: Instant,
) -> Result<Exchange, String> {
    let roots = if url.https() { Some(tls::roots(vantage).await?) } else { None };
    let conf = match (url.host().parse::<Ipv4Addr>(), nameserver) {
        (Ok(_), _) => None,
        (Err(_), Some(server)) => Some(ResolvConf::only(server)),
        (Err(_), None) => Some(ResolvConf::of(vantage)?),
    };
    let began = Instant::now();
    let mut exchange = Exchange::new();
    let run = Run { family, vantage, url, deadline };
    let outcome = run.all(&mut exchange, conf, roots).await;
    (exchange.stage, exchange.error) = outcome.map_or_else(|failed| failed, |()| (Stage::Done, String::new()));
    exchange.total = began.elapsed();
    Ok(exchange)
}

struct Run<'a> {
    family: Family,
    vantage: &'a Vantage,
    url: &'a HttpUrl,
    deadline: Instant,
}

impl Run<'_> {
    async fn all(&self, exchange: &mut Exchange, conf: Option<ResolvConf>, roots: Option<Arc<RootCertStore>>) -> Step<()> {
        let address = self.resolve(exchange, conf).await?;
        exchange.address = Some(address);
        let stream = self.connect(exchange, address).await?;
        match roots {
            None => {
                exchange.tls = Some(Duration::ZERO);
                self.ask(exchange, stream).await
            }
            Some(roots) => {
                let stream = self.handshake(exchange, stream, roots).await?;
                self.ask(exchange, stream).await
            }
        }
    }

    async fn resolve(&self, exchange: &mut Exchange, conf: Option<ResolvConf>) -> Step<IpAddr> {
        let began = Instant::now();
        let Some(conf) = conf else {
            exchange.resolve = Some(Duration::ZERO);
            let literal = self.url.host().parse().ok().filter(|_| self.family == Family::Four);
            return literal.map(IpAddr::V4).ok_or_else(|| (Stage::Resolve, "dns: no address".to_owned()));
        };
        let how = How { aaaa: self.family == Family::Six, ..How::default() };
        let found = lookup(&self.vantage.net, &conf, self.url.host(), how, self.deadline).await;
        exchange.resolve = Some(began.elapsed());
        let found = found.map_err(|reason| (Stage::Resolve, format!("dns: {reason}")))?;
        let address = match self.family {
            Family::Four => found.address().map(IpAddr::V4).ok_or_else(|| format!("dns: {}", found.rcode())),
            Family::Six => found.address_six().map(IpAddr::V6).ok_or_else(|| "dns: no IPv6 address".to_owned()),
        };
        exchange.lookup = Some(found);
        address.map_err(|word| (Stage::Resolve, word))
    }

    async fn connect(&self, exchange: &mut Exchange, address: IpAddr) -> Step<TcpStream> {
        match connect_to(&self.vantage.net, SocketAddr::new(address, self.url.port()), self.deadline).await {
            Ok((stream, after)) => {
                exchange.connect = Some(after);
                Ok(stream)
            }
            Err(failed) => {
                exchange.connect = Some(failed.after);
                Err((Stage::Connect, failed.word))
            }
        }
    }

    async fn handshake(
        &self,
        exchange: &mut Exchange,
        stream: TcpStream,
        roots: Arc<RootCertStore>,
    ) -> Step<tokio_rustls::client::TlsStream<TcpStream>> {
        let failed = |word: String| (Stage::Tls, word);
        let name = ServerName::try_from(self.url.host().to_owned()).map_err(|_| failed("tls: wrong name".to_owned()))?;
        let (mut config, recorder): (ClientConfig, _) = tls::recording(Some(roots)).map_err(|e| failed(format!("tls: {e}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let began = Instant::now();
        let outcome = timeout_at(self.deadline, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
        exchange.tls = Some(began.elapsed());
        let shown = recorder.seen();
        exchange.certificate = shown.map(|shown| shown.certificate.clone());
        let stream = match outcome {
            Ok(stream) => stream.map_err(|e| failed(tls::word(&e)))?,
            Err(_) => return Err(failed("TIMEOUT".to_owned())),
        };
        // The recorder let every certificate pass; here it is decided, before a byte of the request is sent.
        match shown.and_then(|shown| shown.verdict.as_ref()) {
            Some(Ok(())) => Ok(stream),
            Some(Err(reason)) => Err(failed(format!("tls: {reason}"))),
            None => Err(failed("tls: the certificate could not be judged".to_owned())),
        }
    }

    async fn ask<S>(&self, exchange: &mut Exchange, stream: S) -> Step<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = self.url.request().map_err(|_| (Stage::Send, "not a valid request".to_owned()))?;
        let answer = http1::send(stream, request, self.deadline).await;
        let mut answer = answer.map_err(|failed| (if failed.sent { Stage::Headers } else { Stage::Send }, failed.word))?;
        exchange.head(&answer);
        let (body, end) = answer.read(MOST_BODY_BYTES, self.deadline).await;
        exchange.body = body;
        end.map(|_| ()).map_err(|word| (Stage::Body, word))
    }
}

impl Exchange {
    fn new() -> Self {
        Self {
            stage: Stage::Resolve,
            error: String::new(),
            lookup: None,
            address: None,
            resolve: None,
            connect: None,
            tls: None,
            first_byte: None,
            total: Duration::ZERO,
            status: 0,
            server: String::new(),
            location: String::new(),
            cf_ray: String::new(),
            certificate: None,
            body: Vec::new(),
        }
    }

    fn head(&mut self, answer: &Answer) {
        let header = |name| answer.head.headers.get(name).map(|v| clean(&String::from_utf8_lossy(v.as_bytes()), 200)).unwrap_or_default();
        self.first_byte = Some(answer.wait());
        self.status = answer.head.status.as_u16();
        self.server = header("server");
        self.location = without_secrets(&header("location"));
        self.cf_ray = header("cf-ray");
    }

    /// The start of the body as text, cleaned.
    pub(super) fn text(&self, most: usize) -> String {
        clean(String::from_utf8_lossy(&self.body).trim(), most)
    }

    /// The same without what the URL that was asked for holds in secret, which is taken out before the cut: half a secret would stay.
    pub(super) fn text_for(&self, url: &HttpUrl, most: usize) -> String {
        clean(url.redact(&String::from_utf8_lossy(&self.body)).trim(), most)
    }

    /// The raw lines: lookup, connection, TLS, answer.
    pub(super) fn note(&self, seen: &mut Observation, url: &HttpUrl) {
        if let Some(found) = &self.lookup {
            found.note(seen);
        }
        if let (Some(address), Some(after)) = (self.address, self.connect) {
            let word = if self.stage == Stage::Connect { &self.error } else { "connected" };
            seen.note("tcp", format!("connect {address}:{} -> {word} ({} ms)", url.port(), ms(after)));
        }
        if self.stage == Stage::Tls {
            seen.note("tls", format!("handshake with {} -> {}", url.host(), self.error));
        }
        let outcome = if self.status > 0 { self.status.to_string() } else { format!("no answer ({}: {})", self.stage.word(), self.error) };
        let location = if self.location.is_empty() { String::new() } else { format!(", location {}", self.location) };
        seen.note("http", format!("GET {url} -> {outcome}{location} ({} ms)", ms(self.total)));
    }
}
