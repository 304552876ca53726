//! The record of one request. Times are milliseconds on the monotonic clock; those named `.._at` count from the start of
//! the measured window.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// `finish_reason`, `usage` and `[DONE]`, and no error event.
    Complete,
    /// Anything else that the server or the network did, in words.
    Failed(String),
    /// Its time came and it was not sent: a miss.
    Unsent,
    /// The run ended first; it is in no figure.
    Cut,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Its number in the plan.
    pub index: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// When the schedule wanted it (open loop).
    pub scheduled_at: Option<f64>,
    /// When its first byte was written (`t_send`).
    pub sent_at: Option<f64>,
    /// When it was over.
    pub ended_at: Option<f64>,
    /// TCP handshake.
    pub connect_ms: Option<f64>,
    /// TLS handshake.
    pub tls_ms: Option<f64>,
    /// First to last byte of the request.
    pub upload_ms: Option<f64>,
    /// Last byte of the request to the headers: admission and preprocessing.
    pub headers_ms: Option<f64>,
    /// Headers to the first token: queue, vision and prefill.
    pub first_ms: Option<f64>,
    /// Time to first token, from the first byte written.
    pub ttft_ms: Option<f64>,
    /// The same from the scheduled time (open loop); this one counts there.
    pub ttft_scheduled_ms: Option<f64>,
    /// Time per output token after those of the first token event.
    pub tpot_ms: Option<f64>,
    /// First byte written to the last token.
    pub e2e_ms: Option<f64>,
    /// The same from the scheduled time (open loop).
    pub e2e_scheduled_ms: Option<f64>,
    /// How long the first token lay in the client's socket before it was read: in every time that ends with it, and no fault
    /// of the server; `None` where the kernel does not tell.
    pub first_late_ms: Option<f64>,
    /// The same of the last token.
    pub last_late_ms: Option<f64>,
    /// `usage.prompt_tokens`.
    pub prompt_tokens: Option<u64>,
    /// `usage.completion_tokens`.
    pub output_tokens: Option<u64>,
    /// Events that brought tokens.
    pub token_events: u64,
    /// Socket reads that brought them.
    pub token_reads: u64,
    /// The server's `finish_reason`.
    pub finish_reason: Option<String>,
    /// A page was cut off by the token limit.
    pub truncated: bool,
    /// A page's text repeats itself at its end.
    pub looping: bool,
    /// Bytes of the request.
    pub request_bytes: u64,
}

impl Sample {
    /// A request that has not been sent.
    pub const fn unsent(index: u32, scheduled_at: Option<f64>) -> Self {
        Self {
            index,
            outcome: Outcome::Unsent,
            scheduled_at,
            sent_at: None,
            ended_at: None,
            connect_ms: None,
            tls_ms: None,
            upload_ms: None,
            headers_ms: None,
            first_ms: None,
            ttft_ms: None,
            ttft_scheduled_ms: None,
            tpot_ms: None,
            e2e_ms: None,
            e2e_scheduled_ms: None,
            first_late_ms: None,
            last_late_ms: None,
            prompt_tokens: None,
            output_tokens: None,
            token_events: 0,
            token_reads: 0,
            finish_reason: None,
            truncated: false,
            looping: false,
            request_bytes: 0,
        }
    }

    /// Whether the answer is complete.
    pub fn complete(&self) -> bool {
        self.outcome == Outcome::Complete
    }

    /// Whether it belongs into the figures.
    pub fn counts(&self) -> bool {
        self.outcome != Outcome::Cut
    }

    /// TTFT for the figures: from the scheduled time where there is one; a failure is infinite.
    pub fn ttft(&self) -> f64 {
        self.latency(self.ttft_scheduled_ms.or(self.ttft_ms))
    }

    /// End-to-end time for the figures, likewise.
    pub fn e2e(&self) -> f64 {
        self.latency(self.e2e_scheduled_ms.or(self.e2e_ms))
    }

    /// Whether the client read its first or its last token so late that its latency is off by more than 1 ms and 1 %; `None` where
    /// nothing tells.
    pub fn read_late(&self) -> Option<bool> {
        let off = |late: Option<f64>, ms: Option<f64>| late.zip(ms).map(|(late, ms)| late > (ms / 100.0).max(1.0));
        off(self.first_late_ms, self.ttft_ms).zip(off(self.last_late_ms, self.e2e_ms)).map(|(first, last)| first || last)
    }

    fn latency(&self, ms: Option<f64>) -> f64 {
        ms.filter(|_| self.complete()).unwrap_or(f64::INFINITY)
    }

    /// Time per output token for the figures: a failure is infinite; `None` where a complete answer defines none.
    pub fn tpot(&self) -> Option<f64> {
        if self.complete() { self.tpot_ms } else { Some(f64::INFINITY) }
    }
}

