//! Every answer of the real server that was captured, asked of the stand-in again: the same bytes, but for what depends on the
//! model, on the moment, and on who asks.

use super::*;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const JSON: &str = "content-type: application/json\r\n";
const CHAT: &str = "/v1/chat/completions";

/// Status line, headers without those that differ from run to run, and the body.
#[derive(Debug, PartialEq)]
struct Answer {
    head: Vec<String>,
    body: String,
}

impl Answer {
    /// Reads an answer as `curl -i` writes it, its body already put together.
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let varies = ["date:", "content-length:", "connection:", "x-request-id:", "transfer-encoding:"];
        let head = head.lines().filter(|line| !varies.iter().any(|name| line.starts_with(name))).map(str::to_owned);
        Self { head: head.collect(), body: stable(body) }
    }
}

fn start() -> VllmHandle {
    let pace = Pace { first_token: Duration::from_millis(1), interval: Duration::from_millis(1) };
    let tiny = Vllm { model: "tiny".into(), max_model_len: 512, pace };
    tiny.serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Every byte of the answer.
async fn raw(server: &VllmHandle, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The pieces of a chunked body.
fn chunks(mut body: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(rest, "\r\n", "nothing comes behind the last chunk");
            return pieces;
        }
        let (piece, rest) = rest.split_at(size);
        pieces.push(piece);
        body = rest.strip_prefix("\r\n").unwrap();
    }
}

async fn ask(server: &VllmHandle, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let text = raw(server, method, path, headers, body).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body = if head.contains("transfer-encoding: chunked") { chunks(body).concat() } else { body.to_owned() };
    Answer::read(&format!("{head}\r\n\r\n{body}"))
}

async fn post(server: &VllmHandle, path: &str, body: &Value) -> Answer {
    ask(server, "POST", path, JSON, &body.to_string()).await
}

/// Each line with its JSON printed anew, so that spacing and the order of keys count, and what varies masked.
fn stable(body: &str) -> String {
    let line = |line: &str| {
        let (prefix, text) = line.strip_prefix("data: ").map_or(("", line), |rest| ("data: ", rest));
        let Ok(mut value) = serde_json::from_str::<Value>(text) else { return line.to_owned() };
        assert_eq!(value.to_string(), text, "spacing");
        mask(&mut value);
        format!("{prefix}{value}")
    };
    body.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn mask(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match (key.as_str(), value.as_str()) {
            // An identifier keeps its kind.
            ("id", Some(text)) if text.contains('-') => *value = text.split_once('-').map_or("", |(kind, _)| kind).into(),
            ("content" | "text", Some(text)) if !text.is_empty() => *value = "X".into(),
            ("root" | "system_fingerprint", Some(_)) => *value = "X".into(),
            ("created" | "prompt_tokens" | "total_tokens", None) if value.is_u64() => *value = 0.into(),
            // Times and rates.
            (_, None) if value.is_f64() => *value = 0.0.into(),
            _ => mask(value),
        }),
        _ => {}
    }
}

fn chat(max_tokens: i64) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": "Free OCR."}], "max_tokens": max_tokens})
}

fn streamed(max_tokens: i64, options: &Value) -> Value {
    let mut request = chat(max_tokens);
    request["stream"] = json!(true);
    request["stream_options"] = options.clone();
    request
}

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/data/vllm/", $name))
    };
}

#[tokio::test]
async fn what_is_got() {
    let server = start();
    for (path, capture) in [
        ("/health", capture!("get_health.txt")),
        ("/ping", capture!("get_ping.txt")),
        ("/version", capture!("get_version.txt")),
        ("/load", capture!("get_load.txt")),
        ("/nothere", capture!("err_404_route.txt")),
        (CHAT, capture!("err_405.txt")),
    ] {
        assert_eq!(ask(&server, "GET", path, "", "").await, Answer::read(capture), "{path}");
    }
    // The captured server has a second name for its model.
    let (ours, mut theirs) = (ask(&server, "GET", "/v1/models", "", "").await, Answer::read(capture!("get_v1_models.txt")));
    let mut list: Value = serde_json::from_str(&theirs.body).unwrap();
    list["data"].as_array_mut().unwrap().truncate(1);
    theirs.body = list.to_string();
    assert_eq!(ours, theirs);
    let counted = post(&server, "/tokenize", &json!({"model": "tiny", "prompt": "two words"})).await;
    let theirs = Answer::read(capture!("tokenize.txt"));
    assert_eq!((counted.head, counted.body.replace("[1,2]", "[321,316]")), (theirs.head, theirs.body));
}

