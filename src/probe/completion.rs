//! What a streamed completion of an OpenAI-compatible server amounts to: events in, token times and counts out. Pure.
//!
//! A token event carries text (or reasoning), or the running usage grew; the role-only first chunk and the usage-only last
//! one are no tokens. Nothing is ever tokenised here: counts are the server's own.

use crate::check::clean;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Text beyond this is not kept.
const MOST_TEXT_BYTES: usize = 64 << 10;
/// Of more token events than this only the last one and their number are kept: the times between them are those of the
/// first ones.
const MOST_EVENTS: usize = 1 << 16;
/// A count of tokens above this is no count.
const MOST_TOKENS: u64 = 1 << 32;
/// Events per socket read above which the times between events say more about the reader than about the server.
const MOST_EVENTS_PER_READ: f64 = 1.05;

/// A token event: when it was read, and by which read of the socket.
#[derive(Clone, Copy, Debug)]
struct Token {
    at: Instant,
    read: u64,
}

/// The stream so far.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    tokens: Vec<Token>,
    /// The last token event, also where `tokens` is full.
    last: Option<Token>,
    /// Token events, and the reads that brought them.
    events: u64,
    reads: u64,
    /// Tokens in the first token event, where running usage told.
    in_first: Option<u64>,
    /// `usage.completion_tokens`, the last one seen.
    usage: Option<u64>,
    /// `usage.prompt_tokens`.
    pub(crate) prompt_tokens: Option<u64>,
    /// The text so far, as the server sent it.
    pub(crate) text: String,
    /// Why the server says it ended.
    pub(crate) finish_reason: Option<String>,
    /// `[DONE]` came.
    pub(crate) done: bool,
    /// An error event, or an event that cannot be read.
    pub(crate) error: Option<String>,
}

impl Completion {
    /// Takes the data of one event, read at `at` by the socket's read number `read`.
    pub(crate) fn event(&mut self, data: &str, at: Instant, read: u64) {
        // What comes behind the end belongs to nobody, whether or not the same read brought it.
        if self.done {
            return;
        }
        if data.trim() == "[DONE]" {
            self.done = true;
            return;
        }
        match serde_json::from_str::<Value>(data) {
            Ok(chunk) => self.chunk(&chunk, Token { at, read }),
            Err(_) => self.fail("an event is not JSON"),
        }
    }

