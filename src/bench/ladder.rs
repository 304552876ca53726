//! Climbing: more and more requests at a time, until more bring nothing. Pure.

use super::stats::Figure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rung that brings less than this much more throughput is the last one.
const LEAST_GAIN: f64 = 0.05;

/// One rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rung {
    /// Requests at a time.
    pub concurrency: u32,
    /// Output tokens per second.
    pub output_tokens_per_s: Figure,
    /// Median time to first token.
    pub ttft_p50_ms: Figure,
    /// Median time per output token.
    pub tpot_p50_ms: Figure,
    /// Median end-to-end time.
    pub e2e_p50_ms: Figure,
    /// Share of good requests, if there are limits.
    pub goodput: Option<f64>,
    /// `valid`, or `invalid: ..`.
    pub validity: String,
    /// Requests that failed.
    pub failed: usize,
}

/// All rungs and what they say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ladder {
    /// In order.
    pub rungs: Vec<Rung>,
    /// The concurrency with the greatest throughput per latency (Kleinrock's power); `None` without a valid rung.
    pub knee: Option<u32>,
    /// The greatest concurrency at which the wanted share of requests was good.
    pub within_slo: Option<u32>,
    /// Why it ended.
    pub ended: String,
}

/// The concurrencies to try: doubling, and the greatest itself.
pub fn steps(most: u32) -> Vec<u32> {
    let mut steps: Vec<u32> = (0..31).map(|n| 1u32 << n).take_while(|step| *step < most).collect();
    steps.push(most.max(1));
    steps
}

/// Why the climb ends after the last rung, if it does.
pub fn ends(rungs: &[Rung]) -> Option<String> {
    let last = rungs.last()?;
    if last.validity != "valid" {
        return Some(format!("{} at {}", last.validity, last.concurrency));
    }
    if last.failed > 0 {
        return Some(format!("{} requests failed at {}", last.failed, last.concurrency));
    }
    let before = rungs.len().checked_sub(2).and_then(|n| rungs.get(n))?;
    let gain = last.output_tokens_per_s.number()? / before.output_tokens_per_s.number()? - 1.0;
    (gain < LEAST_GAIN).then(|| format!("{} bring {:+.0} % over {}", last.concurrency, gain * 100.0, before.concurrency))
}

impl Ladder {
    /// Of the rungs climbed.
    pub fn of(rungs: Vec<Rung>, wanted: f64, ended: String) -> Self {
        let sound = || rungs.iter().filter(|r| r.validity == "valid" && r.failed == 0);
        let power = |r: &Rung| Some(r.output_tokens_per_s.number()? / r.e2e_p50_ms.number()?);
        let knee = sound().filter_map(|r| Some((r.concurrency, power(r)?))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(c, _)| c);
        let within_slo = sound().filter(|r| r.goodput.is_some_and(|g| g >= wanted)).map(|r| r.concurrency).max();
        Self { knee, within_slo, ended, rungs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(concurrency: u32, rate: f64, e2e: f64) -> Rung {
        let f = Figure::new;
        Rung {
            concurrency,
            output_tokens_per_s: f(rate),
            ttft_p50_ms: f(10.0),
            tpot_p50_ms: f(5.0),
            e2e_p50_ms: f(e2e),
            goodput: Some(if e2e < 400.0 { 1.0 } else { 0.2 }),
            validity: "valid".into(),
            failed: 0,
        }
    }

    #[test]
    fn steps_double_up_to_the_greatest() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(12), [1, 2, 4, 8, 12]);
        assert_eq!(steps(16), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn the_knee_is_where_latency_begins_to_buy_little() {
        let rungs = vec![rung(1, 100.0, 200.0), rung(2, 196.0, 204.0), rung(4, 380.0, 210.0), rung(8, 400.0, 400.0)];
        assert_eq!(ends(&rungs[..3]), None);
        assert_eq!(ends(&[rung(4, 400.0, 210.0), rung(8, 404.0, 400.0)]).unwrap(), "8 bring +1 % over 4");
        let ladder = Ladder::of(rungs, 0.9, String::new());
        assert_eq!((ladder.knee, ladder.within_slo), (Some(4), Some(4)));
    }

    #[test]
    fn an_invalid_rung_ends_the_climb_and_is_no_knee() {
        let bad = Rung { validity: "invalid: client-limited".into(), ..rung(64, 9000.0, 1.0) };
        assert_eq!(ends(std::slice::from_ref(&bad)).unwrap(), "invalid: client-limited at 64");
        assert_eq!(Ladder::of(vec![bad], 0.9, String::new()).knee, None);
    }
}
