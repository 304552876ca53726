//! `postgres`: a PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words.

use super::lookup::{How, lookup};
use super::net::{connect, ms};
use super::pg_wire::{self, Answer};
use super::resolv::ResolvConf;
use super::{Context, Kind, Probe, decode, der, fact, tls};
use crate::check::{Observation, clean};
use crate::vantage::Vantage;
use async_trait::async_trait;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words.
pub(super) static KIND: Kind = Kind {
    name: "postgres",
    root: "postgres",
    about: "A PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words",
    privilege: None,
    args: &[("host", "host name"), ("address", "address to connect to (absent: what the name resolves to)"), ("port", "port")],
    facts: &[
        fact("resolved", "bool", "the name has an address"),
        fact("address", "address", "address connected to"),
        fact("address_given", "bool", "the inventory states an address: the name is not needed to connect"),
        fact("connected", "bool", "TCP handshake completed"),
        fact("connect_error", "text", "errno word or TIMEOUT; empty if connected"),
        fact("connect_ms", "ms", "until connected or failed"),
        fact("ssl_answer", "text", "answer to SSLRequest: S, N, H (an HTTP server), E (an error at once), `eof`, `timeout`, or `garbage`"),
        fact("tls", "bool", "TLS handshake completed"),
        fact("tls_error", "text", "why not; empty if it did"),
        fact("tls_name_ok", "bool", "the certificate is for this host name and trusted"),
        fact("certificate_expires", "text", "notAfter, RFC 3339"),
        fact("startup", "text", "`auth`, `error`, `eof`, `timeout` or `garbage`: answer to the StartupMessage"),
        fact("auth_method", "text", "scram-sha-256, md5, cleartext, trust, ...; empty if none"),
        fact("sqlstate", "text", "SQLSTATE of the error; empty if none"),
        fact("message", "text", "the server's message; empty if none"),
        fact("plain", "text", "answer to a StartupMessage without TLS, on a connection of its own: as `startup`; empty if not tried"),
        fact("sslmodes", "list of text", "libpq's sslmode values that get as far as authentication from here"),
        fact("source_seen", "address", "source address that the message names; empty if none"),
        fact("total_ms", "ms", "the whole exchange"),
    ],
    decode: decode::<Postgres>,
};

/// How long one answer of the server may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Postgres {
    host: String,
    #[serde(default)]
    address: Option<Ipv4Addr>,
    port: u16,
}

/// One look: what was asked, until when, and what was seen so far.
struct Look<'a> {
    probe: &'a Postgres,
    vantage: &'a Vantage,
    deadline: Instant,
    seen: Observation,
    /// The certificate's chain is trusted, whatever its name.
    trusted: bool,
}

impl Postgres {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let began = Instant::now();
        let mut look = Look { probe: self, vantage, deadline, seen: Observation::default(), trusted: false };
        let stopped = look.exchange().await;
        if look.seen.could_not_look.is_some() {
            return look.seen;
        }
        look.seen.facts.set("total_ms", ms(began.elapsed())).set("address_given", self.address.is_some());
        look.sslmodes().await;
        let mut seen = look.seen;
        for path in ["auth_method", "sqlstate", "message", "source_seen"] {
            if seen.facts.get(path).is_none() {
                seen.facts.set(path, "");
            }
        }
        seen.rest_unknown(&KIND, &stopped);
        seen
    }
}