    fn chunk(&mut self, chunk: &Value, token: Token) {
        if let Some(message) = error_message(chunk) {
            self.fail(&message);
            return;
        }
        let count = |pointer| chunk.pointer(pointer).and_then(Value::as_u64).filter(|n| *n <= MOST_TOKENS);
        let usage = count("/usage/completion_tokens");
        let grew = usage.is_some_and(|now| now > self.usage.unwrap_or(0));
        if let Some(choice) = chunk.pointer("/choices/0") {
            if has_text(choice) || grew {
                self.token(token, usage);
            }
            if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
                self.finish_reason = Some(clean(reason, 40));
            }
        }
        self.usage = usage.or(self.usage);
        self.prompt_tokens = count("/usage/prompt_tokens").or(self.prompt_tokens);
        let text = ["/choices/0/delta/content", "/choices/0/text"].into_iter().find_map(|pointer| chunk.pointer(pointer)?.as_str());
        if let Some(text) = text.filter(|text| self.text.len() + text.len() <= MOST_TEXT_BYTES) {
            self.text.push_str(text);
        }
    }

    fn token(&mut self, token: Token, usage: Option<u64>) {
        if self.events == 0 {
            self.in_first = usage;
        }
        self.events += 1;
        self.reads += u64::from(self.last.is_none_or(|last| last.read != token.read));
        self.last = Some(token);
        if self.tokens.len() < MOST_EVENTS {
            self.tokens.push(token);
        }
    }

    fn fail(&mut self, message: &str) {
        self.error.get_or_insert_with(|| clean(message, 300));
    }

    /// When the first token event came.
    pub(crate) fn first_token(&self) -> Option<Instant> {
        self.tokens.first().map(|t| t.at)
    }

    /// When the last token event came.
    pub(crate) fn last_token(&self) -> Option<Instant> {
        self.last.map(|t| t.at)
    }

    /// When each token event came.
    pub(crate) fn token_times(&self) -> impl Iterator<Item = Instant> {
        self.tokens.iter().map(|t| t.at)
    }

    /// Token events, and the reads that brought them.
    pub(crate) const fn events_and_reads(&self) -> (u64, u64) {
        (self.events, self.reads)
    }

    /// Completion tokens, by the server's usage.
    pub(crate) fn usage(&self) -> Option<u64> {
        self.usage
    }

    /// Finish reason and usage and `[DONE]`, and no error event.
    pub(crate) fn complete(&self) -> bool {
        self.finish_reason.is_some() && self.usage.is_some() && self.done && self.error.is_none()
    }

    /// (tokens - those in the first event) / (last - first token event), of a complete stream only.
    pub(crate) fn tokens_per_s(&self) -> Result<f64, String> {
        if !self.complete() {
            return Err("the stream is not complete".to_owned());
        }
        let all = self.usage.ok_or("the server sent no usage")?;
        // Without running usage: as many events as tokens means one token each.
        let one_each = self.events == all;
        let first = self.in_first.or(one_each.then_some(1)).ok_or("how many tokens the first event holds is not known")?;
        let span = self.span().filter(|span| !span.is_zero() && all > first).ok_or("all tokens came in one event")?;
        Ok((all - first) as f64 / span.as_secs_f64())
    }

    /// Median time between token events, which is an inter-token latency only with one token in each event, and only if
    /// this program was awake to read them one by one.
    pub(crate) fn itl_median(&self) -> Result<Duration, String> {
        let all = self.usage.ok_or("the server sent no usage")?;
        if self.events != all {
            return Err(format!("{all} tokens came in {} events", self.events));
        }
        let per_read = self.events_per_read().ok_or("no token came")?;
        if per_read > MOST_EVENTS_PER_READ {
            return Err(format!("{per_read:.2} events per read: read too late to tell"));
        }
        let mut gaps: Vec<Duration> = self.tokens.windows(2).map(|w| w[1].at.saturating_duration_since(w[0].at)).collect();
        gaps.sort_unstable();
        let (low, high) = (gaps.get(gaps.len().saturating_sub(1) / 2), gaps.get(gaps.len() / 2));
        low.zip(high).map(|(low, high)| (*low + *high) / 2).ok_or_else(|| "only one token came".to_owned())
    }

    /// Token events for each read of the socket that brought any; 1 is healthy.
    pub(crate) fn events_per_read(&self) -> Option<f64> {
        (self.reads > 0).then(|| self.events as f64 / self.reads as f64)
    }

    fn span(&self) -> Option<Duration> {
        Some(self.last?.at.saturating_duration_since(self.tokens.first()?.at))
    }
}

fn has_text(choice: &Value) -> bool {
    let filled = |pointer| choice.pointer(pointer).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    ["/delta/content", "/delta/reasoning_content", "/delta/reasoning", "/text"].into_iter().any(filled)
}

/// The message of an error object: `{"error": {"message": ".."}}` or `{"error": ".."}`.
pub(crate) fn error_message(body: &Value) -> Option<String> {
    let error = body.get("error").filter(|e| !e.is_null())?;
    let message = error.get("message").unwrap_or(error);
    Some(message.as_str().map_or_else(|| message.to_string(), str::to_owned))
}

