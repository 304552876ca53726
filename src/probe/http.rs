//! `http`: an HTTP(S) request, phase by phase.

use super::http_get::{Exchange, HttpUrl, Stage, get};
use super::net::ms;
use super::resolv::Nameserver;
use super::{Context, Kind, Probe, decode, der, fact};
use crate::check::Observation;
use crate::vantage::Vantage;
use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::Instant;

/// An HTTP(S) request, phase by phase.
pub(super) static KIND: Kind = Kind {
    name: "http",
    root: "http",
    about: "An HTTP(S) request, phase by phase",
    privilege: None,
    args: &[
        ("url", "URL"),
        ("nameserver", "nameserver for the host name, `ADDRESS` or `ADDRESS:PORT` (absent: the vantage's own resolver)"),
        ("status", "expected status, for the evidence only"),
        ("contains", "text that the body must hold (optional)"),
        ("json", "JSON pointer (RFC 6901) into the body, with `equals` (optional)"),
        ("equals", "what must stand there"),
    ],
    facts: &[
        fact("status", "number", "HTTP status; 0 if there was no answer"),
        fact("error", "text", "errno word, TIMEOUT, EOF, `dns: ..`, `tls: ..`, `not HTTP`; empty if answered"),
        fact("stage", "text", "where it stopped: resolve, connect, tls, send, headers, body, or done"),
        fact("address", "address", "address connected to"),
        fact("resolve_ms", "ms", "name resolution"),
        fact("connect_ms", "ms", "TCP handshake"),
        fact("tls_ms", "ms", "TLS handshake; 0 for http"),
        fact("first_byte_ms", "ms", "request sent until headers"),
        fact("total_ms", "ms", "everything"),
        fact("server", "text", "Server header"),
        fact("cf_ray", "text", "CF-Ray header: the answer passed Cloudflare's edge; empty if absent"),
        fact(
            "answered_by",
            "text",
            "who made the answer: `cloudflare` (its edge, by a status of its own or error code), `origin behind cloudflare`, or the Server header",
        ),
        fact("location", "text", "target of a redirect, without query; empty if none"),
        fact("certificate_issuer", "text", "who issued the server's certificate, trusted or not; empty for http"),
        fact("certificate_expires", "text", "notAfter, RFC 3339; empty for http"),
        fact("body_ok", "bool", "the body is as `contains`, `json` and `equals` want it; unknown without them"),
        fact("body", "text", "start of the body, cleaned"),
    ],
    decode: decode::<Http>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    url: HttpUrl,
    #[serde(default)]
    nameserver: Option<Nameserver>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    contains: Option<String>,
    #[serde(default)]
    json: Option<String>,
    #[serde(default)]
    equals: Option<serde_json::Value>,
}

