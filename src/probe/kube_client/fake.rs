//! A TLS server that replays answers of a real API server (`tests/data/k8s`), and answers that no API server gives.

use crate::def::Inventory;
use crate::encoding::base64;
use crate::probe::Context;
use crate::vantage::{HostFiles, Net, Source, Transport, Vantage, VantageKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// What the fake answers for a path.
#[derive(Clone)]
pub(in crate::probe) enum Reply {
    /// Status and body.
    Body(u16, Vec<u8>),
    /// Bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// A head, then one byte of the body at a time, for ever.
    Drip,
    /// Nothing, for ever.
    Silence,
    /// Two lines of a head, then one byte of it at a time, for ever.
    SlowHead,
    /// A head, then spaces as fast as they are taken; counts the bytes.
    Endless(&'static str, Arc<AtomicUsize>),
    /// Status 200 and a body; the connection ends at the next request instead of an answer, with or without a word of TLS.
    Last(Vec<u8>, Farewell),
    /// What a function makes of the query.
    By(Arc<dyn Fn(&str) -> Reply + Send + Sync>),
}

impl Reply {
    /// A JSON object with status 200.
    pub(in crate::probe) fn json(value: &serde_json::Value) -> Self {
        Self::Body(200, value.to_string().into_bytes())
    }

    /// A capture's status and body; its head is written anew (curl undid the chunks).
    pub(in crate::probe) fn capture(name: &str) -> Self {
        let text = std::fs::read_to_string(format!("{}/tests/data/k8s/{name}.http", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self::Body(status, body.as_bytes().to_vec())
    }
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Farewell {
    /// TLS is told.
    Told,
    /// It is just gone.
    Gone,
}

/// What certificate it shows, or none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Tls {
    /// A good one.
    Good,
    /// For another name.
    WrongName,
    /// No longer valid.
    Expired,
    /// Signed by another authority.
    UnknownIssuer,
    /// No TLS at all: a web server that finds the request bad.
    Plain,
    /// Never answers the handshake.
    Silent,
}

/// A running fake.
pub(in crate::probe) struct Fake {
    kubeconfig: String,
}

type Routes = HashMap<&'static str, Reply>;

impl Fake {
    /// Listens on 127.0.0.1 of a network. Paths are compared without their query.
    pub(in crate::probe) fn start(net: &Net, tls: Tls, routes: &[(&'static str, Reply)]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = net.with(listen).unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, authority) = certificate(tls);
        let routes: Arc<Routes> = Arc::new(routes.iter().cloned().collect());
        tokio::spawn(serve(listener, tls, acceptor, routes));
        Self { kubeconfig: kubeconfig(address, &authority) }
    }

    /// A context of a vantage in that network with a kubeconfig for this server.
    pub(in crate::probe) fn context(&self, net: Net, patience: Duration) -> Context {
        context(net, Some(Source::Text(self.kubeconfig.clone())), patience)
    }
}

fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    socket.listen(16).unwrap()
}

/// A context with an inventory of nothing but what is required.
pub(in crate::probe) fn context(net: Net, kubeconfig: Option<Source>, patience: Duration) -> Context {
    let vantage = Vantage {
        id: "here".to_owned(),
        kind: VantageKind::Node,
        transport: Transport::Twin,
        why: String::new(),
        node: None,
        net,
        files: HostFiles { kubeconfig, ..HostFiles::default() },
    };
    let inventory: Inventory = toml::from_str(INVENTORY).unwrap();
    Context { vantage: Arc::new(vantage), witness: None, inventory: Arc::new(inventory), deadline: Instant::now() + patience }
}

const INVENTORY: &str = r#"
name = "test"
document = "none"
cluster = { version = "v1.33.13", domain = "cluster.local", pod_cidr = "10.42.0.0/16", service_cidr = "10.43.0.0/16", api = "10.43.0.1:443", api_endpoint = "127.0.0.1:6443", kubeconfig = "/nowhere/kubeconfig" }
overlay = { device = "flannel.1", vni = 1, port = 8472, parent = "tailscale0", overhead_bytes = 50, bridge = "cni0" }
tailnet = { name = "test", cidr = "100.64.0.0/10", device = "tailscale0", table = 52 }
dns = { nameserver = "10.43.0.10", search = [], ndots = 5, upstream = [], internal_name = "a", internal_answer = "a.b", external_name = "example.com" }
egress = { address = "192.0.2.1", echoes = [] }
"#;

fn kubeconfig(address: SocketAddr, authority: &str) -> String {
    let data = base64(authority.as_bytes());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: https://{address}\n    \
         certificate-authority-data: {data}\nusers:\n- name: u\n  user:\n    token: secret\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n"
    )
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server's certificate, and the PEM of the authority that the client trusts.
fn certificate(tls: Tls) -> (TlsAcceptor, String) {
    let issuer = authority();
    let trusted = if tls == Tls::UnknownIssuer { authority().pem() } else { issuer.pem() };
    let name = if tls == Tls::WrongName { "elsewhere.test" } else { "127.0.0.1" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if tls == Tls::Expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), trusted)
}

async fn serve(listener: TcpListener, tls: Tls, acceptor: TlsAcceptor, routes: Arc<Routes>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        tokio::spawn(async move {
            match tls {
                Tls::Silent => std::future::pending().await,
                Tls::Plain => stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.ok(),
                _ => match acceptor.accept(stream).await {
                    Ok(stream) => answer(stream, &routes).await,
                    Err(_) => Some(()),
                },
            }
        });
    }
}

/// Answers requests until the other side has no more.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, routes: &Routes) -> Option<()> {
    let unknown = Reply::Body(404, br#"{"kind":"Status","message":"not found","code":404}"#.to_vec());
    loop {
        let (path, query) = request(&mut stream).await?;
        let reply = match routes.get(path.as_str()).unwrap_or(&unknown) {
            Reply::By(make) => make(&query),
            reply => reply.clone(),
        };
        match &reply {
            Reply::By(_) => return None,
            Reply::Body(status, body) => {
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body].concat()).await.ok()?;
            }
            Reply::Raw(bytes) => {
                stream.write_all(bytes).await.ok()?;
                return stream.shutdown().await.ok();
            }
            Reply::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.ok()?;
                drip(&mut stream, b" ").await?;
            }
            Reply::SlowHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.ok()?;
                drip(&mut stream, b"y").await?;
            }
            Reply::Last(body, farewell) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body].concat()).await.ok()?;
                stream.flush().await.ok()?;
                request(&mut stream).await?;
                return if *farewell == Farewell::Told { stream.shutdown().await.ok() } else { None };
            }
            Reply::Endless(head, sent) => {
                stream.write_all(head.as_bytes()).await.ok()?;
                loop {
                    stream.write_all(&[b' '; 16 << 10]).await.ok()?;
                    sent.fetch_add(16 << 10, Ordering::Relaxed);
                }
            }
            Reply::Silence => std::future::pending().await,
        }
        stream.flush().await.ok()?;
    }
}

/// Writes a byte again and again, until the other side has enough.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), byte: &[u8]) -> Option<()> {
    loop {
        stream.write_all(byte).await.ok()?;
        stream.flush().await.ok()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Path and query of the next request.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some((path.to_owned(), query.to_owned()))
}
