//! One HTTP/1.1 request over a connection that a probe has made itself, with the times of its bytes.

use super::tls;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Most bytes of response headers.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// A request line and the headers that every request of fathom carries; one request per connection.
pub(super) fn request(method: Method, path: &str, host: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("invalid")))
        .header("user-agent", concat!("fathom/", env!("CARGO_PKG_VERSION")))
        .header("accept", "*/*")
        .header("connection", "close")
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    /// Whether any byte of the request was written.
    pub(super) sent: bool,
    /// Errno word, TIMEOUT, EOF, `not HTTP`, `tls: ..`.
    pub(super) word: String,
}

/// The head of an answer, and the body still to come. Dropping it closes the connection.
pub(super) struct Answer {
    /// Status and headers.
    pub(super) head: Parts,
    /// When what passed the wire.
    pub(super) wire: Arc<Wire>,
    /// When the head had arrived.
    pub(super) headers_at: Instant,
    body: Incoming,
    /// Moves the connection on; ends with this.
    _driver: JoinSet<()>,
}

/// Sends a request and waits for the head of the answer, at most until `until`.
pub(super) async fn send<S>(stream: S, request: Request<Full<Bytes>>, until: Instant) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = Arc::new(Wire::new());
    let failed = |word| Failed { sent: wire.first_write().is_some(), word };
    let io = TokioIo::new(Metered { stream, wire: wire.clone() });
    let handshake = http1::Builder::new().max_buf_size(MOST_HEADER_BYTES).handshake(io);
    let (mut sender, connection) = handshake.await.map_err(|e| failed(word(&e)))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong here is also told to whoever waits for the answer or the body.
        let _ = connection.await;
    });
    match timeout_at(until, sender.send_request(request)).await {
        Ok(Ok(response)) => {
            let (head, body) = response.into_parts();
            Ok(Answer { head, wire, headers_at: Instant::now(), body, _driver: driver })
        }
        Ok(Err(error)) => Err(failed(word(&error))),
        Err(_) => Err(failed("TIMEOUT".to_owned())),
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn piece(&mut self, until: Instant) -> Result<Option<Bytes>, String> {
        loop {
            match timeout_at(until, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => continue,
                },
                Ok(Some(Err(error))) => return Err(word(&error)),
                Err(_) => return Err("TIMEOUT".to_owned()),
            }
        }
    }

    /// The body, at most `most` bytes of it, and how reading ended: whether it is whole, or what went wrong.
    pub(super) async fn read(&mut self, most: usize, until: Instant) -> (Vec<u8>, Result<bool, String>) {
        let mut body = Vec::new();
        loop {
            match self.piece(until).await {
                Ok(None) => return (body, Ok(true)),
                Ok(Some(data)) => {
                    let room = most - body.len();
                    body.extend_from_slice(&data[..data.len().min(room)]);
                    if data.len() > room {
                        return (body, Ok(false));
                    }
                }
                Err(word) => return (body, Err(word)),
            }
        }
    }

    /// From the last byte of the request to the head of the answer.
    pub(super) fn wait(&self) -> Duration {
        self.headers_at.saturating_duration_since(self.wire.last_write().unwrap_or(self.headers_at))
    }
}

fn word(error: &hyper::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return tls::word(io);
        }
        cause = inner.source();
    }
    match () {
        () if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => "EOF".to_owned(),
        () if error.is_parse_too_large() => "headers too large".to_owned(),
        () if error.is_parse() => "not HTTP".to_owned(),
        () => crate::check::clean(&error.to_string(), 120),
    }
}

/// When what passed a stream: first and last write (that of the request, as only one is sent), and how many reads
/// returned something.
pub(super) struct Wire {
    began: Instant,
    /// Nanoseconds after `began`, plus one; 0 is never.
    first_write: AtomicU64,
    last_write: AtomicU64,
    reads: AtomicU64,
}

impl Wire {
    fn new() -> Self {
        Self { began: Instant::now(), first_write: AtomicU64::new(0), last_write: AtomicU64::new(0), reads: AtomicU64::new(0) }
    }

    fn wrote(&self) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        let _ = self.first_write.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last_write.store(now, Ordering::Relaxed);
    }

    fn at(&self, stamp: &AtomicU64) -> Option<Instant> {
        let nanos = stamp.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.began + Duration::from_nanos(nanos))
    }

    /// When the first byte was written.
    pub(super) fn first_write(&self) -> Option<Instant> {
        self.at(&self.first_write)
    }

    /// When the last byte was written.
    pub(super) fn last_write(&self) -> Option<Instant> {
        self.at(&self.last_write)
    }

    /// How many reads have returned bytes.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// A stream whose traffic is noted in a [`Wire`].
struct Metered<S> {
    stream: S,
    wire: Arc<Wire>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.wire.reads.fetch_add(1, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(poll, Poll::Ready(Ok(n)) if n > 0) {
            self.wire.wrote();
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
