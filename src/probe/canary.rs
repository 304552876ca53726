//! The canary: one short streamed completion with its own deadline for the first token. Only this sees a frozen engine:
//! its server goes on answering everything else, and sends the headers of the stream at once.

use super::completion::{Completion, refusal};
use super::http1;
use super::net::{Upload, connect, tcp_times, upload};
use super::sse::Sse;
use crate::check::clean;
use crate::vantage::Net;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::time::Instant;

/// Most bytes of an answer that is no stream.
const MOST_ERROR_BYTES: usize = 64 << 10;

/// What the canary asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// The API server.
    pub(super) server: SocketAddrV4,
    /// Model name.
    pub(super) model: String,
    /// Tokens asked for.
    pub(super) max_tokens: u32,
    /// Longest wait for the first token, from the first byte of the request.
    pub(super) first_token: Duration,
    /// Spaces behind the JSON, which mean nothing: they make the request as large as one with a scanned page.
    pub(super) padding: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Canary {
    /// HTTP status; 0 if there was no answer.
    pub(super) status: u16,
    /// From the request's last byte to the headers.
    pub(super) headers: Option<Duration>,
    /// Whether a token came in time; `None` if the probe itself ran out of time before.
    pub(super) first_token: Option<bool>,
    /// From the request's first byte to the first token.
    pub(super) ttft: Option<Duration>,
    /// How long the path took to carry the request, by the kernel.
    pub(super) upload: Option<Upload>,
    /// Round trip of the connection's handshake, by the kernel: later ones wait behind what is sent.
    pub(super) round_trip: Option<Duration>,
    /// The stream.
    pub(super) stream: Completion,
    /// What went wrong; empty if nothing.
    pub(super) error: String,
    /// The probe's own deadline comes before that of the first token.
    cut_short: bool,
}

/// Sends it. The connection is dropped as soon as the outcome is known, which makes the server stop generating.
pub(super) async fn run(net: &Net, ask: &Ask, deadline: Instant) -> Canary {
    run_with(net, ask, ask.body(), deadline).await
}

/// The same with another body, which must ask for a stream.
pub(super) async fn run_with(net: &Net, ask: &Ask, body: Value, deadline: Instant) -> Canary {
    let mut canary = Canary::default();
    let outcome = stream(net, ask, body, deadline, &mut canary).await;
    canary.first_token = match canary.ttft {
        Some(ttft) => Some(ttft <= ask.first_token),
        None if outcome.as_ref().is_err_and(|e| e == "TIMEOUT") && canary.cut_short => None,
        None => Some(false),
    };
    canary.error = match outcome {
        Ok(()) => canary.stream.error.clone().unwrap_or_default(),
        Err(word) if word == "TIMEOUT" => canary.timed_out(ask),
        Err(word) => word,
    };
    canary
}

async fn stream(net: &Net, ask: &Ask, body: Value, deadline: Instant, canary: &mut Canary) -> Result<(), String> {
    let request = completion_request(ask.server, &body, ask.padding).map_err(|_| "not a valid request".to_owned())?;
    let (stream, _) = connect(net, ask.server, deadline).await.map_err(|failed| format!("connect: {}", failed.word))?;
    let first = deadline.min(Instant::now() + ask.first_token);
    canary.cut_short = first == deadline;
    canary.round_trip = tcp_times(stream.as_fd()).map(|times| times.round_trip);
    let socket = stream.as_fd().try_clone_to_owned().ok();
    let answer = http1::send(stream, request, first).await;
    canary.sent_over(socket);
    let mut answer = answer.map_err(|failed| failed.word)?;
    canary.status = answer.head.status.as_u16();
    canary.headers = Some(answer.wait());
    if answer.head.status != StatusCode::OK {
        let (body, _) = answer.read(MOST_ERROR_BYTES, first).await;
        return Err(clean(&refusal(canary.status, &body), 300));
    }
    let kind = answer.head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
        return Err(format!("not an event stream but `{}`", clean(kind, 60)));
    }
    let sent = answer.wire.first_write().unwrap_or(answer.headers_at);
    let mut events = Sse::default();
    while !canary.stream.done {
        let until = if canary.ttft.is_some() { deadline } else { deadline.min(sent + ask.first_token) };
        // A stream that never pauses would never be found waiting.
        if Instant::now() >= until {
            return Err("TIMEOUT".to_owned());
        }
        let Some(piece) = answer.piece(until).await? else { return Err("the stream ended without [DONE]".to_owned()) };
        let (at, read) = (Instant::now(), answer.wire.reads());
        for event in events.feed(&piece).map_err(|_| "a line or event longer than 1 MiB".to_owned())? {
            canary.stream.event(&event, at, read);
        }
        canary.ttft = canary.stream.first_token().map(|at| at.saturating_duration_since(sent));
    }
    Ok(())
}