/// Status and words of an answer that is no stream, as the server put them: to be cleaned before anybody sees them.
pub(crate) fn refusal(status: u16, body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body).ok().as_ref().and_then(error_message);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    format!("HTTP {status}: {}", message.trim()).trim_end_matches(": ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::sse::Sse;
    use super::*;

    /// A captured stream, each event read 10 ms after the one before it and by a read of its own.
    fn replay(capture: &str) -> Completion {
        let body = capture.split_once("\r\n\r\n").or(capture.split_once("vary: Origin\n\n")).map_or(capture, |(_, body)| body);
        let (mut completion, mut at) = (Completion::default(), Instant::now());
        for (n, event) in Sse::default().feed(body.as_bytes()).unwrap().iter().enumerate() {
            completion.event(event, at, n as u64);
            at += Duration::from_millis(10);
        }
        completion
    }

    #[test]
    fn a_complete_stream() {
        for capture in
            [include_str!("../../tests/data/vllm/chat_stream_usage.txt"), include_str!("../../tests/data/vllm/chat_stream_contusage.txt")]
        {
            let c = replay(capture);
            assert!(c.complete(), "{c:?}");
            assert_eq!((c.usage(), c.finish_reason.as_deref(), c.tokens.len()), (Some(8), Some("length"), 8));
            assert_eq!(c.itl_median(), Ok(Duration::from_millis(10)));
            assert!((c.tokens_per_s().unwrap() - 100.0).abs() < 0.01);
        }
    }

    #[test]
    fn several_tokens_in_one_event() {
        let c = replay(include_str!("../../tests/data/vllm/chat_stream_interval4.txt"));
        assert_eq!((c.in_first, c.tokens.len()), (Some(1), 4));
        assert_eq!(c.itl_median(), Err(format!("{} tokens came in 4 events", c.usage().unwrap())));
        assert!(c.tokens_per_s().is_ok());
    }

    #[test]
    fn no_usage_means_token_metrics_are_unknown() {
        let c = replay(include_str!("../../tests/data/vllm/chat_stream_nousage.txt"));
        assert!(c.done && c.finish_reason.is_some() && !c.complete());
        assert_eq!((c.usage(), c.itl_median()), (None, Err("the server sent no usage".to_owned())));
    }

    #[test]
    fn an_engine_killed_mid_stream_is_no_success() {
        let c = replay(include_str!("../../tests/data/vllm/engine_death_stream.txt"));
        assert!(c.done && !c.complete() && c.tokens.len() > 1);
        assert!(c.error.unwrap().starts_with("EngineCore encountered an issue"));
    }

    #[test]
    fn events_read_in_one_go_give_no_latency() {
        let mut c = Completion::default();
        let now = Instant::now();
        for n in 1..=4 {
            c.event(&format!("{{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],\"usage\":{{\"completion_tokens\":{n}}}}}"), now, 7);
        }
        assert_eq!((c.events_per_read(), c.itl_median().is_err()), (Some(4.0), true));
        assert_eq!(c.tokens_per_s(), Err("the stream is not complete".to_owned()));
    }

    #[test]
    fn a_stream_longer_than_what_is_kept_has_the_right_rate() {
        let (mut c, began, n) = (Completion::default(), Instant::now(), MOST_EVENTS as u64 + 1000);
        for i in 1..=n {
            let end = if i == n { "\"stop\"" } else { "null" };
            let event = format!("{{\"choices\":[{{\"text\":\"x\",\"finish_reason\":{end}}}],\"usage\":{{\"completion_tokens\":{i}}}}}");
            c.event(&event, began + Duration::from_millis(i), i);
        }
        c.event("[DONE]", began, n);
        assert_eq!((c.events_and_reads(), c.tokens.len(), c.events_per_read()), ((n, n), MOST_EVENTS, Some(1.0)));
        assert!((c.tokens_per_s().unwrap() - 1000.0).abs() < 0.01, "{:?}", c.tokens_per_s());
    }

    #[test]
    fn hostile_events_never_panic() {
        let now = Instant::now();
        let deep = "[".repeat(100_000);
        for data in ["", "null", "1", "[]", "{}", "{\"choices\":7}", "{\"choices\":[[]]}", "{\"usage\":{\"completion_tokens\":-1}}", &deep]
        {
            let mut c = Completion::default();
            c.event(data, now, 0);
            assert!(c.tokens.is_empty() && !c.complete());
        }
        let mut c = Completion::default();
        c.event("{\"choices\":[{}],\"usage\":{\"completion_tokens\":18446744073709551615}}", now, 0);
        assert_eq!((c.usage(), c.tokens.len()), (None, 0));
        c.event("{\"error\":\"\\u001b[31m\",\"choices\":[{}]}", now, 0);
        assert_eq!(c.error.as_deref(), Some("\\u{1b}[31m"));
    }
}
