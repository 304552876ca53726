//! `vllm`: a vLLM server: health, models, a one-request streamed canary with its own first-token deadline, metrics before and after.

mod fetched;
mod unit;

use super::canary::{self, Canary};
use super::net::{connect, ms, tcp_times};
use super::vllm_metrics::{growth, whole};
use super::way::way_to;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use crate::vantage::{Net, Vantage};
use async_trait::async_trait;
use fetched::fetch_over;
pub(super) use fetched::{Fetched, fetch};
use futures::join;
use serde::Deserialize;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A vLLM server: health, models, a one-request streamed canary with its own first-token deadline, metrics before and after.
pub(super) static KIND: Kind = Kind {
    name: "vllm",
    root: "vllm",
    about: "A vLLM server: health, models, a one-request streamed canary with its own first-token deadline, metrics before and after",
    privilege: None,
    args: &[
        ("address", "IPv4 address"),
        ("port", "API port"),
        ("metrics_port", "port of /metrics"),
        ("model", "model name"),
        ("max_tokens", "tokens that the canary asks for (16)"),
        ("unit", "systemd unit of the server, whose journal tells on its own host why nothing listens (optional)"),
        ("first_token_ms", "deadline for the first token (5000)"),
    ],
    facts: &[
        fact("connect_error", "text", "errno word or TIMEOUT; empty if connected"),
        fact("connect_ms", "ms", "TCP handshake"),
        fact("rtt_ms", "ms", "round trip of the TCP handshake as the kernel measured it"),
        fact(
            "unit.out_of_memory",
            "count",
            "starts that found too little GPU memory since the last one that got through, by the unit's journal; known only on the server's host",
        ),
        fact("unit.restarts", "count", "how often systemd has restarted the unit"),
        fact("unit.last", "text", "the last of those lines; empty if there is none"),
        fact("health_status", "number", "status of /health; 0 if no answer"),
        fact("version", "text", "vLLM version"),
        fact("models", "list of text", "served model ids"),
        fact("model_served", "bool", "the wanted model is served"),
        fact("max_model_len", "tokens", "longest sequence of that model"),
        fact("canary.status", "number", "HTTP status of the streamed completion; 0 if no answer"),
        fact("canary.headers_ms", "ms", "request sent until headers"),
        fact("canary.first_token", "bool", "a token came within the first-token deadline"),
        fact("canary.ttft_ms", "ms", "time to first token, from the first request byte"),
        fact("canary.itl_median_ms", "ms", "median time between token events"),
        fact(
            "canary.events_per_read",
            "number",
            "token events for each read of the socket; above 1.05 this machine was too busy to time them",
        ),
        fact("canary.tokens", "tokens", "completion tokens by the server's usage"),
        fact("canary.output_tokens_per_s", "tokens/s", "(tokens - those in the first event) over the time from first to last token event"),
        fact("canary.finish_reason", "text", "why it ended"),
        fact("canary.complete", "bool", "finish_reason, usage, `[DONE]`, and no error event"),
        fact("canary.error", "text", "what went wrong; empty if nothing"),
        fact("metrics.status", "number", "status of /metrics; 0 if no answer"),
        fact("metrics.family", "text", "whose metrics they are: `vllm`, `triton`, `dcgm`, `other`, `empty`, or `none` without an answer"),
        fact("metrics.api_family", "text", "the same for the API port, where vLLM itself serves them"),
        fact("route_device", "text", "device by which the kernel sends to the server"),
        fact("metrics.scrape_ms", "ms", "the scrape before the canary, connection included"),
        fact("metrics.size_bytes", "bytes", "body of the scrape that came faster: the one before the canary, or the one after it"),
        fact(
            "metrics.body_ms",
            "ms",
            "from the head to the last byte of that scrape: the server has it ready, so the path takes this time",
        ),
        fact("metrics.kb_per_s", "1000 bytes/s", "its bytes over that time"),
        fact("metrics.api_cpu_percent", "percent", "processor time of the API process from one scrape to the other; 100 is one core"),
        fact("metrics.prompt", "tokens", "growth of prompt_tokens_total over the canary"),
        fact("metrics.running", "count", "requests running, after the canary"),
        fact("metrics.waiting", "count", "requests waiting, after the canary"),
        fact("metrics.generated", "tokens", "growth of generation_tokens_total over the canary"),
        fact("metrics.steps", "count", "growth of the engine's step count over the canary"),
        fact("metrics.kv_cache_percent", "percent", "KV cache in use"),
        fact("metrics.preemptions", "count", "growth of num_preemptions_total"),
    ],
    decode: decode::<Vllm>,
};

