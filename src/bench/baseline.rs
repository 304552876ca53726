//! A run against a recorded one of the same site. Pure.

use super::plan::Plan;
use super::report::{Report, SCHEMA};
use super::sample::Sample;
use super::scrape::Serving;
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
    comparable(&Settings { target: &new.target, from: &new.from, plan: &new.plan, serving: new.serving.as_ref() }, old)?;
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

/// What a run will measure and how; known before anything is sent.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The server's URL.
    pub target: &'a str,
    /// The vantage.
    pub from: &'a str,
    /// What will be sent.
    pub plan: &'a Plan,
    /// What the server says that it serves, if it does.
    pub serving: Option<&'a Serving>,
}

/// Whether a run with these settings can be held against a recorded one; the error says why not.
pub fn comparable(new: &Settings<'_>, old: &Report) -> Result<(), String> {
    let (a, b) = (new.plan, &old.plan);
    let length = |serving: Option<&Serving>| serving.and_then(|s| s.max_model_len);
    let lengths = length(new.serving).zip(length(old.serving.as_ref()));
    let differs = match () {
        () if old.schema != SCHEMA => "its schema",
        () if !old.validity.valid => return Err("the baseline itself is invalid".to_owned()),
        () if old.stopped.is_some() => return Err("the baseline itself was stopped early".to_owned()),
        () if new.target != old.target => "the target",
        () if new.from != old.from => "the vantage",
        () if a.model != b.model => "the model",
        () if lengths.is_some_and(|(new, old)| new != old) => "the longest sequence that the server takes",
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
        use super::super::plan::{Input, Load};
        let serving = |max_model_len| Some(Serving { models: vec!["m".into()], max_model_len });
        type Change = (fn(&mut Report), &'static str);
        let changes: [Change; 7] = [
            (|r| r.plan.output_tokens += 1, "the output length"),
            (|r| r.plan.prompt_words += 1, "the prompt length"),
            (|r| r.plan.model = "other".into(), "the model"),
            (|r| r.plan.load = Load::Closed { concurrency: 9 }, "the load"),
            (|r| r.plan.input = Input::Image, "the input"),
            (|r| r.target = "http://192.0.2.1".into(), "the target"),
            (|r| r.from = "elsewhere".into(), "the vantage"),
        ];
        let old = with(100.0, 20);
        for (change, what) in changes {
            let mut new = with(100.0, 20);
            change(&mut new);
            assert_eq!(compare(&new, &old, 0.05).unwrap_err(), format!("the baseline is not comparable: {what} differs"));
        }
        let (mut new, mut served) = (with(100.0, 20), with(100.0, 20));
        (new.serving, served.serving) = (serving(Some(4096)), serving(Some(8192)));
        assert!(compare(&new, &served, 0.05).unwrap_err().contains("the longest sequence"));
        // One side that does not say is no difference.
        assert!(compare(&new, &old, 0.05).is_ok());
        let mut invalid = with(100.0, 20);
        invalid.validity.doubt("client-limited", "x");
        assert!(compare(&old, &invalid, 0.05).is_err());
        let stopped = Report { stopped: Some("time".into()), ..with(100.0, 20) };
        assert!(compare(&old, &stopped, 0.05).unwrap_err().contains("stopped early"));
    }
}
