//! `vllm`: a vLLM server: health, models, a one-request streamed canary with its own first-token deadline, metrics before and after.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

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
        ("first_token_ms", "deadline for the first token (5000)"),
    ],
    facts: &[
        fact("connect_error", "text", "errno word or TIMEOUT; empty if connected"),
        fact("connect_ms", "ms", "TCP handshake"),
        fact("health_status", "number", "status of /health"),
        fact("version", "text", "vLLM version"),
        fact("models", "list of text", "served model ids"),
        fact("model_served", "bool", "the wanted model is served"),
        fact("max_model_len", "tokens", "longest sequence of that model"),
        fact("canary.status", "number", "HTTP status of the streamed completion"),
        fact("canary.headers_ms", "ms", "request sent until headers"),
        fact("canary.first_token", "bool", "a token came within the first-token deadline"),
        fact("canary.ttft_ms", "ms", "time to first token, from the first request byte"),
        fact("canary.itl_median_ms", "ms", "median time between token events"),
        fact("canary.tokens", "tokens", "completion tokens by the server's usage"),
        fact("canary.output_tokens_per_s", "tokens/s", "(tokens - those in the first event) over the time from first to last token event"),
        fact("canary.finish_reason", "text", "why it ended"),
        fact("canary.complete", "bool", "finish_reason, usage, `[DONE]`, and no error event"),
        fact("canary.error", "text", "what went wrong; empty if nothing"),
        fact("metrics.status", "number", "status of /metrics; 0 if no answer"),
        fact("metrics.running", "count", "requests running, after the canary"),
        fact("metrics.waiting", "count", "requests waiting, after the canary"),
        fact("metrics.generated", "tokens", "growth of generation_tokens_total over the canary"),
        fact("metrics.steps", "count", "growth of the engine's step count over the canary"),
        fact("metrics.kv_cache_percent", "percent", "KV cache in use"),
        fact("metrics.preemptions", "count", "growth of num_preemptions_total"),
    ],
    decode: decode::<Vllm>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vllm {
    #[serde(default)]
    address: Option<toml::Value>,
    #[serde(default)]
    port: Option<toml::Value>,
    #[serde(default)]
    metrics_port: Option<toml::Value>,
    #[serde(default)]
    model: Option<toml::Value>,
    #[serde(default)]
    max_tokens: Option<toml::Value>,
    #[serde(default)]
    first_token_ms: Option<toml::Value>,
}

#[async_trait]
impl Probe for Vllm {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
