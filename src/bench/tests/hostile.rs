//! Servers that are broken or mean: a right number, or a word for why there is none.

use super::super::client::{self, Done, Job, Target};
use super::super::sample::Outcome;
use crate::vantage::Net;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What a server does with a request, step by step; then it closes.
#[derive(Clone)]
enum Step {
    /// Writes this.
    Send(Vec<u8>),
    /// Writes this byte by byte, each in a segment of its own.
    Drip(Vec<u8>),
    /// Writes this again and again, for ever.
    Flood(Vec<u8>),
    /// Is silent for ever.
    Hold,
}

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";
const DONE: &str = "data: [DONE]\n\n";

/// The `n`th token.
fn token(n: u64, text: &str, reason: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{reason}}}],\
         \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{n}}}}}\n\n"
    )
}

/// Answers each request with the same steps; counts the bytes that a client took.
async fn server(steps: Vec<Step>) -> (SocketAddrV4, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that leaves is what some of these tests are about.
            let _ = serve(stream, &steps, &count).await;
        }
    });
    (address, taken)
}

async fn serve(mut stream: TcpStream, steps: &[Step], taken: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = vec![0; 64 << 10];
    let n = stream.read(&mut request).await?;
    let first = String::from_utf8_lossy(&request[..n]).lines().next().unwrap_or_default().to_owned();
    assert!(first.starts_with("POST /") && first.ends_with("/v1/chat/completions HTTP/1.1"), "{first}");
    for step in steps {
        match step {
            Step::Send(bytes) => stream.write_all(bytes).await?,
            Step::Drip(bytes) => {
                for byte in bytes {
                    stream.write_all(&[*byte]).await?;
                    tokio::task::yield_now().await;
                }
            }
            Step::Flood(bytes) => loop {
                stream.write_all(bytes).await?;
                taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            },
            Step::Hold => std::future::pending().await,
        }
    }
    stream.shutdown().await
}

async fn ask(steps: Vec<Step>, patience_ms: u64) -> Done {
    ask_and_count(steps, patience_ms).await.0
}

async fn ask_and_count(steps: Vec<Step>, patience_ms: u64) -> (Done, u64) {
    let (address, taken) = server(steps).await;
    let job = Job { index: 0, due: None, body: b"{\"max_tokens\":4}".to_vec(), page: false };
    let target = Target::plain(Net::Here, address);
    let done = client::run(&target, job, Instant::now(), Duration::from_millis(patience_ms)).await;
    (done, taken.load(Ordering::Relaxed))
}

fn word(done: &Done) -> &str {
    match &done.sample.outcome {
        Outcome::Failed(word) => word,
        Outcome::Complete => "complete",
        _ => "?",
    }
}

/// A patience that no test uses up.
const LONG: u64 = 60_000;