/// A request for a completion.
pub(super) fn completion_request(server: SocketAddrV4, body: &Value, padding: usize) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let body = Bytes::from(body.to_string() + &" ".repeat(padding));
    http1::request(Method::POST, "/v1/chat/completions", &server.to_string())
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Full::new(body))
}

impl Ask {
    fn body(&self) -> Value {
        json!({
            "model": self.model,
            "messages": [{"role": "user", "content": "Count from one to twenty in words."}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": true,
            // Running usage tells how many tokens an event holds, also where a token has no text of its own.
            "stream_options": {"include_usage": true, "continuous_usage_stats": true},
        })
    }
}

impl Canary {
    /// Takes what the kernel knows of the request's way. The descriptor is a second one of the connection: it must not outlive it.
    fn sent_over(&mut self, socket: Option<OwnedFd>) {
        self.upload = socket.and_then(|socket| upload(socket.as_fd()));
    }

    fn timed_out(&self, ask: &Ask) -> String {
        match (self.first_token, self.status) {
            (Some(true), _) => "the stream stopped before [DONE]".to_owned(),
            (None, _) => "the check's own deadline came first".to_owned(),
            (Some(false), 0) => format!("no headers within {} ms", ask.first_token.as_millis()),
            (Some(false), _) => format!("no token within {} ms", ask.first_token.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{http, listen, read_request};
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    const ROLE: &[u8] = b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const TOKEN: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n";

    async fn ask(server: SocketAddrV4, first_token: u64, deadline: u64) -> Canary {
        let ask = Ask { server, model: "tiny".into(), max_tokens: 8, first_token: Duration::from_millis(first_token), padding: 0 };
        run(&Net::Here, &ask, Instant::now() + Duration::from_millis(deadline)).await
    }

    #[tokio::test]
    async fn a_captured_stream_byte_for_byte() {
        let server = http(|request| {
            assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n") && request.contains("\"model\":\"tiny\""));
            include_bytes!("../../tests/data/vllm/raw_stream_bytes.bin").to_vec()
        });
        let canary = ask(server.await, 2000, 4000).await;
        assert_eq!((canary.status, canary.error.as_str(), canary.first_token), (200, "", Some(true)));
        assert!(canary.stream.complete() && canary.ttft.is_some() && canary.headers.is_some(), "{canary:?}");
    }

    #[tokio::test]
    async fn a_frozen_engine_sends_headers_and_nothing_else() {
        let (dropped, seen) = tokio::sync::oneshot::channel();
        let dropped = std::sync::Arc::new(std::sync::Mutex::new(Some(dropped)));
        let server = listen(move |mut stream| {
            let dropped = dropped.clone();
            async move {
                read_request(&mut stream).await;
                stream.write_all(&[HEAD, ROLE].concat()).await.unwrap();
                let gone = stream.read(&mut [0; 1]).await;
                dropped.lock().unwrap().take().unwrap().send(gone.map_or(true, |n| n == 0)).unwrap();
            }
        });
        let canary = ask(server.await, 300, 4000).await;
        assert_eq!((canary.status, canary.error.as_str(), canary.first_token), (200, "no token within 300 ms", Some(false)));
        assert!(seen.await.unwrap(), "the connection is dropped at the deadline");
    }

    #[tokio::test]
    async fn no_claim_when_the_probe_itself_ran_out_of_time() {
        let server = listen(|stream| async move {
            let _kept = stream;
            std::future::pending().await
        });
        let canary = ask(server.await, 5000, 200).await;
        assert_eq!((canary.first_token, canary.error.as_str()), (None, "the check's own deadline came first"));
    }

    #[tokio::test]
    async fn streams_that_break_off_are_not_complete() {
        for (tail, error) in
            [(&b""[..], "the stream ended without [DONE]"), (b"data: {\"error\":{\"message\":\"dead\"}}\n\ndata: [DONE]\n\n", "dead")]
        {
            let canary = ask(http(move |_| [HEAD, ROLE, TOKEN, tail].concat()).await, 2000, 4000).await;
            assert_eq!((canary.error.as_str(), canary.first_token), (error, Some(true)));
            assert!(!canary.stream.complete());
        }
        let endless = http(|_| [HEAD, &vec![b'x'; 3 << 20]].concat()).await;
        assert_eq!(ask(endless, 4000, 5000).await.error, "a line or event longer than 1 MiB");
    }

    /// What the bench's client is held to in `bench/tests/hostile.rs`.
    #[tokio::test]
    async fn the_framing_does_not_matter_and_what_is_missing_is_no_number() {
        let token = |n: u32, text: &str, end: &str| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{end}}}],\
                 \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{n}}}}}\n\n"
            )
        };
        let all = format!("{}{}data: [DONE]\n\n", token(1, "\u{e9}\u{1f6a2}", "null"), token(2, " b\\\"c", "\"stop\""));
        let comments = all.replace("\n\n", "\n: keep-alive\nid: 7\nevent: message\nretry: 5\n\n: \u{1f6a2}\n\n");
        let long = all.replace("\\\"c", &"x".repeat(1_000_000));
        for body in [all.clone(), all.replace('\n', "\r\n"), comments, format!("\u{feff}{all}"), long] {
            let canary = ask(http(move |_| [HEAD, body.as_bytes()].concat()).await, 3000, 5000).await;
            assert_eq!((canary.error.as_str(), canary.stream.usage(), canary.stream.complete()), ("", Some(2), true));
            assert!(canary.stream.text.starts_with("\u{e9}\u{1f6a2}") && canary.stream.text.len() <= 64 << 10);
        }
        let unused = all.replace("\"usage\"", "\"other\"");
        let canary = ask(http(move |_| [HEAD, unused.as_bytes()].concat()).await, 3000, 5000).await;
        assert_eq!((canary.error.as_str(), canary.stream.usage(), canary.stream.complete()), ("", None, false));
        assert!(canary.first_token == Some(true) && canary.stream.tokens_per_s().is_err() && canary.stream.itl_median().is_err());
        for kind in ["text/html", "application/json"] {
            let page = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{all}");
            let canary = ask(http(move |_| page.clone().into_bytes()).await, 3000, 5000).await;
            assert_eq!((canary.error, canary.first_token), (format!("not an event stream but `{kind}`"), Some(false)));
        }
    }

    /// Sends the head, the role, and then a piece over and over without a pause.
    async fn for_ever(piece: &'static [u8]) -> SocketAddrV4 {
        listen(move |mut stream| async move {
            read_request(&mut stream).await;
            let many = piece.repeat(64);
            let _ = stream.write_all(&[HEAD, ROLE].concat()).await;
            while stream.write_all(&many).await.is_ok() {}
        })
        .await
    }

    #[tokio::test]
    async fn streams_that_never_end_are_cut_off_in_time() {
        let began = Instant::now();
        let tokens = ask(for_ever(TOKEN).await, 400, 900).await;
        assert_eq!((tokens.error.as_str(), tokens.first_token), ("the stream stopped before [DONE]", Some(true)));
        assert!(!tokens.stream.complete() && tokens.stream.text.len() <= 64 << 10, "{}", tokens.stream.text.len());
        let comments = ask(for_ever(b": nothing\n\n").await, 400, 900).await;
        assert_eq!((comments.error.as_str(), comments.first_token), ("no token within 400 ms", Some(false)));
        let roles = ask(for_ever(ROLE).await, 400, 900).await;
        assert_eq!((roles.error.as_str(), roles.first_token), ("no token within 400 ms", Some(false)));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_stream_cut_inside_a_character_is_read_whole() {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"né€\"},\"finish_reason\":\"stop\"}],\"usage\":{\"completion_tokens\":1}}\r\n\r\n";
        let server = listen(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(HEAD).await.unwrap();
            for byte in event.bytes().chain(*b"data: [DONE]\n\n") {
                stream.write_all(&[byte]).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let canary = ask(server.await, 3000, 5000).await;
        assert_eq!((canary.error.as_str(), canary.stream.text.as_str(), canary.stream.complete()), ("", "né€", true));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_servers_words() {
        let unknown = http(|_| include_bytes!("../../tests/data/vllm/err_unknown_model_stream.txt").to_vec()).await;
        let error = ask(unknown, 1000, 2000).await.error;
        assert!(error.starts_with("HTTP 404: The model `nope` does not exist."), "{error}");
        let unauthorized = http(|_| include_bytes!("../../tests/data/vllm/err_401.txt").to_vec()).await;
        let canary = ask(unauthorized, 1000, 2000).await;
        assert_eq!((canary.error.as_str(), canary.status, canary.first_token), ("HTTP 401: Unauthorized", 401, Some(false)));
    }
}
