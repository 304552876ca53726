//! What the tests of several probes share: a vantage, and servers on the loopback device.

use crate::vantage::{HostFiles, Net, Source, Transport, Vantage, VantageKind};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A vantage in this process' own network (tests use nothing but the loopback device) with this resolv.conf.
pub(super) fn vantage(resolv_conf: &str) -> Vantage {
    Vantage {
        id: "test".into(),
        kind: VantageKind::Pod,
        transport: Transport::Local,
        why: "a test".into(),
        node: None,
        net: Net::Here,
        files: HostFiles { resolv_conf: Source::Text(resolv_conf.into()), ..HostFiles::default() },
    }
}

/// A folder that goes away with the test. No two tests may give theirs the same name.
pub(super) struct Folder(pub(super) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fathom-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file; returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// An executable script. Another process writes it: this one has threads that fork, and a child that inherits the open
    /// file would make its execution fail (ETXTBSY).
    pub(super) fn script(&self, name: &str, body: &str) {
        let path = self.0.join(name);
        let mut shell = Command::new("/bin/sh");
        let mut child = shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        let text = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

/// Hands every connection to `serve` until the test's runtime ends.
pub(super) async fn listen<F, T>(serve: F) -> SocketAddrV4
where
    F: Fn(TcpStream) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else { unreachable!() };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    at
}

/// Reads an HTTP request: its head, and as much of a body as `content-length` says.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !complete(&String::from_utf8_lossy(&bytes)) {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Answers every request with the bytes that `answer` makes of it, then closes.
pub(super) async fn http(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddrV4 {
    let answer = Arc::new(answer);
    listen(move |mut stream| {
        let answer = answer.clone();
        async move {
            let request = read_request(&mut stream).await;
            let _ = stream.write_all(&answer(&request)).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// An answer with this status and body.
pub(super) fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nserver: test\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A certificate authority of a test.
pub(super) struct Ca {
    /// Its root, to be trusted.
    pub(super) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A server certificate for a name, valid until the end of a year.
    pub(super) fn certificate(&self, name: &str, until_year: i32) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until_year, 12, 31);
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    /// The server's side of TLS with such a certificate.
    pub(super) fn acceptor(&self, name: &str, until_year: i32) -> TlsAcceptor {
        let (certificate, key) = self.certificate(name, until_year);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
    }
}