impl Http {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let nameserver = self.nameserver.map(|n| n.0);
        match get(vantage, &self.url, nameserver, deadline).await {
            Ok(exchange) => self.observed(&exchange),
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn observed(&self, exchange: &Exchange) -> Observation {
        let mut seen = Observation::default();
        exchange.note(&mut seen, &self.url);
        if let Some(expected) = self.status.filter(|expected| exchange.status > 0 && *expected != exchange.status) {
            seen.note("http", format!("status {expected} was expected"));
        }
        facts(exchange, &self.url, &mut seen);
        seen.facts.set_or_unknown("body_ok", self.body_ok(exchange), "nothing was asked of the body, or none came");
        seen
    }

    /// Whether the body is what it must be, if anything was asked of it.
    fn body_ok(&self, exchange: &Exchange) -> Option<bool> {
        if exchange.status == 0 || (self.contains.is_none() && self.json.is_none()) {
            return None;
        }
        let contains = self.contains.as_ref().is_none_or(|wanted| String::from_utf8_lossy(&exchange.body).contains(wanted.as_str()));
        let json = self.json.as_ref().is_none_or(|pointer| {
            let body = serde_json::from_slice::<serde_json::Value>(&exchange.body).ok();
            let found = body.as_ref().and_then(|body| body.pointer(pointer));
            found.is_some_and(|found| self.equals.as_ref().is_none_or(|wanted| wanted == found))
        });
        Some(contains && json)
    }
}

/// Who made an answer: Cloudflare's edge has statuses (520 to 530) and a text (`error code: 1033`) of its own.
fn answered_by(exchange: &Exchange) -> String {
    let edge = !exchange.cf_ray.is_empty() || exchange.server == "cloudflare";
    let own = (520..=530).contains(&exchange.status) || exchange.body.starts_with(b"error code: ");
    match (edge, own) {
        (true, true) => "cloudflare".to_owned(),
        (true, false) => "origin behind cloudflare".to_owned(),
        (false, _) => exchange.server.clone(),
    }
}

/// Issuer and expiry of the certificate; both empty over http.
fn certificate(exchange: &Exchange, seen: &mut Observation, stopped: &str) {
    let unread = "the certificate could not be read";
    match &exchange.certificate {
        Some(shown) => {
            let (issuer, expires) = (der::issuer(shown), der::not_after(shown).map(|at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string()));
            let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
            seen.note("tls", format!("certificate issued by {}, valid until {}", word(&issuer), word(&expires)));
            seen.facts.set_or_unknown("certificate_issuer", issuer, unread).set_or_unknown("certificate_expires", expires, unread);
        }
        None if exchange.tls == Some(std::time::Duration::ZERO) => {
            seen.facts.set("certificate_issuer", "").set("certificate_expires", "");
        }
        None => {
            seen.facts.unknown("certificate_issuer", stopped).unknown("certificate_expires", stopped);
        }
    }
}

fn facts(exchange: &Exchange, url: &HttpUrl, seen: &mut Observation) {
    let stopped = format!("stopped at {}: {}", exchange.stage.word(), exchange.error);
    let answered = exchange.status > 0;
    let text = |text: String| answered.then_some(text);
    seen.facts
        .set("status", exchange.status)
        .set("error", exchange.error.as_str())
        .set("stage", exchange.stage.word())
        .set_or_unknown("address", exchange.address.map(|a| a.to_string()), &stopped)
        .set_or_unknown("resolve_ms", exchange.resolve.map(ms), &stopped)
        .set_or_unknown("connect_ms", exchange.connect.map(ms), &stopped)
        .set_or_unknown("tls_ms", exchange.tls.map(ms), &stopped)
        .set_or_unknown("first_byte_ms", exchange.first_byte.map(ms), &stopped)
        .set("total_ms", ms(exchange.total))
        .set_or_unknown("server", text(exchange.server.clone()), &stopped)
        .set_or_unknown("cf_ray", text(exchange.cf_ray.clone()), &stopped)
        .set_or_unknown("answered_by", text(answered_by(exchange)), &stopped)
        .set_or_unknown("location", text(exchange.location.clone()), &stopped)
        .set_or_unknown("body", text(exchange.text_for(url, 2000)), &stopped);
    certificate(exchange, seen, &stopped);
    if exchange.stage == Stage::Done && !exchange.body.is_empty() {
        seen.note("http", exchange.text_for(url, 300));
    }
}

#[async_trait]
impl Probe for Http {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        self.url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::testing::{reply, serve};
    use super::super::testing::{Ca, answer, http, listen, read_request, vantage};
    use super::*;
    use crate::check::Facts;
    use hickory_resolver::proto::op::ResponseCode;
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    fn probe(url: &str) -> Http {
        Http { url: url.to_owned().try_into().unwrap(), nameserver: None, status: Some(200), contains: None, json: None, equals: None }
    }

    async fn facts_of(probe: &Http, vantage: &Vantage) -> Facts {
        probe.look(vantage, Instant::now() + Duration::from_millis(1500)).await.facts
    }

