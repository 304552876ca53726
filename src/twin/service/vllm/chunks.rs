//! Answers as vLLM writes them: models, whole completions, server-sent events.

use super::engine::Token;
use super::request::{Endpoint, Work};
use super::{Pace, Vllm};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The build that it claims.
const FINGERPRINT: &str = "vllm-0.32.0-03de073c";

/// What is told of an engine process that has died.
pub(super) const ENGINE_DIED: &str = "EngineCore encountered an issue. See stack trace (above) for the root cause.";

fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// `/v1/models`.
pub(super) fn models(served: &Vllm, created: u64) -> Value {
    let permission = json!({
        "id": format!("modelperm-{}", random()), "object": "model_permission", "created": created, "allow_create_engine": false,
        "allow_sampling": true, "allow_logprobs": true, "allow_search_indices": false, "allow_view": true,
        "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false,
    });
    json!({"object": "list", "data": [{
        "id": served.model, "object": "model", "created": created, "owned_by": "vllm", "root": served.model, "parent": null,
        "max_model_len": served.max_model_len, "permission": [permission],
    }]})
}

fn usage(work: &Work, tokens: u32) -> Value {
    json!({"prompt_tokens": work.prompt_tokens, "total_tokens": work.prompt_tokens + tokens, "completion_tokens": tokens})
}

/// What options of the server add to an answer: kinds of prompt tokens, and times, here those of the set pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Details(pub(super) Pace);

impl Details {
    /// Adds them to the answer, or to the last chunk of a stream, which leaves out what there is none of.
    pub(super) fn add_to(self, answer: &mut Value, work: &Work, tokens: u32, stream: bool) {
        let images = (work.image_tokens > 0).then(|| json!({"image": work.image_tokens}));
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        let (first, each, n) = (ms(self.0.first_token), ms(self.0.interval), f64::from(tokens));
        let generation = each * (n - 1.0).max(0.0);
        let mut kinds = json!({"cached_tokens": 0, "created_cache_tokens": 0, "multimodal_tokens": images});
        let mut times = json!({"time_to_first_token_ms": first, "generation_time_ms": generation, "queue_time_ms": 0.0, "mean_itl_ms": each,
            "tokens_per_second": n * 1000.0 / (first + generation).max(1.0), "speculative_decoding": null});
        for part in [&mut kinds, &mut times].into_iter().filter(|_| stream) {
            part.as_object_mut().into_iter().for_each(|fields| fields.retain(|_, value| !value.is_null()));
        }
        answer["usage"]["prompt_tokens_details"] = kinds;
        answer["metrics"] = times;
    }
}

/// A completion that is not streamed.
pub(super) fn whole(work: &Work, model: &str, text: &str, reason: &str, tokens: u32) -> Value {
    let mut usage = usage(work, tokens);
    usage["prompt_tokens_details"] = Value::Null;
    usage["completion_tokens_details"] = Value::Null;
    match work.endpoint {
        Endpoint::Chat => json!({
            "id": format!("chatcmpl-{}", random()), "object": "chat.completion", "created": now(), "model": model,
            "choices": [{"index": 0,
                "message": {"role": "assistant", "content": text, "refusal": null, "annotations": null, "audio": null,
                    "function_call": null, "reasoning": null},
                "logprobs": null, "finish_reason": reason, "stop_reason": null, "token_ids": null, "routed_experts": null}],
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage, "prompt_logprobs": null,
            "prompt_token_ids": null, "prompt_text": null, "kv_transfer_params": null, "ec_transfer_params": null, "metrics": null,
        }),
        Endpoint::Text => json!({
            "id": format!("cmpl-{}", random()), "object": "text_completion", "created": now(), "model": model,
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": reason, "stop_reason": null, "token_ids": null,
                "routed_experts": null, "prompt_logprobs": null, "prompt_token_ids": null}],
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage, "kv_transfer_params": null,
        }),
    }
}

