//! Plain requests to a model server, whole or cut off, with the time that their bytes took.

use super::super::http1;
use super::super::net::{connect, tcp_times};
use super::super::vllm_metrics::Scrape;
use crate::vantage::Net;
use http_body_util::Full;
use hyper::Method;
use serde_json::Value;
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long one plain request may take.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// How long a scrape of `/metrics` may take: some 60 KB, also over a path of 64 kbit/s.
const SCRAPE_TIME: Duration = Duration::from_secs(8);
/// Most bytes of a plain answer. A scrape of vLLM has 60 KB for each model and engine.
const MOST_BODY_BYTES: usize = 4 << 20;

/// A plain answer.
#[derive(Debug, Default)]
pub(in crate::probe) struct Fetched {
    /// HTTP status; 0 if there was no answer.
    pub(super) status: u16,
    /// The body, as far as it came.
    pub(in crate::probe) body: Vec<u8>,
    /// Why there is no answer, or not all of it; empty if there is.
    pub(super) error: String,
    /// How long everything took.
    pub(super) took: Duration,
    /// From the head of the answer to the arrival of the last byte of the body that came, by the kernel's clock: reading late does
    /// not make a path slow.
    pub(super) body_time: Option<Duration>,
}

/// GET of a path, whole or not.
pub(in crate::probe) async fn fetch(net: &Net, server: SocketAddrV4, path: &str, deadline: Instant) -> Fetched {
    let began = Instant::now();
    let until = deadline.min(began + patience(path));
    let fetched = match connect(net, server, until).await {
        Ok((stream, _)) => fetch_over(stream, server, path, until).await,
        Err(failed) => Fetched { error: failed.word, ..Fetched::default() },
    };
    Fetched { took: began.elapsed(), ..fetched }
}

fn patience(path: &str) -> Duration {
    if path == "/metrics" { SCRAPE_TIME } else { REQUEST_TIME }
}

/// The same over a connection that is already there.
pub(super) async fn fetch_over(stream: TcpStream, server: SocketAddrV4, path: &str, deadline: Instant) -> Fetched {
    let until = deadline.min(Instant::now() + patience(path));
    let mut fetched = Fetched::default();
    if let Err(word) = fetch_into(&mut fetched, stream, server, path, until).await {
        fetched.error = word;
    }
    fetched
}

async fn fetch_into(fetched: &mut Fetched, stream: TcpStream, server: SocketAddrV4, path: &str, until: Instant) -> Result<(), String> {
    let request = http1::request(Method::GET, path, &server.to_string()).body(Full::default());
    let request = request.map_err(|_| "not a valid request".to_owned())?;
    let socket = stream.as_fd().try_clone_to_owned().ok();
    let mut answer = http1::send(stream, request, until).await.map_err(|failed| failed.word)?;
    fetched.status = answer.head.status.as_u16();
    let (body, ended) = answer.read(MOST_BODY_BYTES, until).await;
    let quiet = socket.as_ref().and_then(|socket| tcp_times(socket.as_fd())).map_or(Duration::ZERO, |times| times.quiet);
    fetched.body_time = Some(answer.headers_at.elapsed().saturating_sub(if ended.is_ok() { quiet } else { Duration::ZERO }));
    fetched.body = body;
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => Err("longer than 4 MiB".to_owned()),
        Err(word) => Err(format!("{word} after {} bytes of the body", fetched.body.len())),
    }
}

impl Fetched {
    /// Whether all of an answer came.
    fn whole(&self) -> bool {
        self.status != 0 && self.error.is_empty()
    }

    /// Whose metrics it is; `None` if only a part of the answer came, of which nobody can tell.
    pub(super) fn family(&self) -> Option<&'static str> {
        match self.status {
            0 => Some("none"),
            200 if !self.whole() => None,
            200 if self.body.trim_ascii().is_empty() => Some("empty"),
            200 => self.scrape().map(|scrape| scrape.family.word()),
            _ => Some("other"),
        }
    }

    /// The metrics in it; `None` if not all of them came.
    pub(super) fn scrape(&self) -> Option<Scrape> {
        (self.status == 200 && self.whole()).then(|| Scrape::read(&String::from_utf8_lossy(&self.body)))
    }

    /// Thousands of bytes for each second of the body; `None` if it came in no time.
    pub(super) fn kb_per_s(&self) -> Option<f64> {
        let seconds = self.body_time?.as_secs_f64();
        (seconds > 0.0).then(|| (self.body.len() as f64 / seconds / 100.0).round() / 10.0)
    }

    pub(super) fn json(&self) -> Option<Value> {
        if self.status == 200 && self.whole() { serde_json::from_slice(&self.body).ok() } else { None }
    }

    pub(super) fn why_not(&self, path: &str) -> String {
        match self.status {
            _ if !self.error.is_empty() => format!("{path}: {}", self.error),
            200 => format!("{path}: not the answer of a vLLM server"),
            status => format!("{path}: HTTP {status}"),
        }
    }
}