#[tokio::test]
async fn completions() {
    let server = start();
    let usage = json!({"include_usage": true});
    let running = json!({"include_usage": true, "continuous_usage_stats": true});
    for (request, capture) in [
        (chat(8), capture!("chat_nonstream.txt")),
        (streamed(8, &usage), capture!("chat_stream_usage.txt")),
        (streamed(8, &running), capture!("chat_stream_contusage.txt")),
        (streamed(4, &Value::Null), capture!("chat_stream_nousage.txt")),
    ] {
        assert_eq!(post(&server, CHAT, &request).await, Answer::read(capture), "{request}");
    }
    let text = json!({"model": "tiny", "prompt": "Free OCR.", "max_tokens": 6, "stream": true, "stream_options": {"include_usage": true}});
    assert_eq!(post(&server, "/v1/completions", &text).await, Answer::read(capture!("comp_stream_usage.txt")));

    server.set_stream_interval(4);
    let several = post(&server, CHAT, &streamed(10, &running)).await;
    assert_eq!(several.body, stable(capture!("chat_stream_interval4.txt")), "several tokens in a chunk");
}

#[tokio::test]
async fn a_stream_is_one_event_to_a_chunk() {
    let server = start();
    let ours = raw(&server, "POST", CHAT, JSON, &streamed(15, &json!({"include_usage": true})).to_string()).await;
    let framing = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        // Requests have an identifier only where that is switched on.
        let names: Vec<String> = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
        let names: Vec<String> = names.into_iter().filter(|name| name != "x-request-id").collect();
        (names, chunks(body).into_iter().map(stable).collect::<Vec<_>>())
    };
    let capture = std::str::from_utf8(include_bytes!("../../../../tests/data/vllm/raw_stream_bytes.bin")).unwrap();
    let (ours, theirs) = (framing(&ours), framing(capture));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(ours.0), sorted(theirs.0));
    assert!(theirs.1.len() > 10 && theirs.1.iter().all(|event| event.ends_with("\n\n") && event.matches("data: ").count() == 1));
    let (kinds, captured): (Vec<&str>, Vec<&str>) = (ours.1.iter().map(|e| kind(e)).collect(), theirs.1.iter().map(|e| kind(e)).collect());
    assert_eq!((kinds.first(), kinds.last()), (captured.first(), captured.last()));
    assert!(ours.1.iter().all(|event| event.ends_with("\n\n") && event.matches("data: ").count() == 1));
}

/// What an event is.
fn kind(event: &str) -> &str {
    ["\"role\"", "[DONE]", "\"content\""].into_iter().find(|part| event.contains(part)).unwrap_or("usage")
}

#[tokio::test]
async fn refusals() {
    let server = start();
    let with = |key: &str, value: Value| {
        let mut request = chat(8);
        request[key] = value;
        request
    };
    let long = json!([{"role": "user", "content": "w ".repeat(512)}]);
    for (request, capture) in [
        (with("temperature", json!(-3.0)), capture!("err_bad_temp.txt")),
        (with("messages", json!([])), capture!("err_empty_messages.txt")),
        (with("messages", long), capture!("err_overlong_prompt.txt")),
        (chat(4096), capture!("err_max_tokens_too_big.txt")),
        (chat(0), capture!("err_max_tokens_zero.txt")),
        (json!({"model": "tiny"}), capture!("err_missing_messages.txt")),
    ] {
        assert_eq!(post(&server, CHAT, &request).await, Answer::read(capture), "{request}");
    }
    for capture in [capture!("err_unknown_model.txt"), capture!("err_unknown_model_stream.txt")] {
        let only = capture.replace("tiny, deepseek-ai/DeepSeek-OCR", "tiny");
        assert_eq!(post(&server, CHAT, &with("model", json!("nope"))).await, Answer::read(&only));
    }
    let cut = ask(&server, "POST", CHAT, JSON, "{\"model\":\"tiny\",\"messages\":[").await;
    assert_eq!(cut, Answer::read(capture!("err_bad_json.txt")));
    let text = ask(&server, "POST", CHAT, "content-type: text/plain\r\n", "x").await;
    assert_eq!(text, Answer::read(capture!("err_wrong_ctype.txt")));
    server.set_trouble(Trouble::QueueFull);
    let refused = post(&server, CHAT, &streamed(8, &Value::Null)).await;
    assert_eq!(refused.head[0], "HTTP/1.1 503 Service Unavailable");
    assert_eq!(refused.body, capture!("err_queue_limit.txt").lines().nth(1).unwrap());
    server.set_api_key(Some("key"));
    assert_eq!(post(&server, CHAT, &chat(1)).await, Answer::read(capture!("err_401.txt")));
    let known = ask(&server, "GET", "/v1/models", "authorization: Bearer key\r\n", "").await;
    assert_eq!(known.head[0], "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn images_and_the_n_gram_processor() {
    let server = start();
    let image = |url: &str| {
        let mut request = chat(4);
        request["messages"][0]["content"] =
            json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Free OCR."}]);
        request
    };
    let processor = |size: Value| {
        let mut request = chat(2);
        request["vllm_xargs"] = json!({"ngram_size": size});
        request
    };
    for (request, status, capture) in [
        (image("data:image/png;base64,!!!!"), 400, capture!("ocr_bad_base64.json")),
        (image("data:image/png;base64,AAAA"), 400, capture!("ocr_corrupt_png.json")),
        (image("data:application/pdf;base64,JVBERi0xLjQK"), 400, capture!("ocr_pdf_as_image_url.json")),
        (image("file:///etc/hostname"), 500, capture!("ocr_file_url.json")),
        (image("https://127.0.0.1:9/x.pdf"), 500, capture!("ocr_https_pdf_url.json")),
        (processor(json!(-1)), 400, capture!("ocr_xargs_ngram_minus_1.json")),
        (processor(json!("30")), 400, capture!("ocr_xargs_wrong_type.json")),
    ] {
        let answer = post(&server, CHAT, &request).await;
        assert!(answer.head[0].starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer:?}");
        assert_eq!(answer.body, capture, "{request}");
    }
    // Where the processor is not loaded, its argument is nothing.
    server.set_trouble(Trouble::Repetition);
    assert_eq!(post(&server, CHAT, &processor(json!(-1))).await, Answer::read(capture!("xargs_neg_noproc.txt")));
}

/// The server of these captures was told to add what each request cost.
#[tokio::test]
async fn what_a_request_cost() {
    let server = start();
    server.set_details(true);
    assert_eq!(post(&server, CHAT, &chat(8)).await, Answer::read(capture!("chat_nonstream_perreqmetrics.txt")));
    let streamed = streamed(8, &json!({"include_usage": true}));
    assert_eq!(post(&server, CHAT, &streamed).await, Answer::read(capture!("chat_stream_perreqmetrics.txt")));
}

/// A part of a message that is an image of this size; the stand-in reads nothing behind a PNG's head.
fn png(width: u32, height: u32) -> Value {
    let head = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &width.to_be_bytes(), &height.to_be_bytes()].concat();
    json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", crate::encoding::base64(&head))}})
}