    fn words(facts: &Facts) -> (u64, &str, &str) {
        let known = facts.known();
        (known["status"].as_u64().unwrap(), known["stage"].as_str().unwrap(), known["error"].as_str().unwrap())
    }

    #[tokio::test]
    async fn an_answer_with_its_phases() {
        let asked = Arc::new(Mutex::new(String::new()));
        let log = asked.clone();
        let server = http(move |request| {
            request.clone_into(&mut log.lock().unwrap());
            answer("200 OK", "hello \u{1b}[31m")
        });
        let server = server.await;
        let facts = facts_of(&probe(&format!("http://me:s3cret@{server}/a?b=c#d")), &vantage("")).await;
        assert_eq!(words(&facts), (200, "done", ""));
        assert_eq!((&facts.known()["server"], &facts.known()["body"]), (&"test".into(), &"hello \\u{1b}[31m".into()));
        assert_eq!(facts.unknowns().keys().collect::<Vec<_>>(), ["body_ok"], "{facts:?}");
        let asked = asked.lock().unwrap();
        assert!(asked.starts_with("GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:") && asked.contains("Basic bWU6czNjcmV0"), "{asked}");
    }

    #[tokio::test]
    async fn a_name_is_asked_of_the_given_nameserver_and_passwords_never_show() {
        let nameserver = serve(Arc::new(|q, _| {
            let here = q.queries[0].name().to_string() == "here.";
            let (code, at): (_, &[Ipv4Addr]) =
                if here { (ResponseCode::NoError, &[Ipv4Addr::LOCALHOST]) } else { (ResponseCode::NXDomain, &[]) };
            vec![reply(q, code, at).to_vec().unwrap()]
        }))
        .await;
        let server = http(|_| answer("302 Found\r\nlocation: /x", "")).await;
        let mut probe = probe(&format!("http://me:s3cret@here:{}/", server.port()));
        probe.nameserver = Some(Nameserver(nameserver));
        let seen = probe.look(&vantage(""), Instant::now() + Duration::from_secs(2)).await;
        assert_eq!(words(&seen.facts), (302, "done", ""));
        let shown = format!("{:?} {}", seen.evidence, probe.target());
        assert!(!shown.contains("s3cret") && shown.contains("location /x") && shown.contains("200 was expected"), "{shown}");
        let mut probe = self::probe("http://nowhere/");
        probe.nameserver = Some(Nameserver(nameserver));
        let facts = facts_of(&probe, &vantage("")).await;
        assert_eq!(words(&facts), (0, "resolve", "dns: NXDOMAIN"));
        assert_eq!(facts.unknowns()["connect_ms"], "stopped at resolve: dns: NXDOMAIN");
    }

    #[tokio::test]
    async fn a_server_that_repeats_what_it_was_sent() {
        let server = http(|request| answer("200 OK", request)).await;
        let url = format!("http://me:s3cret-word@{server}/hooks/s3cretABCDEFGHIJ12/?sign=s3cret-too");
        let seen = probe(&url).look(&vantage(""), Instant::now() + Duration::from_secs(2)).await;
        let shown = format!("{:?} {:?}", seen.facts, seen.evidence);
        assert!(!shown.contains("s3cret") && !shown.contains("bWU6") && shown.contains("authorization: Basic ***"), "{shown}");
    }

