//! `ocr`: the built-in sample page, read by an OCR model; besides, whether the server's own no-repeat processor is loaded,
//! what it says of a PDF in the place of an image, and whether its host can fetch an image.

use super::canary::{self, Ask, Canary, completion_request};
use super::completion::error_message;
use super::http1;
use super::net::{Upload, connect, ms};
use super::ocr_page::{self, SIDE};
use super::vllm::{Fetched, fetch};
use super::vllm_metrics::{Scrape, whole};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use crate::encoding::base64;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// The built-in sample page, read by an OCR model.
pub(super) static KIND: Kind = Kind {
    name: "ocr",
    root: "ocr",
    about: "The built-in sample page, read by an OCR model; whether its no-repeat processor is loaded, and whether it can fetch images",
    privilege: None,
    args: &[
        ("address", "IPv4 address"),
        ("port", "API port"),
        ("model", "model name"),
        ("max_tokens", "most tokens of the answer (192)"),
        ("fetch_url", "URL that the server's host must reach, where images come from (optional)"),
    ],
    facts: &[
        fact("status", "number", "HTTP status of the streamed completion; 0 if no answer"),
        fact("error", "text", "what went wrong; empty if nothing"),
        fact("upload_ms", "ms", "time with bytes of the request under way, by the kernel (TCP_INFO), to a clock tick"),
        fact("upload_kb_per_s", "1000 bytes/s", "acknowledged bytes of the request over that time"),
        fact("rtt_ms", "ms", "round trip of that connection's handshake as the kernel measured it"),
        fact("headers_ms", "ms", "request handed to the kernel until headers: the rest of its way, parsing and preparing the image"),
        fact("ttft_ms", "ms", "time to first token, from the first request byte"),
        fact("tokens", "tokens", "completion tokens by the server's usage"),
        fact("finish_reason", "text", "why it ended; empty if it did not say"),
        fact("complete", "bool", "finish_reason, usage, `[DONE]`, and no error event"),
        fact("text", "text", "start of what it read, cleaned"),
        fact("repeats", "bool", "the text ends in one piece said over and over"),
        fact("words_expected", "count", "words on the page"),
        fact("words_found", "count", "words of the page in the text"),
        fact("prompt_tokens", "tokens", "prompt tokens by the server's usage"),
        fact("image_tokens_expected", "tokens", "image tokens by the size formula"),
        fact("image_tokens_ok", "bool", "the prompt has as many tokens as image and a short text make"),
        fact("running", "count", "requests running a second after the request was sent"),
        fact("waiting", "count", "requests waiting then"),
        fact("api_cpu_percent", "percent", "processor time of the API server over the request; 100 is one core"),
        fact("processor_loaded", "bool", "the no-repeat n-gram processor is loaded: it refuses ngram_size -1"),
        fact("pdf.refused", "bool", "a PDF in the place of an image is refused: not the fetching failed, nor the model, but what was sent"),
        fact("pdf.status", "number", "HTTP status of a completion with a PDF as its image; 0 if no answer"),
        fact("pdf.message", "text", "the server's words for it"),
        fact("fetch.ok", "bool", "the server's host reached `fetch_url`"),
        fact("fetch.status", "number", "HTTP status of a completion with that URL as its image; 0 if no answer"),
        fact("fetch.message", "text", "the server's words for it"),
        fact("fetch.ms", "ms", "how long that took"),
    ],
    decode: decode::<Ocr>,
};

/// When the engine is looked at while the request is under way.
const DURING: Duration = Duration::from_secs(1);
/// How long one of the small requests may take: vLLM itself gives up fetching after 5 s.
const SMALL_REQUEST: Duration = Duration::from_secs(9);
/// What is kept of the check's time for the small requests.
const RESERVE: Duration = Duration::from_secs(12);
/// The sample page is small for a page. With this much behind it a path that carries less than the 100 kB/s that are asked for needs a
/// second for it.
const PADDING: usize = 96 << 10;
/// Tokens that the text of the prompt has at most, the model's own ones included.
const MOST_TEXT_TOKENS: u64 = 32;
/// The beginning of a PDF file (ISO 32000, section 7.5.2) and its end: that it is one shows in the first bytes.
const PDF: &[u8] = b"%PDF-1.4\n%%EOF\n";
/// Most bytes of a small answer.
const MOST_BODY_BYTES: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ocr {
    address: Ipv4Addr,
    port: u16,
    model: String,
    #[serde(default = "a_page")]
    max_tokens: u32,
    #[serde(default)]
    fetch_url: Option<String>,
}

fn a_page() -> u32 {
    192
}