/// What is kept of the check's time for the scrape after the canary: twice what the one before took, but at least and at most this.
const SCRAPE_RESERVE: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(8500));
/// More served models than this are not listed.
const MOST_MODELS: usize = 64;

const NO_CONNECTION: &str = "no TCP connection";
const NO_CANARY: &str = "no canary was sent";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vllm {
    address: Ipv4Addr,
    port: u16,
    /// Absent: the API port, where vLLM itself serves them.
    #[serde(default)]
    metrics_port: Option<u16>,
    model: String,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default = "sixteen")]
    max_tokens: u32,
    #[serde(default = "five_seconds")]
    first_token_ms: u64,
}

fn sixteen() -> u32 {
    16
}

fn five_seconds() -> u64 {
    5000
}

impl Vllm {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let (net, mut seen) = (&vantage.net, Observation::default());
        match way_to(net, self.address, deadline).await {
            Ok(way) => seen.facts.set("route_device", way.device),
            Err(word) => seen.facts.unknown("route_device", word),
        };
        let connected = self.connect(net, deadline, &mut seen).await;
        let api = SocketAddrV4::new(self.address, self.port);
        let before = if let Some(stream) = connected {
            unit::FACTS.iter().for_each(|path| _ = seen.facts.unknown(path, "it listens: its journal was not read"));
            let health = fetch_over(stream, api, "/health", deadline);
            let get = |path| fetch(net, api, path, deadline);
            let (health, version, models, before) = join!(health, get("/version"), get("/v1/models"), self.scrape(net, deadline));
            self.record_api(&health, &version, &models, &mut seen);
            let scraped_at = Instant::now();
            note_fetch(&mut seen, "/metrics", &before);
            seen.facts.set("metrics.scrape_ms", ms(before.took));
            let reserve = (before.took * 2).clamp(SCRAPE_RESERVE.0, SCRAPE_RESERVE.1);
            let reserved = deadline.checked_sub(reserve).unwrap_or(deadline);
            record_canary(&canary::run(net, &self.ask(api), reserved).await, &mut seen);
            Some((before, scraped_at))
        } else {
            self.record_no_connection(&mut seen);
            unit::look(vantage, self.address, self.unit.as_deref(), deadline, &mut seen).await;
            None
        };
        let after = self.scrape(net, deadline).await;
        note_fetch(&mut seen, "/metrics", &after);
        let on_api = if self.metrics_apart() { Some(fetch(net, api, "/metrics", deadline).await) } else { None };
        let on_api = on_api.as_ref().unwrap_or(&after);
        seen.facts
            .set_or_unknown("metrics.api_family", on_api.family(), &on_api.why_not("/metrics"))
            .set_or_unknown("metrics.family", after.family(), &after.why_not("/metrics"))
            .unknown("metrics.scrape_ms", NO_CANARY);
        let between = before.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        let before = before.as_ref().map(|(before, _)| before);
        record_metrics(before, &after, &mut seen);
        record_transfer(before, &after, between, &mut seen);
        seen
    }

    /// Whether /metrics is said to be on a port of its own.
    fn metrics_apart(&self) -> bool {
        self.metrics_port.is_some_and(|port| port != self.port)
    }

    fn ask(&self, server: SocketAddrV4) -> canary::Ask {
        let first_token = Duration::from_millis(self.first_token_ms);
        canary::Ask { server, model: self.model.clone(), max_tokens: self.max_tokens, first_token, padding: 0 }
    }

    async fn connect(&self, net: &Net, deadline: Instant, seen: &mut Observation) -> Option<TcpStream> {
        let to = SocketAddrV4::new(self.address, self.port);
        let (stream, error, after) = match connect(net, to, deadline).await {
            Ok((stream, after)) => (Some(stream), String::new(), after),
            Err(failed) => (None, failed.word, failed.after),
        };
        seen.note("tcp", format!("connect {to} -> {} ({} ms)", if error.is_empty() { "connected" } else { &error }, ms(after)));
        let times = stream.as_ref().and_then(|stream| tcp_times(stream.as_fd()));
        seen.facts.set("connect_error", error).set("connect_ms", ms(after)).set_or_unknown(
            "rtt_ms",
            times.map(|t| ms(t.round_trip)),
            NO_CONNECTION,
        );
        stream
    }

    async fn scrape(&self, net: &Net, deadline: Instant) -> Fetched {
        let server = SocketAddrV4::new(self.address, self.metrics_port.unwrap_or(self.port));
        fetch(net, server, "/metrics", deadline).await
    }

    fn record_api(&self, health: &Fetched, version: &Fetched, models: &Fetched, seen: &mut Observation) {
        for (path, fetched) in [("/health", health), ("/version", version), ("/v1/models", models)] {
            note_fetch(seen, path, fetched);
        }
        let number = version.json().and_then(|v| Some(clean(v.get("version")?.as_str()?, 60)));
        seen.facts.set("health_status", health.status).set_or_unknown("version", number, &version.why_not("/version"));
        let reason = models.why_not("/v1/models");
        let list = models.json().and_then(|v| v.get("data")?.as_array().cloned());
        let id = |model: &Value| model.get("id").and_then(Value::as_str).map(str::to_owned);
        let ids = list.as_ref().map(|list| list.iter().filter_map(id).collect::<Vec<_>>());
        let ours = list.as_ref().and_then(|list| list.iter().find(|m| id(m).as_deref() == Some(&self.model)));
        let longest = ours.and_then(|m| m.get("max_model_len")?.as_u64());
        let shown = ids.as_ref().map(|ids| ids.iter().take(MOST_MODELS).map(|id| clean(id, 200)).collect::<Vec<_>>());
        seen.facts
            .set_or_unknown("models", shown, &reason)
            .set_or_unknown("model_served", ids.map(|ids| ids.contains(&self.model)), &reason)
            .set_or_unknown("max_model_len", longest, if list.is_some() { "the server does not say" } else { &reason });
    }

    fn record_no_connection(&self, seen: &mut Observation) {
        let error = format!("{NO_CONNECTION}: {}", seen.facts.get("connect_error").and_then(Value::as_str).unwrap_or_default());
        // What a missing connection decides is known; everything else is not.
        seen.facts.set("canary.first_token", false).set("canary.complete", false);
        seen.facts.set("canary.finish_reason", "").set("canary.error", error);
        for fact in KIND.facts.iter().filter(|f| !f.path.starts_with("metrics.")) {
            seen.facts.unknown(fact.path, NO_CONNECTION);
        }
    }
}