/// What a request must keep to count as good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slo {
    /// Longest time to first token, ms.
    pub ttft_ms: Option<f64>,
    /// Longest time per output token, ms.
    pub tpot_ms: Option<f64>,
    /// Longest end-to-end time, ms.
    pub e2e_ms: Option<f64>,
}

impl Slo {
    /// Reads `ttft=500,tpot=30ms,e2e=10s`; a number without a unit is milliseconds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not NAME=TIME"))?;
            let slot = match name.trim() {
                "ttft" => &mut slo.ttft_ms,
                "tpot" => &mut slo.tpot_ms,
                "e2e" => &mut slo.e2e_ms,
                other => return Err(format!("no SLO is called `{other}`; there are ttft, tpot and e2e")),
            };
            *slot = Some(milliseconds(value.trim())?);
        }
        if slo == Self::default() { Err("no limit is given".to_owned()) } else { Ok(slo) }
    }

    /// Whether a request is good: complete, whole, not looping, and inside every limit. What has no defined value is not.
    pub fn met(&self, sample: &Sample) -> bool {
        let within = |limit: Option<f64>, value: Option<f64>| limit.is_none_or(|limit| value.is_some_and(|value| value <= limit));
        sample.complete()
            && !sample.truncated
            && !sample.looping
            && within(self.ttft_ms, Some(sample.ttft()))
            && within(self.tpot_ms, sample.tpot())
            && within(self.e2e_ms, Some(sample.e2e()))
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let (number, scale) = match text {
        t if t.ends_with("ms") => (t.trim_end_matches("ms"), 1.0),
        t if t.ends_with('s') => (t.trim_end_matches('s'), 1000.0),
        t => (t, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n * scale),
        _ => Err(format!("`{text}` is not a time")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A complete request.
    pub(crate) fn good(ttft: f64, tpot: f64, tokens: u64) -> Sample {
        let e2e = ttft + tpot * (tokens - 1) as f64;
        Sample {
            outcome: Outcome::Complete,
            sent_at: Some(0.0),
            ended_at: Some(e2e),
            ttft_ms: Some(ttft),
            tpot_ms: Some(tpot),
            e2e_ms: Some(e2e),
            prompt_tokens: Some(100),
            output_tokens: Some(tokens),
            token_events: tokens,
            token_reads: tokens,
            finish_reason: Some("length".into()),
            ..Sample::unsent(0, None)
        }
    }

    #[test]
    fn slos_are_read_and_refused() {
        let slo = Slo::parse("ttft=500, tpot=30ms,e2e=10s").unwrap();
        assert_eq!(slo, Slo { ttft_ms: Some(500.0), tpot_ms: Some(30.0), e2e_ms: Some(10_000.0) });
        for bad in ["", "ttft", "ttft=x", "ttft=-1", "itl=3", "ttft=inf"] {
            assert!(Slo::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_client_read_late_is_known() {
        let read = |first, last| Sample { first_late_ms: first, last_late_ms: last, ..good(40.0, 10.0, 50) }.read_late();
        assert_eq!(read(Some(0.9), Some(5.2)), Some(false), "within 1 ms, and within 1 % of 530 ms");
        assert_eq!((read(Some(1.1), Some(0.0)), read(Some(0.0), Some(5.4))), (Some(true), Some(true)));
        assert_eq!((read(None, Some(0.1)), read(Some(0.1), None)), (None, None));
    }

    #[test]
    fn only_whole_answers_inside_every_limit_are_good() {
        let slo = Slo::parse("ttft=50,tpot=10").unwrap();
        assert!(slo.met(&good(40.0, 9.0, 10)));
        assert!(!slo.met(&good(60.0, 9.0, 10)) && !slo.met(&good(40.0, 11.0, 10)));
        let undefined = Sample { tpot_ms: None, ..good(40.0, 9.0, 1) };
        let bad = [
            undefined,
            Sample { truncated: true, ..good(40.0, 9.0, 10) },
            Sample { looping: true, ..good(40.0, 9.0, 10) },
            Sample { outcome: Outcome::Failed("x".into()), ..good(40.0, 9.0, 10) },
            Sample { outcome: Outcome::Unsent, ..good(40.0, 9.0, 10) },
            Sample { ttft_scheduled_ms: Some(51.0), ..good(40.0, 9.0, 10) },
        ];
        assert!(bad.iter().all(|s| !slo.met(s)));
        assert_eq!((bad[3].ttft(), bad[0].tpot(), bad[3].tpot()), (f64::INFINITY, None, Some(f64::INFINITY)));
    }
}