impl Ocr {
    fn server(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    async fn look(&self, net: &Net, deadline: Instant) -> Observation {
        let mut seen = Observation::default();
        let (page, metrics) = self.read_page(net, deadline.checked_sub(RESERVE).unwrap_or(deadline)).await;
        record_page(&page, &mut seen);
        metrics.record(&mut seen.facts);
        self.ask_processor(net, deadline, &mut seen).await;
        self.send_pdf(net, deadline, &mut seen).await;
        self.ask_to_fetch(net, deadline, &mut seen).await;
        seen
    }

    /// Sends the page, and looks at the engine before, during and after.
    async fn read_page(&self, net: &Net, deadline: Instant) -> (Canary, Metrics) {
        let scrape = || fetch(net, self.server(), "/metrics", deadline);
        let ask = Ask {
            server: self.server(),
            model: self.model.clone(),
            max_tokens: self.max_tokens,
            first_token: Duration::from_secs(20),
            padding: PADDING,
        };
        let (before, began) = (scrape().await, Instant::now());
        let during = async {
            tokio::time::sleep_until(deadline.min(began + DURING)).await;
            scrape().await
        };
        let mut done = std::pin::pin!(canary::run_with(net, &ask, self.body(&ocr_page::data_url(), true), deadline));
        // A page that is read sooner than that was held up by nothing.
        let (page, during) = tokio::select! {
            page = &mut done => (page, None),
            during = during => (done.await, Some(during)),
        };
        let after = scrape().await;
        (page, Metrics { before, during, after, elapsed: began.elapsed() })
    }

    /// The documented request, image first.
    fn body(&self, image: &str, stream: bool) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": image}},
                {"type": "text", "text": "Free OCR."},
            ]}],
            "max_tokens": if stream { self.max_tokens } else { 1 },
            "temperature": 0,
            "skip_special_tokens": false,
            "vllm_xargs": {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128_821, 128_822]},
        });
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
        }
        body
    }

    /// `ngram_size: -1` is refused with 400 where the processor is loaded, and ignored where it is not.
    async fn ask_processor(&self, net: &Net, deadline: Instant, seen: &mut Observation) {
        let mut body = json!({"model": self.model, "messages": [{"role": "user", "content": "Free OCR."}], "max_tokens": 1});
        body["vllm_xargs"] = json!({"ngram_size": -1});
        let answer = self.post(net, &body, deadline).await;
        seen.note("http", format!("POST /v1/chat/completions with ngram_size -1 -> {}", answer.words()));
        match answer.status {
            200 => seen.facts.set("processor_loaded", false),
            400 if answer.message.contains("ngram_size") => seen.facts.set("processor_loaded", true),
            _ => seen.facts.unknown("processor_loaded", answer.words()),
        };
    }

    /// A PDF where an image belongs: text first, as the architecture document has it, and the PDF in the request itself, so that no
    /// fetching can be what fails.
    async fn send_pdf(&self, net: &Net, deadline: Instant, seen: &mut Observation) {
        let pdf = format!("data:application/pdf;base64,{}", base64(PDF));
        let content = json!([
            {"type": "text", "text": "<|grounding|>Convert the document to markdown."},
            {"type": "image_url", "image_url": {"url": pdf}},
        ]);
        let body = json!({"model": self.model, "messages": [{"role": "user", "content": content}], "max_tokens": 1, "temperature": 0});
        let answer = self.post(net, &body, deadline).await;
        seen.note("http", format!("POST /v1/chat/completions with a PDF as image_url -> {}", answer.words()));
        let refused = match answer.status {
            200 => Some(false),
            400 if answer.message.contains("cannot identify image") => Some(true),
            _ => None,
        };
        seen.facts
            .set_or_unknown("pdf.refused", refused, &answer.words())
            .set("pdf.status", answer.status)
            .set("pdf.message", answer.message);
    }

    /// A page in the place of an image proves as much as an image would: the server has fetched it if it knows that it is none.
    async fn ask_to_fetch(&self, net: &Net, deadline: Instant, seen: &mut Observation) {
        let Some(url) = self.fetch_url.as_deref().filter(|url| !url.is_empty()) else {
            for path in ["fetch.ok", "fetch.status", "fetch.message", "fetch.ms"] {
                seen.facts.unknown(path, "no `fetch_url` was given");
            }
            return;
        };
        let began = Instant::now();
        let answer = self.post(net, &self.body(url, false), deadline).await;
        seen.note("http", format!("POST /v1/chat/completions with an image by URL -> {}", answer.words()));
        let ok = match answer.status {
            200 => Some(true),
            400 if answer.message.contains("cannot identify image") => Some(true),
            500 => Some(false),
            _ => None,
        };
        seen.facts
            .set_or_unknown("fetch.ok", ok, &answer.words())
            .set("fetch.status", answer.status)
            .set("fetch.message", answer.message)
            .set("fetch.ms", ms(began.elapsed()));
    }

    async fn post(&self, net: &Net, body: &Value, deadline: Instant) -> Small {
        let until = deadline.min(Instant::now() + SMALL_REQUEST);
        match self.try_post(net, body, until).await {
            Ok(small) => small,
            Err(message) => Small { status: 0, message },
        }
    }

    async fn try_post(&self, net: &Net, body: &Value, until: Instant) -> Result<Small, String> {
        let request = completion_request(self.server(), body, 0).map_err(|_| "not a valid request".to_owned())?;
        let (stream, _) = connect(net, self.server(), until).await.map_err(|failed| failed.word)?;
        let mut answer = http1::send(stream, request, until).await.map_err(|failed| failed.word)?;
        let status = answer.head.status.as_u16();
        let (body, _) = answer.read(MOST_BODY_BYTES, until).await;
        let message = serde_json::from_slice::<Value>(&body).ok().as_ref().and_then(error_message).unwrap_or_default();
        Ok(Small { status, message: clean(&message, 300) })
    }
}

