//! Statistics on raw samples. A failed request is a sample of infinite latency: leaving it out would reward failing.

use super::random::Random;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fewer samples than this say nothing about the 99th percentile.
pub const LEAST_FOR_P99: usize = 300;
/// The normal quantile of two-sided 95 %.
const Z95: f64 = 1.959_964;

/// One figure: a number, infinity, or an honest unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Figure {
    /// A finite number; the unit is in the field's name.
    Number(f64),
    /// More requests failed than this quantile leaves room for.
    Infinite(Infinite),
    /// It is not known, and why.
    Unknown {
        /// Why.
        unknown: String,
    },
}

/// The word `infinite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Infinite {
    /// Infinity; JSON has no number for it.
    Infinite,
}

impl Figure {
    /// A number; infinity and NaN become their words.
    pub fn new(value: f64) -> Self {
        match value {
            v if v.is_nan() => Self::unknown("not a number"),
            v if v.is_infinite() => Self::Infinite(Infinite::Infinite),
            // Three digits after the point are microseconds where the unit is milliseconds.
            v => Self::Number((v * 1000.0).round() / 1000.0),
        }
    }

    /// An unknown.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { unknown: why.into() }
    }

    /// The finite number.
    pub const fn number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }
}

/// What a set of samples amounts to. Quantiles are by nearest rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Samples, failures among them.
    pub n: usize,
    /// Samples that are infinite because the request failed.
    pub failed: usize,
    /// Mean of the finite ones.
    pub mean: Figure,
    /// Median.
    pub p50: Figure,
    /// 90th percentile.
    pub p90: Figure,
    /// 99th percentile, of 300 samples or more.
    pub p99: Figure,
    /// Greatest.
    pub max: Figure,
}

impl Summary {
    /// Of samples in any order; failures are `f64::INFINITY`.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|v| !v.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let finite = sorted.partition_point(|v| v.is_finite());
        let quantile = |q| quantile(&sorted, q).map_or_else(|| Figure::unknown("no samples"), Figure::new);
        let p99 = match n {
            0 => Figure::unknown("no samples"),
            n if n < LEAST_FOR_P99 => Figure::unknown(format!("{n} samples; the 99th percentile needs {LEAST_FOR_P99}")),
            _ => quantile(0.99),
        };
        let mean = mean(&sorted[..finite]).map_or_else(|| Figure::unknown("no samples"), Figure::new);
        Self { n, failed: n - finite, mean, p50: quantile(0.5), p90: quantile(0.9), p99, max: quantile(1.0) }
    }
}

/// The smallest sample with at least a share `q` of all samples at or below it (nearest rank).
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).checked_sub(1)?).copied()
}

/// The arithmetic mean.
pub fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// How many have it.
    pub good: usize,
    /// Of how many.
    pub n: usize,
    /// `good / n`; 0 of none is 0.
    pub share: f64,
    /// Lower end of the 95 % Wilson score interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Share {
    /// With the Wilson score interval (Wilson, JASA 22, 1927), which stays inside 0..1 and is honest at both ends.
    pub fn wilson(good: usize, n: usize) -> Self {
        if n == 0 {
            return Self { good, n, share: 0.0, low: 0.0, high: 1.0 };
        }
        let (count, p, z2) = (n as f64, good as f64 / n as f64, Z95 * Z95);
        let centre = (p + z2 / (2.0 * count)) / (1.0 + z2 / count);
        let half = Z95 / (1.0 + z2 / count) * (p * (1.0 - p) / count + z2 / (4.0 * count * count)).sqrt();
        Self { good, n, share: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

/// The ratio of two medians, with what the samples can tell about it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// Median of the new samples over median of the old ones.
    pub ratio: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The smallest relative difference that such samples show with 80 % power at the 5 % level.
    pub detectable: f64,
}

/// Resamples both sets this often.
const RESAMPLES: usize = 4000;
/// Normal quantiles of 97.5 % and of 80 % power, added up.
const DETECT: f64 = 1.959_964 + 0.841_621;

/// The percentile bootstrap (Efron, 1979) of `median(new) / median(old)`; `None` if a median is not a positive number.
pub fn bootstrap_ratio(new: &[f64], old: &[f64], seed: u64) -> Option<Ratio> {
    let ratio = ratio_of(median(&mut new.to_vec()), median(&mut old.to_vec()))?;
    let mut random = Random::new(seed);
    let (mut a, mut b) = (vec![0.0; new.len()], vec![0.0; old.len()]);
    let mut logs: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            resample(new, &mut a, &mut random);
            resample(old, &mut b, &mut random);
            ratio_of(median(&mut a), median(&mut b)).map(f64::ln)
        })
        .collect();
    logs.sort_by(f64::total_cmp);
    let centre = mean(&logs)?;
    let deviation = (logs.iter().map(|l| (l - centre).powi(2)).sum::<f64>() / logs.len() as f64).sqrt();
    Some(Ratio {
        ratio,
        low: quantile(&logs, 0.025)?.exp(),
        high: quantile(&logs, 0.975)?.exp(),
        detectable: (DETECT * deviation).exp() - 1.0,
    })
}

