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
        for fact in KIND.facts {
            seen.facts.unknown(fact.path, stopped.as_str());
        }
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
mod tests {
    use super::super::testing::{Ca, listen, vantage};
    use super::*;
    use crate::check::Facts;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const REFUSED: &[u8] = b"E\0\0\0\x56SFATAL\0C28000\0Mno pg_hba.conf entry for host \"203.0.113.50\", user \"fathom\", no SSL\0\0";
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

    /// A server that answers SSLRequest with `first`, speaks TLS after an `S`, and answers the StartupMessage with `then`.
    async fn server(ca: &Ca, name: &str, first: &'static [u8], then: &'static [u8]) -> SocketAddrV4 {
        let acceptor = ca.acceptor(name, 2031);
        listen(move |mut stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, pg_wire::SSL_REQUEST);
                stream.write_all(first).await.unwrap();
                match first {
                    b"S" => answer(acceptor.accept(stream).await.unwrap(), then).await,
                    b"N" => answer(stream, then).await,
                    _ => {}
                }
            }
        })
        .await
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, then: &[u8]) {
        let mut startup = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap() - 4];
        stream.read_exact(&mut startup).await.unwrap();
        assert_eq!(startup, b"\0\x03\0\0user\0fathom\0database\0postgres\0\0");
        stream.write_all(then).await.unwrap();
        let _ = stream.read_to_end(&mut startup).await;
    }

    async fn look(ca: &Ca, host: &str, server: SocketAddrV4) -> Observation {
        let mut here = vantage("nameserver 127.0.0.1");
        here.files.trust = Some(vec![ca.root.clone()]);
        let probe = Postgres { host: host.into(), address: Some(Ipv4Addr::LOCALHOST), port: server.port() };
        probe.look(&here, Instant::now() + Duration::from_secs(3)).await
    }

    fn get<'a>(facts: &'a Facts, path: &str) -> &'a Value {
        facts.get(path).unwrap_or(&Value::Null)
    }

    #[tokio::test]
    async fn the_servers_own_words_over_tls() {
        let ca = Ca::new("ca");
        let seen = look(&ca, "127.0.0.1", server(&ca, "127.0.0.1", b"S", REFUSED).await).await;
        let facts = &seen.facts;
        assert_eq!((get(facts, "tls"), get(facts, "tls_name_ok"), get(facts, "ssl_answer")), (&json!(true), &json!(true), &json!("S")));
        assert_eq!(get(facts, "certificate_expires"), "2031-12-31T00:00:00Z");
        assert_eq!((get(facts, "startup"), get(facts, "sqlstate")), (&json!("error"), &json!("28000")));
        assert_eq!(get(facts, "source_seen"), "203.0.113.50");
        assert!(facts.unknowns().is_empty(), "{facts:?}");
    }

    #[tokio::test]
    async fn a_bad_certificate_does_not_stop_it() {
        let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
        for (trusted, name, reason) in [(&ours, "other.example", "wrong name"), (&theirs, "127.0.0.1", "unknown issuer")] {
            let seen = look(trusted, "127.0.0.1", server(&ours, name, b"S", SASL).await).await;
            assert_eq!((get(&seen.facts, "tls"), get(&seen.facts, "tls_name_ok")), (&json!(true), &json!(false)));
            assert_eq!((get(&seen.facts, "startup"), get(&seen.facts, "auth_method")), (&json!("auth"), &json!("scram-sha-256")));
            assert!(seen.evidence.iter().any(|e| e.text.contains(reason)), "{:?}", seen.evidence);
        }
    }

    #[tokio::test]
    async fn without_tls_it_still_listens() {
        let ca = Ca::new("ca");
        let facts = look(&ca, "127.0.0.1", server(&ca, "a", b"N", REFUSED).await).await.facts;
        assert_eq!((get(&facts, "tls"), get(&facts, "sqlstate")), (&json!(false), &json!("28000")));
        let facts = look(&ca, "127.0.0.1", server(&ca, "a", b"HTTP/1.1 400 Bad Request", b"").await).await.facts;
        assert_eq!((get(&facts, "ssl_answer"), get(&facts, "message")), (&json!("H"), &json!("")));
        assert!(facts.unknowns().contains_key("startup"));
        let facts = look(&ca, "127.0.0.1", server(&ca, "a", b"", b"").await).await.facts;
        assert_eq!(get(&facts, "ssl_answer"), "eof");
        let facts = look(&ca, "127.0.0.1", server(&ca, "a", b"Ecould not fork\n\0", b"").await).await.facts;
        assert_eq!((get(&facts, "startup"), get(&facts, "message")), (&json!("error"), &json!("could not fork")));
    }

    #[tokio::test]
    async fn hostile_servers_are_left_in_time() {
        /// What such a server sends after an `N`, over and over.
        const HOSTILE: [&[u8]; 6] =
            [b"N\0\0\0\x08Mx\0\0", b"E\xff\xff\xff\xff", b"E\0\0\0\0", b"R\0\0\0\x04", b"S\0\0\0\x10garbage garbage", b"\0"];
        let ca = Ca::new("ca");
        let began = Instant::now();
        for piece in HOSTILE {
            let server = listen(move |mut stream| async move {
                let _ = stream.read_exact(&mut [0; 8]).await;
                let _ = stream.write_all(b"N").await;
                while stream.write_all(piece).await.is_ok() {}
            });
            let facts = look(&ca, "127.0.0.1", server.await).await.facts;
            assert!(["garbage", "error", "eof"].contains(&get(&facts, "startup").as_str().unwrap()), "{piece:?}: {facts:?}");
            assert!(get(&facts, "auth_method").as_str().is_some_and(str::is_empty), "{facts:?}");
        }
        // Plain text behind the `S` is no TLS: it must not be taken for the server's words (CVE-2021-23222).
        let injected = server(&ca, "127.0.0.1", b"SE\0\0\0\x0bC28000\0\0", b"").await;
        let facts = look(&ca, "127.0.0.1", injected).await.facts;
        assert_eq!((get(&facts, "tls"), get(&facts, "sqlstate")), (&json!(false), &json!("")), "{facts:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn one_byte_at_a_time_meets_the_deadline() {
        let ca = Ca::new("ca");
        let slow = listen(|mut stream| async move {
            let _ = stream.read_exact(&mut [0; 8]).await;
            for byte in *b"NE\0\0\0\x10" {
                let _ = stream.write_all(&[byte]).await;
            }
            let _kept = stream;
            std::future::pending().await
        });
        let began = Instant::now();
        let facts = look(&ca, "127.0.0.1", slow.await).await.facts;
        assert_eq!(get(&facts, "startup"), "timeout");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_sslmodes_that_work() {
        let ca = Ca::new("ca");
        let modes =
            |facts: &Facts| get(facts, "sslmodes").as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let facts = look(&ca, "127.0.0.1", server(&ca, "127.0.0.1", b"S", SASL).await).await.facts;
        assert_eq!(modes(&facts), ["allow", "prefer", "require", "verify-ca", "verify-full"], "{facts:?}");
        let facts = look(&ca, "127.0.0.1", server(&ca, "other.example", b"S", SASL).await).await.facts;
        assert_eq!(modes(&facts), ["allow", "prefer", "require", "verify-ca"]);
        let facts = look(&ca, "127.0.0.1", server(&ca, "a", b"N", SASL).await).await.facts;
        assert_eq!(modes(&facts), ["disable", "allow", "prefer"]);
        let facts = look(&ca, "127.0.0.1", server(&ca, "127.0.0.1", b"S", REFUSED).await).await.facts;
        assert!(modes(&facts).is_empty());
    }

    #[tokio::test]
    async fn a_closed_port_leaves_the_rest_unknown() {
        let ca = Ca::new("ca");
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let seen = look(&ca, "127.0.0.1", SocketAddrV4::new(Ipv4Addr::LOCALHOST, closed.port())).await;
        assert_eq!((get(&seen.facts, "connected"), get(&seen.facts, "connect_error")), (&json!(false), &json!("ECONNREFUSED")));
        assert_eq!(seen.facts.unknowns()["tls"], "no TCP connection");
        assert_eq!(get(&seen.facts, "sqlstate"), "");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_told_apart() {
        let nothing = "nameserver ::1";
        let probe = Postgres { host: "p.db.example".into(), address: None, port: 5432 };
        let seen = probe.look(&vantage(nothing), Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(seen.could_not_look.as_deref(), Some("resolv.conf names no IPv4 nameserver"));
    }
}