#[tokio::test]
async fn pages_that_are_read() {
    let server = start();
    server.set_model("deepseek-ai/DeepSeek-OCR");
    server.set_max_model_len(8192);
    server.set_details(true);
    let text = || json!({"type": "text", "text": "Free OCR."});
    let asked = |content: Value| {
        let mut request = chat(4);
        (request["model"], request["messages"][0]["content"]) = (json!("deepseek-ai/DeepSeek-OCR"), content);
        request
    };
    let small = || png(64, 64);
    for (content, capture) in [
        (json!([small(), text()]), capture!("ocr_64x64.json")),
        (json!([text(), small()]), capture!("ocr_text_first.json")),
        (json!([png(640, 640), text()]), capture!("ocr_640x640.json")),
        (json!([png(1024, 1024), text()]), capture!("ocr_1024x1024.json")),
        (json!([png(1190, 1684), text()]), capture!("ocr_1190x1684.json")),
        (json!([small(), small(), text()]), capture!("ocr_two_images.json")),
        (json!([text()]), capture!("ocr_text_only.json")),
        (json!("Free OCR."), capture!("ocr_string_content.json")),
    ] {
        assert_eq!(post(&server, CHAT, &asked(content.clone())).await.body, stable(capture), "{content}");
    }
    let mut streamed = streamed(6, &json!({"include_usage": true, "continuous_usage_stats": true}));
    (streamed["model"], streamed["messages"]) = (json!("deepseek-ai/DeepSeek-OCR"), asked(json!([small(), text()]))["messages"].clone());
    assert_eq!(post(&server, CHAT, &streamed).await, Answer::read(capture!("ocr_stream.txt")));

    server.set_model("tiny");
    server.set_trouble(Trouble::TextOnly);
    let mut refused = asked(json!([small(), text()]));
    refused["model"] = json!("tiny");
    assert_eq!(post(&server, CHAT, &refused).await, Answer::read(capture!("err_image_to_text_model.txt")));
}

/// Names, types, label sets, bounds and their order; not the values, and not the help texts, which nothing reads.
#[tokio::test]
async fn metrics() {
    let server = start();
    let shape = |text: &str| -> Vec<String> {
        let line = |line: &str| match line.strip_prefix("# ") {
            Some(rest) => rest.split(' ').take(if rest.starts_with("TYPE") { 3 } else { 2 }).collect::<Vec<_>>().join(" "),
            None => labels(line.rsplit_once(' ').unwrap().0),
        };
        text.lines().filter(|l| l.contains("vllm:")).map(line).collect()
    };
    let ours = raw(&server, "GET", "/metrics", "", "").await;
    let (ours, theirs) = (shape(&ours), shape(capture!("get_metrics.txt")));
    for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "line {n}");
    }
    assert_eq!(ours.len(), theirs.len());
}

/// The values of the engine's configuration are its own.
fn labels(sample: &str) -> String {
    let Some(labels) = sample.strip_prefix("vllm:cache_config_info") else { return sample.to_owned() };
    labels.split("\",").map(|label| label.split('=').next().unwrap_or_default()).collect::<Vec<_>>().join(",")
}
