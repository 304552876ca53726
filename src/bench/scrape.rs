//! The server's own counters, before and after.

use super::client::Target;
use super::wire::Reader;
use crate::check::clean;
use crate::probe::prometheus::samples;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

/// Most bytes of a scrape: vLLM has 60 KB for each model and engine.
const MOST_BYTES: usize = 4 << 20;
/// Most models that are named.
const MOST_MODELS: usize = 20;
/// How long one scrape may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A histogram's sum (seconds) and count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Sum of all observations.
    pub sum: f64,
    /// Observations.
    pub count: f64,
}

/// One scrape; engines and models are added up. What vLLM calls a family is a field here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// `num_requests_running`.
    pub running: Option<f64>,
    /// `num_requests_waiting`.
    pub waiting: Option<f64>,
    /// `request_success_total`, all reasons (a client that left is `abort`).
    pub ended: Option<f64>,
    /// `prompt_tokens_total`.
    pub prompt_tokens: Option<f64>,
    /// `generation_tokens_total`.
    pub output_tokens: Option<f64>,
    /// `num_preemptions_total`.
    pub preemptions: Option<f64>,
    /// `prefix_cache_hits_total`, tokens.
    pub cache_hits: Option<f64>,
    /// `time_to_first_token_seconds`.
    pub ttft: Option<Sum>,
    /// `request_queue_time_seconds`.
    pub queue: Option<Sum>,
    /// `request_prefill_time_seconds`.
    pub prefill: Option<Sum>,
    /// `request_decode_time_seconds`.
    pub decode: Option<Sum>,
}

impl Scrape {
    /// Reads the text format.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for (name, value) in samples(text) {
            if let Some(name) = name.strip_prefix("vllm:") {
                scrape.take(name, value);
            }
        }
        scrape
    }

    fn take(&mut self, name: &str, value: f64) {
        let slot = match name {
            "num_requests_running" => &mut self.running,
            "num_requests_waiting" => &mut self.waiting,
            "request_success_total" => &mut self.ended,
            "prompt_tokens_total" => &mut self.prompt_tokens,
            "generation_tokens_total" => &mut self.output_tokens,
            "num_preemptions_total" => &mut self.preemptions,
            "prefix_cache_hits_total" => &mut self.cache_hits,
            _ => return self.take_histogram(name, value),
        };
        *slot = Some(slot.unwrap_or(0.0) + value);
    }

    fn take_histogram(&mut self, name: &str, value: f64) {
        let (family, of_sum) = match (name.strip_suffix("_sum"), name.strip_suffix("_count")) {
            (Some(family), _) => (family, true),
            (_, Some(family)) => (family, false),
            _ => return,
        };
        let slot = match family {
            "time_to_first_token_seconds" => &mut self.ttft,
            "request_queue_time_seconds" => &mut self.queue,
            "request_prefill_time_seconds" => &mut self.prefill,
            "request_decode_time_seconds" => &mut self.decode,
            _ => return,
        };
        let sum = slot.get_or_insert_with(Sum::default);
        if of_sum {
            sum.sum += value;
        } else {
            sum.count += value;
        }
    }
}

/// Scrapes a server; the error says why there is nothing.
pub async fn scrape(target: &Target) -> Result<Scrape, String> {
    let until = Instant::now() + PATIENCE;
    match timeout_at(until, fetch(target, "/metrics", until)).await {
        Ok(text) => {
            Ok(Scrape::parse(&text?)).and_then(|s| if s == Scrape::default() { Err("no metric of vLLM".to_owned()) } else { Ok(s) })
        }
        Err(_) => Err("TIMEOUT".to_owned()),
    }
}

async fn fetch(target: &Target, path: &str, until: Instant) -> Result<String, String> {
    let mut socket = target.connect(until).await?.stream;
    socket.write_all(&target.request("GET", path, b"")).await.map_err(|e| crate::probe::tls::word(&e))?;
    let mut reader = Reader::new(socket);
    let (head, _) = reader.head().await?;
    if head.status != 200 {
        return Err(format!("HTTP {}", head.status));
    }
    let mut body = Vec::new();
    while let Some(piece) = reader.piece().await? {
        body.extend_from_slice(piece.bytes);
        if body.len() > MOST_BYTES {
            return Err("longer than 4 MiB".to_owned());
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What a server says that it serves (`/v1/models`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Serving {
    /// Model names, the first ones.
    pub models: Vec<String>,
    /// Longest sequence of the model of this run, tokens; `None` if the server does not say.
    pub max_model_len: Option<u64>,
}

impl Serving {
    fn parse(text: &str, model: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        let list = document.get("data")?.as_array()?;
        let id = |entry: &Value| entry.get("id").and_then(Value::as_str).map(|id| clean(id, 200));
        let ours = list.iter().find(|entry| entry.get("id").and_then(Value::as_str) == Some(model));
        Some(Self {
            // The one that is asked for is named even if it is far down the list.
            models: ours.iter().copied().chain(list).filter_map(id).take(MOST_MODELS).collect(),
            max_model_len: ours.and_then(|entry| entry.get("max_model_len")?.as_u64()),
        })
    }

    /// Whether the server has the model.
    pub fn has(&self, model: &str) -> bool {
        self.models.contains(&clean(model, 200))
    }
}

/// Asks what is served; the error says why that is not known.
pub async fn serving(target: &Target, model: &str) -> Result<Serving, String> {
    let until = Instant::now() + PATIENCE;
    let text = timeout_at(until, fetch(target, "/v1/models", until)).await.map_err(|_| "TIMEOUT".to_owned())??;
    Serving::parse(&text, model).ok_or_else(|| "not the answer of a model server".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_read() {
        let capture = include_str!("../../tests/data/vllm/get_v1_models.txt");
        let serving = Serving::parse(capture.split_once("\r\n\r\n").unwrap().1, "tiny").unwrap();
        assert!(serving.has("tiny") && !serving.has("nope"), "{serving:?}");
        assert_eq!(serving.max_model_len, Some(512));
        for other in ["", "{}", "[]", "{\"data\":7}"] {
            assert_eq!(Serving::parse(other, "tiny"), None, "{other}");
        }
    }

    #[test]
    fn a_captured_scrape() {
        let scrape = Scrape::parse(include_str!("../../tests/data/vllm/metrics_under_load.txt"));
        assert_eq!((scrape.running, scrape.waiting, scrape.output_tokens), (Some(8.0), Some(8.0), Some(14_278.0)));
        assert_eq!(Scrape::parse("<html>"), Scrape::default());
    }

    #[test]
    fn histograms_and_label_sets_add_up() {
        let text = "vllm:time_to_first_token_seconds_sum{e=\"0\"} 1.5\nvllm:time_to_first_token_seconds_count{e=\"0\"} 3\n\
                    vllm:time_to_first_token_seconds_sum{e=\"1\"} 0.5\nvllm:request_success_total{r=\"stop\"} 2\nvllm:request_success_total{r=\"abort\"} 1\n";
        let scrape = Scrape::parse(text);
        assert_eq!((scrape.ttft, scrape.ended), (Some(Sum { sum: 2.0, count: 3.0 }), Some(3.0)));
    }
}
