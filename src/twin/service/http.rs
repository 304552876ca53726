//! What the HTTP servers share: answers, bodies, TLS, one connection.

use super::ServerHandle;
use super::handle::{address_of, listen};
use crate::encoding::percent_decoded;
use crate::vantage::Net;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's headers, and how long an idle connection is kept.
const HEADERS: Duration = Duration::from_secs(90);
/// What Go's `net/http` answers to HTTP without TLS on a TLS port.
const GO_PLAIN_ON_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A body: whole or streamed.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How the imitated server writes header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `Content-Type`, as Go's `net/http`.
    Title,
    /// `content-type`, as uvicorn.
    Lower,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Source address; `None` on a unix socket.
    pub(crate) address: Option<IpAddr>,
    /// The client's certificate chain, as sent.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// An answer with a whole body.
pub(crate) fn answer(status: StatusCode, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    with_body(status, headers, Full::new(body.into()).boxed_unsync())
}

/// An answer with any body.
pub(crate) fn with_body(status: StatusCode, headers: &[(&'static str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The whole body of a request, of at most `most` bytes.
pub(crate) async fn read_body(request: Request<Incoming>, most: usize) -> Option<Bytes> {
    Limited::new(request.into_body(), most).collect().await.ok().map(|body| body.to_bytes())
}

/// The time in the form of HTTP's `Date` header (RFC 9110, section 5.6.7).
pub(crate) fn date() -> String {
    date_at(chrono::Utc::now())
}

/// Any time in that form.
pub(crate) fn date_at(time: chrono::DateTime<chrono::Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The values of a query string, percent-decoded, in order.
pub(crate) fn query_pairs(query: Option<&str>) -> Vec<(String, String)> {
    query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// The first value of a name.
pub(crate) fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// In a query string a blank is a plus sign.
fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent_decoded(&text.replace('+', " "))).into_owned()
}

/// Serves HTTP (HTTPS with `tls`) at an address of a network.
pub(crate) fn serve<H, F>(
    net: &Net,
    address: impl Into<SocketAddr>,
    tls: Option<Arc<ServerConfig>>,
    style: Style,
    handler: H,
) -> io::Result<ServerHandle>
where
    H: Fn(Caller, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = listen(net, address)?;
    let mut handle = ServerHandle::new(address_of(&listener));
    let tls = tls.map(TlsAcceptor::from);
    handle.accept(listener, move |(stream, peer)| connection(stream, peer, tls.clone(), style, handler.clone()));
    Ok(handle)
}

async fn connection<H, F>(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, style: Style, handler: H)
where
    H: Fn(Caller, Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut caller = Caller { address: Some(peer.ip()), certificates: Vec::new() };
    match tls {
        None => talk(stream, style, caller, handler).await,
        Some(acceptor) => {
            if let Some(stream) = handshake(acceptor, stream, style).await {
                caller.certificates = stream.get_ref().1.peer_certificates().unwrap_or(&[]).to_vec();
                talk(stream, style, caller, handler).await;
            }
        }
    }
}

async fn handshake(acceptor: TlsAcceptor, mut stream: TcpStream, style: Style) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let work = async {
        let mut first = [0];
        stream.peek(&mut first).await.ok()?;
        if style == Style::Title && first[0].is_ascii_uppercase() {
            // Closing with the request unread would reset the connection and could lose the answer.
            if stream.read(&mut [0; 4096]).await.is_err() {
                return None;
            }
            stream.write_all(GO_PLAIN_ON_TLS).await.ok();
            return None;
        }
        acceptor.accept(stream).await.ok()
    };
    tokio::time::timeout(HANDSHAKE, work).await.ok().flatten()
}

/// Speaks HTTP/1.1 on one connection until it ends.
pub(crate) async fn talk<I, H, F>(io: I, style: Style, caller: Caller, handler: H)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Caller, Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answer = handler(caller.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).title_case_headers(style == Style::Title);
    // An error is the client's leaving: nothing to do about it.
    builder.serve_connection(TokioIo::new(io), service).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_hostile_ones_survive() {
        let pairs = query_pairs(Some("labelSelector=a%2Fb%3Dc&x&limit=5&bad=%zz%"));
        assert_eq!(find(&pairs, "labelSelector"), Some("a/b=c"));
        assert_eq!(find(&pairs, "x"), Some(""));
        assert_eq!(find(&pairs, "bad"), Some("%zz%"));
        assert_eq!(find(&pairs, "none"), None);
    }
}
