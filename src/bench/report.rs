//! The result of a bench: contract `fathom.bench/1`.

use super::baseline::{Comparison, Verdict};
use super::bound::Bound;
use super::drive::{Driven, Stop};
use super::judge::{Client, MOST_EVENTS_PER_READ, Validity};
use super::ladder::Ladder;
use super::plan::{Input, Plan};
use super::reconcile::Reconciliation;
use super::sample::{Outcome, Sample, Slo};
use super::scrape::Serving;
use super::stats::{Figure, Share, Summary};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The contract's name.
pub const SCHEMA: &str = "fathom.bench/1";
/// Different error texts that are listed.
const MOST_ERRORS: usize = 20;

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `fathom.bench/1`.
    pub schema: String,
    /// Version of fathom.
    pub version: String,
    /// When the measured window began.
    pub started_at: DateTime<Utc>,
    /// The server's URL.
    pub target: String,
    /// The vantage.
    pub from: String,
    /// What was sent.
    pub plan: Plan,
    /// Whether the figures can be believed; read this first.
    pub validity: Validity,
    /// Why it ended early: `interrupted`, `time`, `requests`, `tokens`, `foreign-wait`.
    pub stopped: Option<String>,
    /// The figures.
    pub figures: Figures,
    /// What the server said that it serves, before anything was sent; `None` if it did not say.
    #[serde(default)]
    pub serving: Option<Serving>,
    /// Complete requests of the warm-up, which are in no figure.
    pub warmup_complete: u32,
    /// What the client noticed about itself.
    pub client: Client,
    /// The server's account.
    pub server: Reconciliation,
    /// The physical limit, for models that are known here.
    pub bound: Option<Bound>,
    /// Against a recorded run.
    pub baseline: Option<Comparison>,
    /// All rungs, if a ladder was climbed; the figures are those of the knee.
    pub ladder: Option<Ladder>,
    /// Exit code and what it says.
    pub exit_code: u8,
    /// Every request.
    pub samples: Vec<Sample>,
}

/// The figures. Latencies are milliseconds; a failed request is infinite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// Complete answers.
    pub complete: usize,
    /// Failed ones.
    pub failed: usize,
    /// Arrivals that were not sent: misses.
    pub unsent: usize,
    /// In flight when the run was stopped; in no figure.
    pub cut: usize,
    /// Pages that the token limit cut off, and pages that repeat themselves.
    pub truncated: usize,
    /// Pages that repeat themselves.
    pub looping: usize,
    /// What went wrong, with how often.
    pub errors: BTreeMap<String, usize>,
    /// Time to first token; open loop: from the scheduled time.
    pub ttft_ms: Summary,
    /// TCP handshake.
    pub connect_ms: Summary,
    /// TLS handshake.
    pub tls_ms: Summary,
    /// First to last byte of the request.
    pub upload_ms: Summary,
    /// Last byte to headers: admission and preprocessing.
    pub headers_ms: Summary,
    /// Headers to first token: queue, vision and prefill.
    pub first_ms: Summary,
    /// Time per output token after the first event.
    pub tpot_ms: Summary,
    /// Whether the times between chunks are inter-token latencies: one token in each event, read one by one.
    pub chunks_are_tokens: bool,
    /// Times between chunks that brought tokens.
    pub inter_chunk_ms: Summary,
    /// End-to-end time; open loop: from the scheduled time.
    pub e2e_ms: Summary,
    /// Tokens of complete answers per second of the window.
    pub output_tokens_per_s: Figure,
    /// Complete pages per second.
    pub pages_per_s: Figure,
    /// Complete requests per second.
    pub requests_per_s: Figure,
    /// The limits that make a request good.
    pub slo: Option<Slo>,
    /// The share that must be good.
    pub goodput_wanted: f64,
    /// The share that is, if there are limits.
    pub goodput: Option<Share>,
}

