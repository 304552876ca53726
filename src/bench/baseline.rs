//! A run against a recorded one of the same site. Pure.

use super::report::Report;
use super::sample::Sample;
use super::stats::{Ratio, bootstrap_ratio};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not slower than the margin allows.
    Pass,
    /// Slower than the margin allows.
    Fail,
    /// These samples cannot tell.
    Inconclusive,
}

/// One latency, new against old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// `ttft`, `tpot` or `e2e`.
    pub what: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The ratio of medians and what it is known to; `None` if a median is not a number.
    pub ratio: Option<Ratio>,
}

/// A run against a recorded one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// When the recorded run was.
    pub baseline_started_at: String,
    /// How much slower a median may be, as a share.
    pub margin: f64,
    /// Latency by latency.
    pub compared: Vec<Compared>,
    /// Fail if one fails, else inconclusive if one is.
    pub verdict: Verdict,
}

/// Compares; the error says why the two are not comparable.
pub fn compare(new: &Report, old: &Report, margin: f64) -> Result<Comparison, String> {
    comparable(new, old)?;
    let of = |report: &Report, what: &str| -> Vec<f64> {
        let counted = report.samples.iter().filter(|s| s.counts());
        match what {
            "ttft" => counted.map(Sample::ttft).collect(),
            "tpot" => counted.filter_map(Sample::tpot).collect(),
            _ => counted.map(Sample::e2e).collect(),
        }
    };
    let compared: Vec<Compared> = ["ttft", "tpot", "e2e"]
        .into_iter()
        .map(|what| {
            let ratio = bootstrap_ratio(&of(new, what), &of(old, what), new.plan.seed);
            Compared { what: what.to_owned(), verdict: verdict(ratio, margin), ratio }
        })
        .collect();
    let any = |v: Verdict| compared.iter().any(|c| c.verdict == v);
    let verdict = match () {
        () if any(Verdict::Fail) => Verdict::Fail,
        () if any(Verdict::Inconclusive) => Verdict::Inconclusive,
        () => Verdict::Pass,
    };
    Ok(Comparison { baseline_started_at: old.started_at.to_rfc3339(), margin, compared, verdict })
}

fn verdict(ratio: Option<Ratio>, margin: f64) -> Verdict {
    match ratio {
        Some(r) if r.high <= 1.0 + margin => Verdict::Pass,
        Some(r) if r.low > 1.0 + margin => Verdict::Fail,
        _ => Verdict::Inconclusive,
    }
}

fn comparable(new: &Report, old: &Report) -> Result<(), String> {
    let (a, b) = (&new.plan, &old.plan);
    let differs = match () {
        () if old.schema != new.schema => "its schema",
        () if !old.validity.valid => return Err("the baseline itself is invalid".to_owned()),
        () if a.model != b.model => "the model",
        () if a.load != b.load => "the load",
        () if a.input != b.input => "the input",
        () if a.prompt_words != b.prompt_words => "the prompt length",
        () if a.output_tokens != b.output_tokens => "the output length",
        () => return Ok(()),
    };
    Err(format!("the baseline is not comparable: {differs} differs"))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::super::sample::tests::good;
    use super::*;

    fn with(ttft: f64, n: usize) -> Report {
        // A spread of 20 %, as measured latencies have.
        let sample = |i: usize| good(ttft * (1.0 + (i * 7 % 20) as f64 / 100.0), 5.0, 50);
        report((0..n).map(sample).collect())
    }

    #[test]
    fn the_same_passes_a_slower_one_fails_and_few_samples_cannot_tell() {
        let old = with(100.0, 200);
        let verdict = |new: &Report| compare(new, &old, 0.05).unwrap().compared[0].verdict;
        assert_eq!((verdict(&with(100.0, 200)), verdict(&with(120.0, 200))), (Verdict::Pass, Verdict::Fail));
        let few = compare(&with(104.0, 6), &old, 0.05).unwrap();
        assert_eq!((few.verdict, few.compared[0].verdict), (Verdict::Inconclusive, Verdict::Inconclusive));
        assert!(few.compared[0].ratio.unwrap().detectable > 0.05);
    }

    #[test]
    fn other_settings_are_not_compared() {
        let (old, mut new) = (with(100.0, 20), with(100.0, 20));
        new.plan.output_tokens += 1;
        assert!(compare(&new, &old, 0.05).unwrap_err().ends_with("the output length differs"));
        let mut invalid = with(100.0, 20);
        invalid.validity.doubt("client-limited", "x");
        assert!(compare(&old, &invalid, 0.05).is_err());
    }
}