fn note_fetch(seen: &mut Observation, path: &str, fetched: &Fetched) {
    let status = if fetched.status == 0 { String::new() } else { fetched.status.to_string() };
    seen.note("http", format!("GET {path} -> {}", [status.as_str(), &fetched.error].join(" ").trim()));
}

fn record_canary(canary: &Canary, seen: &mut Observation) {
    let stream = &canary.stream;
    let why = if canary.error.is_empty() { "the stream does not tell" } else { &canary.error };
    let finish = stream.finish_reason.clone().unwrap_or_default();
    seen.note("sse", summary(canary));
    let facts = &mut seen.facts;
    facts
        .set("canary.status", canary.status)
        .set_or_unknown("canary.headers_ms", canary.headers.map(ms), why)
        .set_or_unknown("canary.first_token", canary.first_token, why)
        .set_or_unknown("canary.ttft_ms", canary.ttft.map(ms), why)
        .set_or_unknown("canary.tokens", stream.usage(), "the server sent no usage")
        .set_or_unknown("canary.events_per_read", stream.events_per_read(), why)
        .set("canary.finish_reason", finish)
        .set("canary.complete", canary.error.is_empty() && stream.complete())
        .set("canary.error", canary.error.as_str());
    record("canary.itl_median_ms", stream.itl_median().map(ms), facts);
    record("canary.output_tokens_per_s", stream.tokens_per_s().map(|rate| (rate * 10.0).round() / 10.0), facts);
}