impl Figures {
    /// Of what a client brought back.
    pub fn of(plan: &Plan, driven: &Driven, slo: Option<Slo>, wanted: f64) -> Self {
        let counted: Vec<&Sample> = driven.samples.iter().filter(|s| s.counts()).collect();
        let complete: Vec<&Sample> = counted.iter().copied().filter(|s| s.complete()).collect();
        let stage = |of: fn(&Sample) -> Option<f64>| Summary::of(&complete.iter().filter_map(|s| of(s)).collect::<Vec<_>>());
        let latency = |of: fn(&Sample) -> Option<f64>| Summary::of(&counted.iter().filter_map(|s| of(s)).collect::<Vec<_>>());
        let seconds = driven.client.window_ms / 1000.0;
        let rate = |n: f64| if seconds > 0.0 { Figure::new(n / seconds) } else { Figure::unknown("no time passed") };
        let tokens: u64 = complete.iter().filter_map(|s| s.output_tokens).sum();
        let events: u64 = complete.iter().map(|s| s.token_events).sum();
        let gaps: Vec<f64> = driven.gaps.iter().map(|gap| f64::from(*gap)).collect();
        let count = |is: fn(&Sample) -> bool| driven.samples.iter().filter(|s| is(s)).count();
        Self {
            complete: complete.len(),
            failed: count(|s| matches!(s.outcome, Outcome::Failed(_))),
            unsent: count(|s| s.outcome == Outcome::Unsent),
            cut: count(|s| s.outcome == Outcome::Cut),
            truncated: count(|s| s.truncated),
            looping: count(|s| s.looping),
            errors: errors(&counted),
            ttft_ms: latency(|s| Some(s.ttft())),
            connect_ms: stage(|s| s.connect_ms),
            tls_ms: stage(|s| s.tls_ms),
            upload_ms: stage(|s| s.upload_ms),
            headers_ms: stage(|s| s.headers_ms),
            first_ms: stage(|s| s.first_ms),
            tpot_ms: latency(Sample::tpot),
            chunks_are_tokens: tokens > 0 && events == tokens && driven.client.events_per_read().is_some_and(|n| n <= MOST_EVENTS_PER_READ),
            inter_chunk_ms: Summary::of(&gaps),
            e2e_ms: latency(|s| Some(s.e2e())),
            output_tokens_per_s: rate(tokens as f64),
            pages_per_s: match plan.input {
                Input::Image => rate(complete.len() as f64),
                Input::Text => Figure::unknown("no pages were sent"),
            },
            requests_per_s: rate(complete.len() as f64),
            slo,
            goodput_wanted: wanted,
            goodput: slo.map(|slo| Share::wilson(counted.iter().filter(|s| slo.met(s)).count(), counted.len())),
        }
    }
}

fn errors(counted: &[&Sample]) -> BTreeMap<String, usize> {
    let mut errors = BTreeMap::new();
    for sample in counted {
        let Outcome::Failed(word) = &sample.outcome else { continue };
        let known = errors.len() < MOST_ERRORS || errors.contains_key(word);
        *errors.entry(if known { word.clone() } else { "other".to_owned() }).or_insert(0) += 1;
    }
    errors
}

/// The word for an early end.
pub fn stop_word(stop: Stop) -> String {
    match stop {
        Stop::Interrupted => "interrupted",
        Stop::Time => "time",
        Stop::Requests => "requests",
        Stop::Tokens => "tokens",
        Stop::Polite => "foreign-wait",
    }
    .to_owned()
}

impl Report {
    /// 130 interrupted; 3 invalid; 1 requests failed, SLO or baseline missed; 3 inconclusive; 0 good.
    pub fn judge(&self) -> u8 {
        let f = &self.figures;
        let goodput = f.goodput.map(|g| match () {
            () if g.low >= f.goodput_wanted => Verdict::Pass,
            () if g.high < f.goodput_wanted => Verdict::Fail,
            () => Verdict::Inconclusive,
        });
        let verdicts = [goodput, self.baseline.as_ref().map(|b| b.verdict)];
        let any = |v: Verdict| verdicts.contains(&Some(v));
        match self.stopped.as_deref() {
            Some("interrupted") => 130,
            _ if !self.validity.valid => 3,
            _ if f.failed + f.unsent > 0 || any(Verdict::Fail) => 1,
            Some(_) => 3,
            _ if f.complete == 0 || any(Verdict::Inconclusive) => 3,
            _ => 0,
        }
    }

    /// One JSON document.
    pub fn json(&self) -> String {
        format!("{}\n", serde_json::to_string_pretty(self).unwrap_or_else(|e| format!("\"{e}\"")))
    }

    /// The raw requests as CSV (RFC 4180), one line each after the header.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "index,outcome,scheduled_at_ms,sent_at_ms,ended_at_ms,connect_ms,tls_ms,upload_ms,headers_ms,first_ms,ttft_ms,\
             ttft_scheduled_ms,tpot_ms,e2e_ms,prompt_tokens,output_tokens,token_events,token_reads,finish_reason,truncated,looping\r\n",
        );
        for s in &self.samples {
            text += &csv_line(s);
        }
        text
    }
}