impl Look<'_> {
    /// Goes as far as it can; returns why it went no further, for the facts that stay unknown.
    async fn exchange(&mut self) -> String {
        let Some(address) = self.resolve().await else { return format!("{} has no address", clean(&self.probe.host, 253)) };
        self.seen.facts.set("address", address.to_string());
        let Some(mut stream) = self.connect(address).await else { return "no TCP connection".to_owned() };
        match self.ask_for_tls(&mut stream).await {
            Some(b'S') => match self.handshake(stream).await {
                Some(stream) => self.start_up(stream).await,
                None => return "no TLS".to_owned(),
            },
            // Without TLS no secret may be sent, but none is: the server's own words are wanted.
            Some(b'N') => self.start_up(stream).await,
            Some(b'E') => {
                let answer = pg_wire::read_early_error(&mut stream, self.patience()).await;
                self.record(&answer);
            }
            _ => return "no answer to SSLRequest that PostgreSQL gives".to_owned(),
        }
        "the server did not show it".to_owned()
    }

    fn patience(&self) -> Instant {
        self.deadline.min(Instant::now() + PATIENCE)
    }

    /// The address to connect to: the one given, else the one the name has.
    async fn resolve(&mut self) -> Option<Ipv4Addr> {
        let given = self.probe.address;
        if let Ok(literal) = self.probe.host.parse::<Ipv4Addr>() {
            self.seen.facts.set("resolved", true);
            return given.or(Some(literal));
        }
        let found = match ResolvConf::of(self.vantage) {
            Ok(conf) => lookup(&self.vantage.net, &conf, &self.probe.host, How::default(), self.deadline).await,
            Err(reason) => Err(reason),
        };
        match found {
            Ok(found) => {
                found.note(&mut self.seen);
                self.seen.facts.set("resolved", found.address().is_some());
                if found.address().is_none() && given.is_none() {
                    self.seen.facts.set("connected", false);
                }
                given.or(found.address())
            }
            Err(reason) => {
                self.seen.facts.unknown("resolved", reason.as_str());
                self.seen.could_not_look = given.is_none().then_some(reason);
                given
            }
        }
    }

    /// Which of libpq's sslmode values would get as far as authentication. A server that takes both is asked a second
    /// time, without TLS, and only if it has let us come that far with it.
    async fn sslmodes(&mut self) {
        let text = |look: &Self, path: &str| look.seen.facts.get(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let holds = |look: &Self, path: &str| look.seen.facts.get(path) == Some(&Value::Bool(true));
        let auth = text(self, "startup") == "auth";
        let encrypted = auth && holds(self, "tls");
        let plain = match (encrypted, auth) {
            (true, _) => self.start_up_plain(&text(self, "address")).await,
            (false, true) => "auth".to_owned(),
            (false, false) => String::new(),
        };
        let (plain_ok, name_ok) = (plain == "auth", holds(self, "tls_name_ok"));
        let accepted = [
            ("disable", plain_ok),
            ("allow", plain_ok || encrypted),
            ("prefer", plain_ok || encrypted),
            ("require", encrypted),
            ("verify-ca", encrypted && (name_ok || self.trusted)),
            ("verify-full", encrypted && name_ok),
        ];
        let accepted: Vec<&str> = accepted.into_iter().filter_map(|(mode, ok)| ok.then_some(mode)).collect();
        self.seen.facts.set("plain", plain).set("sslmodes", accepted);
    }

    /// The word for a server's answer to a start-up without TLS.
    async fn start_up_plain(&mut self, address: &str) -> String {
        let Ok(address) = address.parse() else { return String::new() };
        let to = SocketAddrV4::new(address, self.probe.port);
        let Ok((mut stream, _)) = connect(&self.vantage.net, to, self.patience()).await else { return String::new() };
        let answer = pg_wire::start_up(&mut stream, self.patience()).await;
        let session = answer == Ok(Answer::Auth("trust".to_owned()));
        pg_wire::close(&mut stream, session, self.patience()).await;
        let word = match &answer {
            Ok(Answer::Auth(_)) => "auth",
            Ok(Answer::Error { .. }) => "error",
            Err(ending) => ending.word(),
        };
        let said = if let Ok(Answer::Error { sqlstate, message }) = &answer { format!(" {sqlstate}: {message}") } else { String::new() };
        self.seen.note("postgres", format!("without TLS: StartupMessage -> {word}{said}"));
        word.to_owned()
    }

    async fn connect(&mut self, address: Ipv4Addr) -> Option<TcpStream> {
        let to = SocketAddrV4::new(address, self.probe.port);
        let (stream, error, after) = match connect(&self.vantage.net, to, self.deadline).await {
            Ok((stream, after)) => (Some(stream), String::new(), after),
            Err(failed) => (None, failed.word, failed.after),
        };
        let word = if error.is_empty() { "connected" } else { &error };
        self.seen.note("tcp", format!("connect {to} -> {word} ({} ms)", ms(after)));
        self.seen.facts.set("connected", stream.is_some()).set("connect_error", error).set("connect_ms", ms(after));
        stream
    }

    async fn ask_for_tls(&mut self, stream: &mut TcpStream) -> Option<u8> {
        let answer = pg_wire::ask_for_tls(stream, self.patience()).await;
        let word = match &answer {
            Ok(byte @ (b'S' | b'N' | b'H' | b'E')) => char::from(*byte).to_string(),
            Ok(_) => "garbage".to_owned(),
            Err(ending) => ending.word().to_owned(),
        };
        self.seen.note("postgres", format!("SSLRequest -> {word}"));
        if word != "S" {
            self.seen.facts.set("tls", false).set("tls_error", format!("the answer to SSLRequest was {word}"));
        }
        self.seen.facts.set("ssl_answer", word);
        answer.ok()
    }

    /// A certificate that a strict client would refuse does not stop the exchange: the verdict is recorded.
    async fn handshake(&mut self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let roots = tls::roots(self.vantage).await;
        let no_roots = roots.as_ref().err().cloned();
        let name = ServerName::try_from(self.probe.host.clone()).map_err(|_| "tls: the host name is not valid".to_owned());
        let (outcome, recorder) = match (name, tls::recording(roots.ok())) {
            (Ok(name), Ok((config, recorder))) => {
                let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
                let outcome = timeout_at(self.patience(), handshake).await;
                let outcome = outcome.map_or_else(|_| Err("TIMEOUT".to_owned()), |done| done.map_err(|e| tls::word(&e)));
                (outcome, Some(recorder))
            }
            (Err(reason), _) | (_, Err(reason)) => (Err(reason), None),
        };
        if let Some(shown) = recorder.as_ref().and_then(|r| r.seen()) {
            self.judge(shown, no_roots.as_deref());
        }
        let error = outcome.as_ref().err().cloned().unwrap_or_default();
        self.seen.note("tls", if error.is_empty() { "handshake -> done".to_owned() } else { format!("handshake -> {error}") });
        self.seen.facts.set("tls", error.is_empty()).set("tls_error", error);
        outcome.ok()
    }

    fn judge(&mut self, shown: &tls::Seen, no_roots: Option<&str>) {
        let expires = der::not_after(&shown.certificate).map(|at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        let word = match &shown.verdict {
            Some(Ok(())) => "trusted, for this name".to_owned(),
            Some(Err(reason)) => reason.clone(),
            None => "not judged".to_owned(),
        };
        self.seen.note("tls", format!("certificate: {word}; expires {}", expires.as_deref().unwrap_or("unknown")));
        let ok = shown.verdict.as_ref().map(Result::is_ok);
        // The chain is judged before the name.
        self.trusted = matches!(&shown.verdict, Some(Ok(()))) || matches!(&shown.verdict, Some(Err(reason)) if reason == "wrong name");
        self.seen.facts.set_or_unknown("tls_name_ok", ok, no_roots.unwrap_or("the certificate could not be judged"));
        self.seen.facts.set_or_unknown("certificate_expires", expires, "the certificate could not be read");
    }

    async fn start_up<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S) {
        match pg_wire::start_up(&mut stream, self.patience()).await {
            Ok(answer) => {
                self.record(&answer);
                let session = answer == Answer::Auth("trust".to_owned());
                pg_wire::close(&mut stream, session, self.patience()).await;
            }
            Err(ending) => {
                self.seen.note("postgres", format!("StartupMessage -> {}", ending.word()));
                self.seen.facts.set("startup", ending.word());
            }
        }
    }

    fn record(&mut self, answer: &Answer) {
        match answer {
            Answer::Auth(method) => {
                self.seen.note("postgres", format!("StartupMessage -> AuthenticationRequest {method}"));
                self.seen.facts.set("startup", "auth").set("auth_method", method.as_str());
            }
            Answer::Error { sqlstate, message } => {
                self.seen.note("postgres", format!("ErrorResponse {sqlstate}: {message}"));
                let source = pg_wire::source_seen(message).map(|a| a.to_string()).unwrap_or_default();
                self.seen.facts.set("startup", "error").set("sqlstate", sqlstate.as_str()).set("message", message.as_str());
                self.seen.facts.set("source_seen", source);
            }
        }
    }
}

#[async_trait]
impl Probe for Postgres {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        format!("{}:{}", clean(&self.host, 253), self.port)
    }
}

#[cfg(test)]
mod tests;
