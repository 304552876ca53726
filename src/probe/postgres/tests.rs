use super::*;
use crate::check::Facts;
use crate::probe::testing::{Ca, listen, vantage};
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