/// The lines of one streamed answer.
pub(super) struct Lines {
    work: Work,
    model: String,
    id: String,
    created: i64,
    tokens: u32,
    /// Tokens that go into one chunk (`--stream-interval`), and the texts of those that wait for it.
    interval: u32,
    waiting: Vec<&'static str>,
    details: Option<Details>,
    opened: bool,
    closed: bool,
    ready: VecDeque<String>,
}

impl Lines {
    pub(super) fn new(work: Work, model: String, interval: u32, details: Option<Details>) -> Self {
        let prefix = if work.endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            work,
            model,
            id: format!("{prefix}-{}", random()),
            created: now(),
            tokens: 0,
            interval,
            waiting: Vec::new(),
            details,
            opened: false,
            closed: false,
            ready: VecDeque::new(),
        }
    }

    /// What a token, or the engine's end, adds to the stream. The role comes right before the first token, because that is
    /// when vLLM sends it.
    pub(super) fn add(&mut self, token: Option<Token>) {
        if !self.opened && self.work.endpoint == Endpoint::Chat {
            let role = self.role();
            self.ready.push_back(role);
        }
        self.opened = true;
        match token {
            Some(Token { died: true, .. }) => self.died(),
            Some(Token { text, finish, .. }) => {
                self.tokens += 1;
                self.waiting.push(text);
                // The first token never waits for others, and nothing waits behind the last.
                if self.tokens == 1 || finish.is_some() || self.waiting.len() >= self.interval as usize {
                    let text = std::mem::take(&mut self.waiting).concat();
                    let token = self.token(&text, finish);
                    self.ready.push_back(token);
                }
            }
            None => self.end(),
        }
    }

    /// An error event in Python's spacing, and `[DONE]` all the same.
    fn died(&mut self) {
        self.ready.push_back(format!(
            "data: {{\"error\": {{\"message\": \"{ENGINE_DIED}\", \"type\": \"InternalServerError\", \"param\": null, \"code\": 500}}}}\n\n"
        ));
        self.ready.push_back("data: [DONE]\n\n".to_owned());
        self.closed = true;
    }

    /// The next server-sent event that is ready.
    pub(super) fn pop(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// Whether all has been said.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = if self.work.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    fn with_usage(&self, chunk: &mut Value) {
        if self.work.running_usage {
            chunk["usage"] = usage(&self.work, self.tokens);
            chunk["usage"]["completion_tokens_details"] = Value::Null;
        }
    }

    fn role(&self) -> String {
        let mut chunk =
            self.chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}]));
        self.with_usage(&mut chunk);
        chunk["prompt_token_ids"] = Value::Null;
        chunk["prompt_text"] = Value::Null;
        line(&chunk)
    }

    fn token(&self, text: &str, finish: Option<&str>) -> String {
        let mut choice = match self.work.endpoint {
            Endpoint::Chat => json!({"index": 0, "delta": {"content": text}, "logprobs": null, "finish_reason": finish}),
            Endpoint::Text => {
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish, "stop_reason": null, "prompt_token_ids": null})
            }
        };
        if finish.is_some() && self.work.endpoint == Endpoint::Chat {
            choice["stop_reason"] = Value::Null;
        }
        choice["token_ids"] = Value::Null;
        let mut chunk = self.chunk(json!([choice]));
        self.with_usage(&mut chunk);
        // The last chunk of a stream carries it: this one, if no usage follows.
        if finish.is_some() && !self.work.usage {
            chunk["system_fingerprint"] = json!(FINGERPRINT);
        }
        line(&chunk)
    }

    fn end(&mut self) {
        if self.work.usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(&self.work, self.tokens);
            chunk["system_fingerprint"] = json!(FINGERPRINT);
            if let Some(details) = self.details {
                details.add_to(&mut chunk, &self.work, self.tokens, true);
            }
            self.ready.push_back(line(&chunk));
        }
        self.ready.push_back("data: [DONE]\n\n".to_owned());
        self.closed = true;
    }
}

fn line(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
