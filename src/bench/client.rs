//! One request, timed at the socket: the times of FORMATS section 5, on the monotonic clock.

use super::sample::{Outcome, Sample};
use super::stamped::{Late, Stamped};
use super::wire::Reader;
use crate::check::{clean, secret};
use crate::probe::completion::{Completion, refusal};
use crate::probe::net::connect;
use crate::probe::ocr_page::repeats;
use crate::probe::sse::Sse;
use crate::probe::tls;
use crate::vantage::Net;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Most bytes of one streamed answer.
const MOST_STREAM_BYTES: usize = 64 << 20;
/// Most bytes of an answer that is no stream.
const MOST_ERROR_BYTES: usize = 64 << 10;

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    /// From where.
    pub net: Net,
    /// To which address.
    pub server: SocketAddrV4,
    /// The `Host` header.
    pub host: String,
    /// What stands before `/v1` and `/metrics` in the path; usually empty.
    pub prefix: String,
    /// TLS, with the name that the certificate must have.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// Sent as a bearer token; never shown.
    pub key: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.shown())
    }
}

impl Target {
    /// A server without TLS or key.
    pub fn plain(net: Net, server: SocketAddrV4) -> Self {
        Self { net, server, host: server.to_string(), prefix: String::new(), tls: None, key: None }
    }

    /// Its URL, without what is or may be secret in it.
    pub fn shown(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        clean(&format!("{scheme}://{}{}", self.host, self.prefix), 200)
    }

    /// A server's words, cleaned and cut, without the secrets that it was sent: some say them back. They are taken out first, or what
    /// the cut leaves of one would not be known as such.
    fn said(&self, words: &str, most: usize) -> String {
        let of_path: Vec<String> = secret::held_by_path(&self.prefix).collect();
        clean(&secret::without(words, of_path.iter().chain(&self.key).map(String::as_str)), most)
    }

    /// Head and body of a request.
    pub(super) fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut head = format!(
            "{method} {}{path} HTTP/1.1\r\nhost: {}\r\nuser-agent: fathom/{}\r\naccept: */*\r\nconnection: close\r\n",
            self.prefix,
            self.host,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(key) = &self.key {
            head += &format!("authorization: Bearer {key}\r\n");
        }
        if method == "POST" {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        head += "\r\n";
        [head.as_bytes(), body].concat()
    }

    /// Connects, with TLS where the target wants it.
    pub(super) async fn connect(&self, until: Instant) -> Result<Connection, String> {
        let (stream, took) = connect(&self.net, self.server, until).await.map_err(|failed| format!("connect: {}", failed.word))?;
        // A request is written in one piece, but a TLS record is not a segment.
        stream.set_nodelay(true).ok();
        let stream = Stamped::new(stream);
        let late = stream.late();
        let Some((name, config)) = &self.tls else { return Ok(Connection { stream: Box::new(stream), tcp: took, tls: None, late }) };
        let began = Instant::now();
        match timeout_at(until, TlsConnector::from(config.clone()).connect(name.clone(), stream)).await {
            Ok(Ok(stream)) => Ok(Connection { stream: Box::new(stream), tcp: took, tls: Some(began.elapsed()), late }),
            Ok(Err(error)) => Err(tls::word(&error)),
            Err(_) => Err("TIMEOUT".to_owned()),
        }
    }
}

/// An open connection.
pub(super) struct Connection {
    pub(super) stream: Box<dyn Duplex>,
    /// What the TCP handshake took, and the TLS handshake.
    tcp: Duration,
    tls: Option<Duration>,
    late: Late,
}

/// A stream of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// One request to send.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub index: u32,
    /// When it is due (open loop).
    pub due: Option<Instant>,
    /// Its body.
    pub body: Vec<u8>,
    /// It is a page: an answer that the token limit cut off, or that repeats itself, is not good.
    pub page: bool,
}

/// What a request left behind besides its sample.
#[derive(Debug)]
pub struct Done {
    /// The sample.
    pub sample: Sample,
    /// Times between token events, ms.
    pub gaps: Vec<f32>,
}

/// Times of one request as they come.
#[derive(Default)]
struct Times {
    connect: Option<Duration>,
    tls: Option<Duration>,
    send: Option<Instant>,
    uploaded: Option<Instant>,
    headers: Option<Instant>,
    /// How late its first and its last token were read, ms.
    first_late: Option<f64>,
    last_late: Option<f64>,
}

/// Sends a request and reads its answer to the end; at most `patience`. `began` is the start of the window.
pub async fn run(target: &Target, job: Job, began: Instant, patience: Duration) -> Done {
    let (mut times, mut stream) = (Times::default(), Completion::default());
    let until = Instant::now() + patience;
    let request = target.request("POST", "/v1/chat/completions", &job.body);
    let outcome = match timeout_at(until, exchange(target, &request, until, &mut times, &mut stream)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(out_of_time(&times, &stream, patience)),
    };
    let outcome = match outcome {
        Ok(()) if stream.complete() => Outcome::Complete,
        Ok(()) => Outcome::Failed(incomplete(target, &stream)),
        Err(word) => Outcome::Failed(word),
    };
    sum_up(&job, request.len(), outcome, &times, &stream, began)
}