fn csv_line(s: &Sample) -> String {
    let time = |v: Option<f64>| v.map(|v| format!("{v:.3}")).unwrap_or_default();
    let count = |v: Option<u64>| v.map(|v| v.to_string()).unwrap_or_default();
    let outcome = match &s.outcome {
        Outcome::Complete => "complete".to_owned(),
        Outcome::Failed(word) => format!("failed: {word}"),
        Outcome::Unsent => "unsent".to_owned(),
        Outcome::Cut => "cut".to_owned(),
    };
    let times = [
        s.scheduled_at,
        s.sent_at,
        s.ended_at,
        s.connect_ms,
        s.tls_ms,
        s.upload_ms,
        s.headers_ms,
        s.first_ms,
        s.ttft_ms,
        s.ttft_scheduled_ms,
        s.tpot_ms,
        s.e2e_ms,
    ];
    let mut fields = vec![s.index.to_string(), quoted(&outcome)];
    fields.extend(times.map(time));
    fields.extend([count(s.prompt_tokens), count(s.output_tokens), s.token_events.to_string(), s.token_reads.to_string()]);
    fields.extend([quoted(s.finish_reason.as_deref().unwrap_or_default()), s.truncated.to_string(), s.looping.to_string()]);
    format!("{}\r\n", fields.join(","))
}

fn quoted(text: &str) -> String {
    // A spreadsheet would run a text that begins like a formula.
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// The JSON Schema of [`Report`].
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Report).to_value()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::plan::{Load, tests::plan};
    use super::super::reconcile::reconcile;
    use super::super::sample::tests::good;
    use super::*;

    /// A valid report of these samples.
    pub(crate) fn report(samples: Vec<Sample>) -> Report {
        let mut driven = Driven { samples, ..Driven::default() };
        driven.client.window_ms = 1000.0;
        let plan = plan(Load::Closed { concurrency: 4 });
        Report {
            schema: SCHEMA.into(),
            version: "0".into(),
            started_at: DateTime::UNIX_EPOCH,
            target: "http://127.0.0.1:8000".into(),
            from: "test".into(),
            validity: Validity::good(),
            stopped: None,
            figures: Figures::of(&plan, &driven, None, 0.9),
            serving: None,
            warmup_complete: 2,
            client: driven.client.clone(),
            server: reconcile(&driven.samples, Err("none"), Err("none")),
            bound: None,
            baseline: None,
            ladder: None,
            exit_code: 0,
            samples: driven.samples,
            plan,
        }
    }

    fn failed() -> Sample {
        Sample { outcome: Outcome::Failed("HTTP 503: busy, \"later\"".into()), ..good(1.0, 1.0, 5) }
    }

    #[test]
    fn exit_codes() {
        assert_eq!(report(vec![good(10.0, 5.0, 10)]).judge(), 0);
        assert_eq!(report(vec![good(10.0, 5.0, 10), failed()]).judge(), 1);
        assert_eq!(report(vec![]).judge(), 3);
        let mut r = report(vec![good(10.0, 5.0, 10), failed()]);
        r.validity.doubt("client-limited", "x");
        assert_eq!(r.judge(), 3);
        r.stopped = Some(stop_word(Stop::Interrupted));
        assert_eq!(r.judge(), 130);
    }

    #[test]
    fn goodput_gates_with_its_interval() {
        let judged = |good: usize, n: usize| {
            let mut r = report(vec![super::super::sample::tests::good(10.0, 5.0, 10)]);
            r.figures.goodput = Some(Share::wilson(good, n));
            r.judge()
        };
        assert_eq!((judged(64, 64), judged(30, 64), judged(5, 5)), (0, 1, 3));
    }

    #[test]
    fn a_failure_is_in_every_latency_and_in_no_rate() {
        let r = report(vec![good(10.0, 5.0, 10), failed()]);
        assert_eq!((r.figures.ttft_ms.n, r.figures.ttft_ms.failed, r.figures.output_tokens_per_s.number()), (2, 1, Some(10.0)));
        assert_eq!(r.figures.errors["HTTP 503: busy, \"later\""], 1);
    }

    #[test]
    fn it_validates_and_reads_back() {
        let r = report(vec![good(10.0, 5.0, 10), failed(), Sample::unsent(3, Some(1.0))]);
        let document: serde_json::Value = serde_json::from_str(&r.json()).unwrap();
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(serde_json::from_str::<Report>(&r.json()).unwrap().json(), r.json());
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let csv = report(vec![failed()]).csv();
        let lines: Vec<&str> = csv.split("\r\n").collect();
        assert_eq!(lines[0].split(',').count(), 21);
        assert!(lines[1].starts_with("0,\"failed: HTTP 503: busy, \"\"later\"\"\","), "{}", lines[1]);
        assert_eq!(quoted("=1+1"), "'=1+1");
    }
}