#[tokio::test]
async fn the_framing_does_not_matter() {
    let all = format!("{}{}{}{DONE}", token(1, "\u{e9}\u{1f6a2}", "null"), token(2, " b\\\"c", "null"), token(3, "", "\"stop\""));
    let crlf = all.replace('\n', "\r\n");
    let comments = all.replace("\n\n", "\n: keep-alive\nid: 7\nevent: message\nretry: 5\n\n: \u{1f6a2}\n\n");
    let chunked = |piece: usize| {
        let mut body =
            String::from("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nTransfer-Encoding: Chunked\r\n\r\n").into_bytes();
        // Chunks end inside a character, inside a JSON string and inside `data`.
        for part in all.as_bytes().chunks(piece) {
            body.extend_from_slice(format!("{:x};x=y\r\n", part.len()).as_bytes());
            body.extend_from_slice(part);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    };
    let cases = [
        vec![send(HEAD), send(&all)],
        vec![send(HEAD), Step::Drip(all.as_bytes().to_vec())],
        vec![send(HEAD), send(&crlf)],
        vec![send(HEAD), Step::Drip(crlf.into_bytes())],
        vec![send(HEAD), send(&comments)],
        vec![Step::Drip(chunked(1))],
        vec![Step::Send(chunked(7))],
        vec![send(HEAD), send("\u{feff}"), send(&all)],
        // What comes behind the end belongs to nobody.
        vec![send(HEAD), send(&all), send("data: {\"error\":\"late\"}\n\n"), Step::Hold],
    ];
    for (n, steps) in cases.into_iter().enumerate() {
        let done = ask(steps, LONG).await;
        let s = &done.sample;
        assert_eq!((word(&done), s.output_tokens, s.prompt_tokens, s.token_events), ("complete", Some(3), Some(5), 3), "case {n}");
        assert!(s.finish_reason.as_deref() == Some("stop") && s.ttft_ms.is_some() && done.gaps.len() == 2, "case {n}: {s:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let usual = [token(1, "a", "null"), token(2, "b", "\"length\"")].concat();
    let no_usage = usual.replace("\"usage\"", "\"other\"");
    let no_reason = [token(1, "a", "null"), token(2, "b", "null")].concat();
    let died =
        "data: {\"error\": {\"message\": \"EngineCore encountered an issue.\", \"type\": \"InternalServerError\", \"code\": 500}}\n\n";
    for (body, expected, tokens) in [
        (usual.clone(), "the stream ended without [DONE]", Some(2)),
        (format!("{no_usage}{DONE}"), "no usage: tokens unknown", None),
        (format!("{no_reason}{DONE}"), "no finish_reason", Some(2)),
        (DONE.to_owned(), "no finish_reason", None),
        (String::new(), "the stream ended without [DONE]", None),
        (format!("{}{died}{DONE}", token(1, "a", "null")), "error event: EngineCore encountered an issue.", Some(1)),
        (format!("{usual}{died}{DONE}"), "error event: EngineCore encountered an issue.", Some(2)),
        (format!("{}data: {{\"choices\": [\n\n{DONE}", token(1, "a", "null")), "error event: an event is not JSON", Some(1)),
        (
            format!(
                "data: {{\"usage\":{{\"completion_tokens\":18446744073709551615}},\"choices\":[{{\"finish_reason\":\"stop\"}}]}}\n\n{DONE}"
            ),
            "no usage: tokens unknown",
            None,
        ),
    ] {
        let done = ask(vec![send(HEAD), send(&body)], LONG).await;
        assert_eq!((word(&done), done.sample.output_tokens), (expected, tokens), "{body}");
        assert!(done.sample.ttft().is_infinite() && done.gaps.is_empty(), "a failure is in no latency: {:?}", done.sample);
    }
}

#[tokio::test]
async fn a_stream_without_usage_has_its_first_token_and_no_rate() {
    let body = [token(1, "a", "null"), token(2, "b", "\"stop\"")].concat().replace("\"usage\"", "\"other\"");
    let s = ask(vec![send(HEAD), send(&body), send(DONE)], LONG).await.sample;
    assert_eq!((s.ttft_ms.is_some(), s.tpot_ms, s.token_events), (true, None, 2));
}

#[tokio::test]
async fn several_tokens_in_one_event_are_counted_by_usage() {
    let body = [token(4, "a b c d", "null"), token(8, "e f g h", "\"length\"")].concat();
    let done = ask(vec![send(HEAD), Step::Drip(body.into_bytes()), send(DONE)], LONG).await;
    let (s, gap) = (&done.sample, f64::from(done.gaps[0]));
    assert_eq!((word(&done), s.output_tokens, s.token_events), ("complete", Some(8), 2));
    // Four tokens came in the first event: the gap made the other four.
    assert!((s.tpot_ms.unwrap() - gap / 4.0).abs() < 1e-3, "{s:?} {gap}");
}

#[tokio::test]
async fn answers_that_are_no_stream() {
    let page = |head: &str, body: &str| vec![send(&format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))];
    let json = "{\"choices\":[{\"message\":{\"content\":\"x\"}}]}";
    for (steps, expected) in [
        (page("200 OK\r\ncontent-type: text/html", "<html>"), "not an event stream but `text/html`"),
        (page("200 OK\r\ncontent-type: application/json", json), "not an event stream but `application/json`"),
        (page("200 OK", ""), "not an event stream but ``"),
        (page("503 Service Unavailable", "{\"error\":{\"message\":\"busy\"}}"), "HTTP 503: busy"),
        (page("302 Found\r\nlocation: http://192.0.2.1/", ""), "HTTP 302"),
        (vec![send("SSH-2.0-OpenSSH_9.6\r\n\r\n")], "not HTTP"),
        (vec![], "EOF"),
        (
            vec![send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")],
            "not HTTP: a chunk without a size",
        ),
        (vec![send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata")], "EOF"),
    ] {
        let done = ask(steps, LONG).await;
        assert_eq!((word(&done), done.sample.output_tokens), (expected, None));
    }
    // Escape sequences of a server do not reach a terminal.
    let done = ask(page("500 X", "\u{1b}]0;owned\u{7}\u{1b}[2J"), LONG).await;
    assert!(word(&done).starts_with("HTTP 500: ") && !word(&done).contains('\u{1b}'), "{}", word(&done));
}

/// Some servers say back what they were sent: a wrong key, or a path that holds one.
#[tokio::test]
async fn a_key_that_is_said_back_is_not_shown() {
    const KEY: &str = "MaRkErKeY0123";
    const PATH: &str = "MaRkErPaTh0123456789";
    for answer in [
        format!("HTTP/1.1 401 Unauthorized\r\n\r\n{{\"error\":{{\"message\":\"no such key: {KEY}\"}}}}"),
        format!("{HEAD}data: {{\"error\":{{\"message\":\"Bearer {KEY} has expired\"}}}}\n\n{DONE}"),
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/{KEY}\r\n\r\n"),
        format!("HTTP/1.1 404 Not Found\r\n\r\nno route /{PATH}/v1/chat/completions"),
    ] {
        let (address, _) = server(vec![send(&answer)]).await;
        let target = Target { key: Some(KEY.to_owned()), prefix: format!("/{PATH}"), ..Target::plain(Net::Here, address) };
        let job = Job { index: 0, due: None, body: b"{}".to_vec(), page: false };
        let done = client::run(&target, job, Instant::now(), Duration::from_millis(LONG)).await;
        let shown = format!("{target:?} {done:?}");
        assert!(word(&done).contains("***") && target.shown().ends_with("/***"), "{shown}");
        assert!(!shown.contains(KEY) && !shown.contains(PATH), "{shown}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_patience_and_says_where() {
    let first = token(1, "a", "null");
    for (steps, expected) in [
        (vec![Step::Hold], "no headers within 0.3 s"),
        (vec![send("HTTP/1.1 200 OK\r\n"), Step::Hold], "no headers within 0.3 s"),
        (vec![send(HEAD), Step::Hold], "headers and no token within 0.3 s"),
        // A role is no token, however long the prefill behind it.
        (
            vec![send(HEAD), send("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"), Step::Hold],
            "headers and no token within 0.3 s",
        ),
        (vec![send(HEAD), Step::Flood(b": ping\n\n".to_vec())], "headers and no token within 0.3 s"),
        (vec![send(HEAD), send(&first), Step::Hold], "the stream did not end within 0.3 s"),
    ] {
        // A stream of comments alone may reach the limit on its size before its time is up.
        let (done, taken) = ask_and_count(steps, 300).await;
        assert!(word(&done) == expected || (taken > 60 << 20 && word(&done) == "an answer longer than 64 MiB"), "{} {taken}", word(&done));
    }
}

#[tokio::test]
async fn a_stream_that_never_ends_is_cut_off_at_a_bound() {
    // Long events: what is measured is the bound on bytes, not the speed of a debug build.
    let flood = token(1, &"a".repeat(4000), "null").repeat(10);
    let (done, taken) = ask_and_count(vec![send(HEAD), Step::Flood(flood.into_bytes())], LONG).await;
    assert_eq!(word(&done), "an answer longer than 64 MiB");
    // Socket buffers hold some more.
    assert!(taken < 80 << 20, "{taken}");
    assert!(done.sample.token_events > 10_000 && done.gaps.is_empty(), "{:?}", done.sample);
}

#[tokio::test]
async fn lines_have_a_bound_of_one_mebibyte() {
    let text = |bytes: usize| token(1, &"x".repeat(bytes), "\"stop\"");
    let done = ask(vec![send(HEAD), send(&text(1_000_000)), send(DONE)], LONG).await;
    assert_eq!((word(&done), done.sample.output_tokens), ("complete", Some(1)));
    let (done, taken) = ask_and_count(vec![send(HEAD), send("data: "), Step::Flood(vec![b'x'; 16 << 10])], LONG).await;
    assert_eq!(word(&done), "a line or event longer than 1 MiB");
    assert!(taken < 16 << 20, "{taken}");
    let (done, _) = ask_and_count(vec![send(HEAD), Step::Flood(b"data: x\n".repeat(2000))], LONG).await;
    assert_eq!(word(&done), "a line or event longer than 1 MiB");
    let (done, _) = ask_and_count(vec![send("HTTP/1.1 200 OK\r\n"), Step::Flood(b"x-a: b\r\n".repeat(2000))], LONG).await;
    assert_eq!(word(&done), "headers too large");
}