async fn exchange(target: &Target, request: &[u8], until: Instant, times: &mut Times, stream: &mut Completion) -> Result<(), String> {
    let Connection { stream: mut socket, tcp, tls, late } = target.connect(until).await?;
    (times.connect, times.tls) = (Some(tcp), tls);
    times.send = Some(Instant::now());
    socket.write_all(request).await.map_err(|e| tls::word(&e))?;
    socket.flush().await.map_err(|e| tls::word(&e))?;
    times.uploaded = Some(Instant::now());
    let mut reader = Reader::new(socket);
    let (head, at) = reader.head().await?;
    times.headers = Some(at);
    if head.status != 200 {
        return Err(target.said(&refusal(head.status, &start_of_body(&mut reader).await), 200));
    }
    if !head.content_type.to_ascii_lowercase().starts_with("text/event-stream") {
        return Err(format!("not an event stream but `{}`", target.said(&head.content_type, 60)));
    }
    let (mut events, mut total) = (Sse::default(), 0);
    while !stream.done {
        let Some(piece) = reader.piece().await? else { return Err("the stream ended without [DONE]".to_owned()) };
        total += piece.bytes.len();
        if total > MOST_STREAM_BYTES {
            return Err("an answer longer than 64 MiB".to_owned());
        }
        let (late, before) = (late.ms(), stream.last_token());
        // An engine's step reaches all streams at once: each is read, and so timed, before any of them is parsed.
        tokio::task::yield_now().await;
        for event in events.feed(piece.bytes).map_err(|_| "a line or event longer than 1 MiB".to_owned())? {
            stream.event(&event, piece.at, piece.read);
        }
        if stream.last_token() != before {
            times.last_late = late;
            if before.is_none() {
                times.first_late = late;
            }
        }
    }
    Ok(())
}

/// As much of an answer that is no stream as is worth reading.
async fn start_of_body(reader: &mut Reader<Box<dyn Duplex>>) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reader.piece().await {
        body.extend_from_slice(&piece.bytes[..piece.bytes.len().min(MOST_ERROR_BYTES - body.len())]);
        if body.len() >= MOST_ERROR_BYTES {
            break;
        }
    }
    body
}

fn out_of_time(times: &Times, stream: &Completion, patience: Duration) -> String {
    let seconds = patience.as_secs_f64();
    match (times.headers, stream.first_token()) {
        (None, _) if times.send.is_none() => format!("no connection within {seconds} s"),
        (None, _) => format!("no headers within {seconds} s"),
        (Some(_), None) => format!("headers and no token within {seconds} s"),
        (Some(_), Some(_)) => format!("the stream did not end within {seconds} s"),
    }
}

/// What a stream with `[DONE]` lacks.
fn incomplete(target: &Target, stream: &Completion) -> String {
    match &stream.error {
        Some(error) => target.said(&format!("error event: {error}"), 200),
        None if stream.finish_reason.is_none() => "no finish_reason".to_owned(),
        None => "no usage: tokens unknown".to_owned(),
    }
}

fn sum_up(job: &Job, bytes: usize, outcome: Outcome, times: &Times, stream: &Completion, window: Instant) -> Done {
    let since = |from: Option<Instant>, to: Option<Instant>| from.zip(to).map(|(from, to)| to.saturating_duration_since(from));
    let ms = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64() * 1000.0);
    let (first, last) = (stream.first_token(), stream.last_token());
    let (token_events, token_reads) = stream.events_and_reads();
    let complete = outcome == Outcome::Complete;
    let finish_reason = stream.finish_reason.clone();
    let at: Vec<Instant> = stream.token_times().collect();
    let sample = Sample {
        index: job.index,
        outcome,
        scheduled_at: ms(since(Some(window), job.due)),
        sent_at: ms(since(Some(window), times.send)),
        ended_at: ms(since(Some(window), Some(Instant::now()))),
        connect_ms: ms(times.connect),
        tls_ms: ms(times.tls),
        upload_ms: ms(since(times.send, times.uploaded)),
        headers_ms: ms(since(times.uploaded, times.headers)),
        first_ms: ms(since(times.headers, first)),
        ttft_ms: ms(since(times.send, first)),
        ttft_scheduled_ms: ms(since(job.due, first)),
        tpot_ms: stream.tokens_per_s().ok().filter(|rate| *rate > 0.0).map(|rate| 1000.0 / rate),
        e2e_ms: ms(since(times.send, last)),
        e2e_scheduled_ms: ms(since(job.due, last)),
        first_late_ms: times.first_late,
        last_late_ms: times.last_late,
        prompt_tokens: stream.prompt_tokens,
        output_tokens: stream.usage(),
        token_events,
        token_reads,
        truncated: job.page && finish_reason.as_deref() == Some("length"),
        looping: job.page && repeats(&stream.text),
        finish_reason,
        request_bytes: bytes as u64,
    };
    let gaps = if complete { at.windows(2).map(|w| (w[1] - w[0]).as_secs_f32() * 1000.0).collect() } else { Vec::new() };
    Done { sample, gaps }
}