/// The answer to a small request.
struct Small {
    /// HTTP status; 0 if there was none.
    status: u16,
    /// The server's error message, or why there is no answer.
    message: String,
}

impl Small {
    fn words(&self) -> String {
        format!("{} {}", self.status, self.message).trim_end().to_owned()
    }
}

/// Scrapes around the page.
struct Metrics {
    before: Fetched,
    during: Option<Fetched>,
    after: Fetched,
    elapsed: Duration,
}

impl Metrics {
    fn record(&self, facts: &mut Facts) {
        let read = |f: &Fetched| Scrape::read(&String::from_utf8_lossy(&f.body));
        let during = read(self.during.as_ref().unwrap_or(&self.after));
        let cpu = read(&self.before).cpu_seconds.zip(read(&self.after).cpu_seconds);
        let percent = cpu.map(|(old, new)| ((new - old) / self.elapsed.as_secs_f64().max(0.001) * 1000.0).round() / 10.0);
        let why = "not in /metrics";
        facts
            .set_or_unknown("running", during.running.and_then(whole), why)
            .set_or_unknown("waiting", during.waiting.and_then(whole), why)
            .set_or_unknown("api_cpu_percent", percent.filter(|p| *p >= 0.0), why);
    }
}

fn record_upload(page: &Canary, seen: &mut Observation) {
    const UNTOLD: &str = "the kernel does not tell";
    // What took less than a clock tick took no time at all; the slowest clock ticks a hundred times a second.
    const TICK: f64 = 0.01;
    let rate = |upload: &Upload| upload.bytes as f64 / 1000.0 / upload.took.as_secs_f64().max(TICK);
    seen.facts
        .set_or_unknown("upload_ms", page.upload.map(|upload| ms(upload.took)), UNTOLD)
        .set_or_unknown("upload_kb_per_s", page.upload.as_ref().map(|upload| (rate(upload) * 10.0).round() / 10.0), UNTOLD)
        .set_or_unknown("rtt_ms", page.round_trip.map(ms), UNTOLD);
    if let Some(upload) = page.upload {
        seen.note("tcp", format!("{} bytes of the request acknowledged in {} ms", upload.bytes, ms(upload.took)));
    }
}

fn record_page(page: &Canary, seen: &mut Observation) {
    record_upload(page, seen);
    let stream = &page.stream;
    let expected = ocr_page::image_tokens(SIDE, SIDE);
    let none = if page.error.is_empty() { "the server did not say" } else { &page.error };
    let tokens_ok = stream.prompt_tokens.map(|all| (expected + 1..=expected + MOST_TEXT_TOKENS).contains(&all));
    let tokens = stream.usage().map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    seen.note("ocr", format!("page of {SIDE} x {SIDE} -> {}; tokens {tokens}; {}", page.status, page.error));
    seen.note("ocr", clean(&stream.text, 500));
    seen.facts
        .set("status", page.status)
        .set("error", page.error.as_str())
        .set_or_unknown("headers_ms", page.headers.map(ms), none)
        .set_or_unknown("ttft_ms", page.ttft.map(ms), none)
        .set_or_unknown("tokens", stream.usage(), none)
        .set("finish_reason", stream.finish_reason.clone().unwrap_or_default())
        .set("complete", page.error.is_empty() && stream.complete())
        .set("text", clean(&stream.text, 2000))
        .set("repeats", ocr_page::repeats(&stream.text))
        .set("words_expected", ocr_page::words().count())
        .set("words_found", ocr_page::words_in(&stream.text))
        .set_or_unknown("prompt_tokens", stream.prompt_tokens, none)
        .set("image_tokens_expected", expected)
        .set_or_unknown("image_tokens_ok", tokens_ok, none);
}

#[async_trait]
impl Probe for Ocr {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage.net, cx.deadline).await
    }

    fn target(&self) -> String {
        format!("{} {}", self.server(), clean(&self.model, 200))
    }
}