fn record(path: &str, value: Result<f64, String>, facts: &mut crate::check::Facts) {
    match value {
        Ok(value) => facts.set(path, value),
        Err(reason) => facts.unknown(path, reason),
    };
}

fn summary(canary: &Canary) -> String {
    let time = |t: Option<Duration>| t.map_or_else(|| "none".to_owned(), |t| format!("{} ms", ms(t)));
    let tokens = canary.stream.usage().map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let mut line = format!("POST /v1/chat/completions -> {}; headers {}", canary.status, time(canary.headers));
    line += &format!("; first token {}; tokens {tokens}", time(canary.ttft));
    if let Some(reason) = &canary.stream.finish_reason {
        line += &format!("; finish {reason}");
    }
    if canary.error.is_empty() { line } else { format!("{line}; {}", canary.error) }
}

fn record_metrics(before: Option<&Fetched>, after: &Fetched, seen: &mut Observation) {
    let (old, new) = (before.and_then(Fetched::scrape).unwrap_or_default(), after.scrape());
    let why = new.as_ref().map_or_else(|| after.why_not("/metrics"), |new| new.family.why_not().to_owned());
    let new = new.unwrap_or_default();
    let growth_why = match before {
        None => NO_CANARY,
        Some(_) if new.generated.is_some() => "no scrape before the canary, or the counter went back",
        Some(_) => &why,
    };
    let percent = new.kv_cache.map(|share| (share * 100_000.0).round() / 1000.0);
    seen.facts
        .set("metrics.status", after.status)
        .set_or_unknown("metrics.running", new.running.and_then(whole), &why)
        .set_or_unknown("metrics.waiting", new.waiting.and_then(whole), &why)
        .set_or_unknown("metrics.kv_cache_percent", percent, &why)
        .set_or_unknown("metrics.prompt", growth(old.prompt, new.prompt), growth_why)
        .set_or_unknown("metrics.generated", growth(old.generated, new.generated), growth_why)
        .set_or_unknown("metrics.steps", growth(old.steps, new.steps), growth_why)
        .set_or_unknown("metrics.preemptions", growth(old.preemptions, new.preemptions), growth_why);
}

/// How fast the bytes of a scrape came, and how busy the process was that sent them. Of two scrapes the faster one counts: one
/// lost packet makes one of them slow.
fn record_transfer(before: Option<&Fetched>, after: &Fetched, between: Duration, seen: &mut Observation) {
    let timed = [before, Some(after)].into_iter().flatten().filter_map(|fetched| Some((fetched, fetched.body_time?)));
    let fastest = timed.min_by(|(a, _), (b, _)| b.kb_per_s().unwrap_or(f64::MAX).total_cmp(&a.kb_per_s().unwrap_or(f64::MAX)));
    let why = after.why_not("/metrics");
    seen.facts
        .set_or_unknown("metrics.size_bytes", fastest.map(|(fetched, _)| fetched.body.len()), &why)
        .set_or_unknown("metrics.body_ms", fastest.map(|(_, time)| ms(time)), &why)
        .set_or_unknown("metrics.kb_per_s", fastest.and_then(|(fetched, _)| fetched.kb_per_s()), &why);
    if let Some((fetched, time)) = fastest {
        let rate = fetched.kb_per_s().map_or_else(|| "no time".to_owned(), |rate| format!("{rate} kB/s"));
        seen.note("http", format!("/metrics: {} bytes within {} ms of its head: {rate}", fetched.body.len(), ms(time)));
    }
    let cpu = before.and_then(Fetched::scrape).and_then(|old| old.cpu_seconds).zip(after.scrape().and_then(|new| new.cpu_seconds));
    let percent = cpu.map(|(old, new)| ((new - old) / between.as_secs_f64().max(0.001) * 1000.0).round() / 10.0);
    seen.facts.set_or_unknown("metrics.api_cpu_percent", percent.filter(|p| *p >= 0.0), "not in two scrapes of /metrics");
}

#[async_trait]
impl Probe for Vllm {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        format!("{}:{} {}", self.address, self.port, clean(&self.model, 200))
    }
}

#[cfg(test)]
mod tests;