fn ratio_of(new: Option<f64>, old: Option<f64>) -> Option<f64> {
    let (new, old) = (new?, old?);
    let ratio = new / old;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn resample(from: &[f64], into: &mut [f64], random: &mut Random) {
    for slot in into {
        *slot = from[random.below(from.len())];
    }
}

/// The middle sample, or the mean of the two middle ones. Reorders the samples.
pub fn median(samples: &mut [f64]) -> Option<f64> {
    let half = samples.len() / 2;
    let even = samples.len().is_multiple_of(2);
    if samples.is_empty() {
        return None;
    }
    let (below, middle, _) = samples.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *middle;
    if !even {
        return Some(upper);
    }
    below.iter().copied().max_by(f64::total_cmp).map(|lower| lower.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_infinite_and_move_every_quantile() {
        let mut samples: Vec<f64> = (1..=9).map(f64::from).collect();
        samples.push(f64::INFINITY);
        let s = Summary::of(&samples);
        assert_eq!((s.n, s.failed, s.p50.number(), s.p90.number(), s.mean.number()), (10, 1, Some(5.0), Some(9.0), Some(5.0)));
        assert_eq!(s.max, Figure::Infinite(Infinite::Infinite));
        samples.push(f64::INFINITY);
        assert_eq!(Summary::of(&samples).p90, Figure::Infinite(Infinite::Infinite));
    }

    #[test]
    fn the_99th_percentile_needs_300_samples() {
        let samples: Vec<f64> = (1..=300).map(f64::from).collect();
        assert_eq!(Summary::of(&samples).p99.number(), Some(297.0));
        assert_eq!(Summary::of(&samples[..299]).p99, Figure::unknown("299 samples; the 99th percentile needs 300"));
        assert_eq!(Summary::of(&[]).p50, Figure::unknown("no samples"));
    }

    #[test]
    fn wilson_intervals_of_the_literature() {
        // Newcombe, Statistics in Medicine 17 (1998), table I.
        for ((good, n), (low, high)) in [((81, 263), (0.2553, 0.3662)), ((15, 148), (0.0624, 0.1605)), ((0, 20), (0.0, 0.1611))] {
            let s = Share::wilson(good, n);
            assert!((s.low - low).abs() < 2e-4 && (s.high - high).abs() < 2e-4, "{s:?}");
        }
        assert_eq!(Share::wilson(0, 0).high, 1.0);
    }

    #[test]
    fn a_bootstrap_finds_a_real_difference_and_not_a_chance_one() {
        let mut random = Random::new(3);
        let mut noisy = |centre: f64| (0..200).map(|_| centre + random.unit() * 20.0).collect::<Vec<f64>>();
        let (old, same, slower) = (noisy(100.0), noisy(100.0), noisy(120.0));
        let same = bootstrap_ratio(&same, &old, 1).unwrap();
        assert!(same.low < 1.0 && same.high > 1.0 && same.detectable < 0.05, "{same:?}");
        let slower = bootstrap_ratio(&slower, &old, 1).unwrap();
        assert!(slower.low > 1.1 && (slower.ratio - 1.18).abs() < 0.03, "{slower:?}");
        assert_eq!(bootstrap_ratio(&old, &old, 7), bootstrap_ratio(&old, &old, 7));
        assert_eq!(bootstrap_ratio(&[f64::INFINITY], &old, 1), None);
        assert_eq!(bootstrap_ratio(&[], &old, 1), None);
    }

    #[test]
    fn figures_read_back() {
        for figure in [Figure::new(1.5), Figure::new(f64::INFINITY), Figure::unknown("why")] {
            let text = serde_json::to_string(&figure).unwrap();
            assert_eq!(serde_json::from_str::<Figure>(&text).unwrap(), figure, "{text}");
        }
    }
}