    #[tokio::test]
    async fn the_body_is_held_against_what_is_wanted() {
        let server = http(|_| answer("200 OK", r#"{"status": "ok", "n": 3}"#)).await;
        for (wanted, ok) in [
            (r#"contains = "ok""#, true),
            (r#"contains = "down""#, false),
            ("json = \"/n\"\nequals = 3", true),
            ("json = \"/n\"\nequals = 4", false),
            (r#"json = "/absent""#, false),
        ] {
            let with: toml::Table = toml::from_str(&format!("url = \"http://{server}/\"\n{wanted}")).unwrap();
            let probe: Http = toml::Value::Table(with).try_into().unwrap();
            assert_eq!(facts_of(&probe, &vantage("")).await.get("body_ok"), Some(&ok.into()), "{wanted}");
        }
    }

    #[tokio::test]
    async fn who_made_the_answer() {
        for (status, headers, body, by) in [
            ("530 x", "server: cloudflare\r\ncf-ray: 1-FRA", "error code: 1033", "cloudflare"),
            ("503 x", "server: cloudflare\r\ncf-ray: 1-FRA", "busy", "origin behind cloudflare"),
            ("502 x", "server: nginx", "", "nginx"),
        ] {
            let server =
                http(move |_| format!("HTTP/1.1 {status}\r\n{headers}\r\nlocation: https://u:p@b/l?token=t\r\n\r\n{body}").into_bytes());
            let facts = facts_of(&probe(&format!("http://{}/", server.await)), &vantage("")).await;
            assert_eq!((facts.get("answered_by"), facts.get("location")), (Some(&by.into()), Some(&"https://b/l".into())), "{facts:?}");
        }
    }

    #[tokio::test]
    async fn says_where_it_stopped() {
        let closed = listen(|_| async {}).await;
        let silent = listen(|stream| async move {
            let _kept = stream;
            std::future::pending().await
        });
        let silent = silent.await;
        let garbage = http(|_| b"SSH-2.0-x\r\n\r\n".to_vec()).await;
        let short = http(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()).await;
        let endless = http(|_| [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 200_000]].concat()).await;
        let long = http(|_| answer("200 OK", &"a".repeat(100_000))).await;
        let cases = [
            (silent, (0, "headers", "TIMEOUT")),
            (garbage, (0, "headers", "not HTTP")),
            (short, (200, "body", "EOF")),
            (endless, (0, "headers", "headers too large")),
            (long, (200, "done", "")),
        ];
        for (server, expected) in cases {
            assert_eq!(words(&facts_of(&probe(&format!("http://{server}")), &vantage("")).await), expected);
        }
        let facts = facts_of(&probe(&format!("http://{closed}")), &vantage("")).await;
        assert!(matches!(words(&facts), (0, _, "EOF" | "ECONNRESET" | "EPIPE")), "{facts:?}");
    }

    #[tokio::test]
    async fn tls_errors_have_words() {
        let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
        let mut here = vantage("");
        here.files.trust = Some(vec![ours.root.clone()]);
        let cases = [
            (ours.acceptor("127.0.0.1", 2999), (200, "done", "")),
            (theirs.acceptor("127.0.0.1", 2999), (0, "tls", "tls: unknown issuer")),
            (ours.acceptor("other.example", 2999), (0, "tls", "tls: wrong name")),
            (ours.acceptor("127.0.0.1", 2001), (0, "tls", "tls: expired")),
        ];
        for (acceptor, expected) in cases {
            let server = listen(move |stream| {
                let acceptor = acceptor.clone();
                async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        read_request(&mut stream).await;
                        let _ = stream.write_all(&answer("200 OK", "")).await;
                        let _ = stream.shutdown().await;
                    }
                }
            });
            assert_eq!(words(&facts_of(&probe(&format!("https://{}", server.await)), &here).await), expected);
        }
        let plain = listen(|mut stream| async move {
            let _ = stream.write_all(&answer("400 Bad Request", "")).await;
            std::future::pending().await
        });
        let plain = plain.await;
        let facts = facts_of(&probe(&format!("https://{plain}")), &here).await;
        assert_eq!(words(&facts), (0, "tls", "tls: not TLS"));
    }

    #[test]
    fn urls_are_checked() {
        for url in ["ftp://a/", "a", "http://", "http://[::1]/", "http://a:99999/"] {
            assert!(HttpUrl::try_from(url.to_owned()).is_err(), "{url}");
        }
    }
}
