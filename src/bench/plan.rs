//! What a run sends and when: computed before anything is sent, from a seed.

use super::random::Random;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How requests are offered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: a new request when an old one ends. It never overloads, and so never shows what a queue does.
    Closed {
        /// Requests in flight.
        concurrency: u32,
    },
    /// Open loop: requests when the schedule says so, whether or not earlier ones have ended.
    Open {
        /// Requests per second.
        rate: f64,
        /// How the arrivals are spread.
        arrivals: Arrivals,
    },
}

/// How the arrivals of an open loop are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Independent of each other, as those of many users.
    #[default]
    Poisson,
    /// Evenly.
    Constant,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A text of some length, answered with a set number of tokens.
    #[default]
    Text,
    /// An A4 page as an image, answered with what it says.
    Image,
}

/// Limits that a run never passes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ceilings {
    /// Requests, warm-up included.
    pub requests: u32,
    /// Tokens, in and out, of all requests together.
    pub tokens: u64,
    /// Seconds from the first request to the last byte.
    pub seconds: f64,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self { requests: 20_000, tokens: 5_000_000, seconds: 300.0 }
    }
}

/// Tokens of the built-in page image (A4 at 1190 x 1684 pixels), DeepSeek-OCR's known answer, and its instruction.
const PAGE_TOKENS: u32 = 920;

/// A run, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Model name.
    pub model: String,
    /// How requests are offered.
    pub load: Load,
    /// What is asked for.
    pub input: Input,
    /// Measured requests.
    pub requests: u32,
    /// Requests before the measurement, of the same kind with texts of their own; not in any figure.
    pub warmup: u32,
    /// Words of a text prompt; about as many tokens.
    pub prompt_words: u32,
    /// Tokens asked for; a text answer has exactly as many, a page at most.
    pub output_tokens: u32,
    /// Seconds that one request may take.
    pub request_seconds: f64,
    /// Seed of the schedule and the prompts.
    pub seed: u64,
    /// Limits.
    pub ceilings: Ceilings,
}

impl Plan {
    /// Tokens that one request can cost, in and out; an estimate from above for the built-in inputs.
    pub fn tokens_each(&self) -> u64 {
        let input = match self.input {
            // A word of the list is one token with usual tokenisers and at most two; the template adds a few.
            Input::Text => self.prompt_words.saturating_mul(2).saturating_add(32),
            Input::Image => PAGE_TOKENS,
        };
        u64::from(input.saturating_add(self.output_tokens))
    }

    /// Tokens that all requests together can cost, warm-up included.
    pub fn tokens(&self) -> u64 {
        u64::from(self.requests.saturating_add(self.warmup)) * self.tokens_each()
    }

    /// The clause that says why this must not be sent, if so.
    pub fn refused(&self) -> Option<String> {
        let all = self.requests.saturating_add(self.warmup);
        let tokens = self.tokens();
        match self.load {
            _ if self.requests == 0 => Some("no requests are asked for".to_owned()),
            Load::Closed { concurrency: 0 } => Some("a concurrency of 0 sends nothing".to_owned()),
            Load::Open { rate, .. } if !(rate.is_finite() && rate > 0.0) => Some("the rate must be a positive number".to_owned()),
            _ if all > self.ceilings.requests => Some(format!("{all} requests are above the ceiling of {}", self.ceilings.requests)),
            _ if tokens > self.ceilings.tokens => Some(format!("up to {tokens} tokens are above the ceiling of {}", self.ceilings.tokens)),
            _ => None,
        }
    }

    /// One sentence: what will be sent.
    pub fn statement(&self) -> String {
        let load = match self.load {
            Load::Closed { concurrency } => format!("{concurrency} at a time"),
            Load::Open { rate, arrivals: Arrivals::Poisson } => format!("{rate} per second on average (Poisson)"),
            Load::Open { rate, arrivals: Arrivals::Constant } => format!("{rate} per second"),
        };
        let input = match self.input {
            Input::Text => format!("text of {} words", self.prompt_words),
            Input::Image => "one A4 page as an image".to_owned(),
        };
        format!(
            "{} requests ({input}, up to {} tokens each) after {} to warm up, {load}: at most {} tokens and {} s",
            self.requests,
            self.output_tokens,
            self.warmup,
            self.tokens().min(self.ceilings.tokens),
            self.ceilings.seconds
        )
    }

    /// When each request is due, from the start; empty for a closed loop.
    pub fn schedule(&self) -> Vec<Duration> {
        match self.load {
            Load::Closed { .. } => Vec::new(),
            Load::Open { rate, arrivals } => schedule(rate, arrivals, self.requests, self.seed),
        }
    }
}

/// Arrival times, the first at once.
pub fn schedule(rate: f64, arrivals: Arrivals, requests: u32, seed: u64) -> Vec<Duration> {
    let mut random = Random::new(seed);
    let mut at = 0.0;
    let mut due = Vec::with_capacity(requests as usize);
    for n in 0..requests {
        due.push(Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX));
        at = match arrivals {
            // Not by adding up: the error would grow.
            Arrivals::Constant => f64::from(n + 1) / rate,
            Arrivals::Poisson => at + random.exponential(1.0 / rate),
        };
    }
    due
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small plan.
    pub(crate) fn plan(load: Load) -> Plan {
        Plan {
            model: "deepseek-ai/DeepSeek-OCR".into(),
            load,
            input: Input::Text,
            requests: 64,
            warmup: 2,
            prompt_words: 100,
            output_tokens: 50,
            request_seconds: 60.0,
            seed: 1,
            ceilings: Ceilings::default(),
        }
    }

    #[test]
    fn a_constant_schedule_does_not_drift() {
        let due = schedule(30.0, Arrivals::Constant, 3001, 0);
        assert_eq!((due[0], due[3000]), (Duration::ZERO, Duration::from_secs(100)));
    }

    #[test]
    fn a_poisson_schedule_has_its_rate_its_variance_and_its_seed() {
        let due = schedule(100.0, Arrivals::Poisson, 20_001, 7);
        let gaps: Vec<f64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!((mean - 0.01).abs() < 3e-4 && (variance.sqrt() - mean).abs() < 4e-4, "{mean} {variance}");
        assert_eq!(due, schedule(100.0, Arrivals::Poisson, 20_001, 7));
        assert_ne!(due, schedule(100.0, Arrivals::Poisson, 20_001, 8));
    }

    #[test]
    fn ceilings_refuse_before_anything_is_sent() {
        let mut p = plan(Load::Closed { concurrency: 8 });
        assert_eq!((p.refused(), p.tokens()), (None, 66 * 282));
        p.ceilings.tokens = 10_000;
        assert_eq!(p.refused().unwrap(), "up to 18612 tokens are above the ceiling of 10000");
        p.ceilings = Ceilings { requests: 65, ..Ceilings::default() };
        assert_eq!(p.refused().unwrap(), "66 requests are above the ceiling of 65");
        assert!(plan(Load::Open { rate: f64::NAN, arrivals: Arrivals::Constant }).refused().is_some());
        assert!(plan(Load::Closed { concurrency: 0 }).refused().is_some());
        assert!(
            plan(Load::Closed { concurrency: 4 }).statement().starts_with("64 requests (text of 100 words, up to 50 tokens each) after 2")
        );
    }
}
