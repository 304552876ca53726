//! The physical limit of DeepSeek-OCR on known GPUs, and what the figures say about which GPU it can be. Pure.
//!
//! bfloat16, no speculation: a decode step of B streams with `ctx` tokens each reads at least
//! `0.694 GB + 4.844 GB (1 - (58/64)^B) + B ctx 61,440 B` (64 experts, of which each token picks 6), so the rate is at
//! most `B x bandwidth / bytes`. A step computes at least two operations for each bfloat16 weight of a token's 1.148 GB.

use super::sample::Sample;
use super::stats::{Figure, median};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A GPU: its name, memory bandwidth in GB/s, and dense bfloat16 TFLOP/s where the vendor states it.
struct Gpu {
    name: &'static str,
    bandwidth: f64,
    tflops: Option<f64>,
}

const GPUS: [Gpu; 4] = [
    Gpu { name: "H100 SXM", bandwidth: 3350.0, tflops: Some(989.0) },
    Gpu { name: "H100 PCIe", bandwidth: 2040.0, tflops: Some(756.0) },
    Gpu { name: "A100 40GB", bandwidth: 1555.0, tflops: Some(312.0) },
    Gpu { name: "DGX Spark", bandwidth: 273.0, tflops: None },
];
/// Most A4 pages per second of an H100 SXM.
const MOST_PAGES_H100_SXM: f64 = 17.0;
/// GB that every step reads; of the experts; for each token of context and stream.
const ALWAYS_GB: f64 = 0.694;
const EXPERTS_GB: f64 = 4.844;
const KV_GB: f64 = 61_440e-9;
/// Fewer single-stream samples than this exclude no GPU.
const LEAST: usize = 3;

fn step_gb(streams: f64, context: f64) -> f64 {
    ALWAYS_GB + EXPERTS_GB * (1.0 - (58.0_f64 / 64.0).powf(streams)) + streams * context * KV_GB
}

/// Most output tokens per second.
fn most_tokens(gpu: &Gpu, streams: f64, context: f64) -> f64 {
    streams * gpu.bandwidth / step_gb(streams, context)
}

/// Where a run stands against the limit of one GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// The GPU.
    pub gpu: String,
    /// Most output tokens per second of this many streams.
    pub most_tokens_per_s: Figure,
    /// Share of it that was reached.
    pub share: Figure,
    /// Share of the arithmetic.
    pub compute_share: Figure,
    /// Least time per output token of a single stream, ms.
    pub least_tpot_ms: Figure,
    /// Whether the figures can be this GPU's.
    pub possible: bool,
}

/// What the figures say about the GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bound {
    /// Streams decoding at once, on average over the window.
    pub streams: Figure,
    /// Mean context, tokens.
    pub context_tokens: Figure,
    /// The GPU of the documents.
    pub documented_gpu: Option<String>,
    /// The documented one and the others.
    pub limits: Vec<Limit>,
    /// `memory`, `compute`, `uplink`, or `none`: the server is far from all of them.
    pub binds: Option<String>,
    /// Whether the figures can be the documented GPU's.
    pub compatible: Option<bool>,
    /// Faster than any of these GPUs can be: the measurement is wrong.
    pub impossible: bool,
    /// In words.
    pub notes: Vec<String>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Every sample.
    pub samples: &'a [Sample],
    /// Output tokens per second.
    pub tokens_per_s: f64,
    /// Pages per second, if pages were read.
    pub pages_per_s: Option<f64>,
    /// The window, ms.
    pub window_ms: f64,
    /// Most requests in flight.
    pub peak: u32,
}

/// Judges the figures of a model on a documented GPU. `None` for a model whose weights are not known here.
pub fn bound(model: &str, documented: Option<&str>, m: &Measured<'_>) -> Option<Bound> {
    if !model.to_ascii_lowercase().contains("deepseek-ocr") {
        return None;
    }
    let complete: Vec<&Sample> = m.samples.iter().filter(|s| s.complete()).collect();
    let context = context(&complete)?;
    let busy: f64 = complete.iter().filter_map(|s| s.e2e_ms).sum();
    let streams = (busy / m.window_ms).clamp(1.0, f64::from(m.peak.max(1)));
    let mut single: Vec<f64> = if m.peak <= 1 { complete.iter().filter_map(|s| s.tpot_ms).collect() } else { Vec::new() };
    let tpot = (single.len() >= LEAST).then(|| median(&mut single)).flatten();
    let limits: Vec<Limit> = GPUS.iter().map(|gpu| limit(gpu, m, streams, context, tpot)).collect();
    let named: Vec<&Limit> = documented.map_or_else(Vec::new, |text| limits.iter().filter(|l| is_named(text, &l.gpu)).collect());
    let compatible = (!named.is_empty()).then(|| named.iter().any(|l| l.possible));
    let impossible = limits.iter().all(|l| !l.possible);
    let best = named.first().copied().or(limits.first());
    let mut bound = Bound {
        streams: Figure::new(streams),
        context_tokens: Figure::new(context),
        documented_gpu: documented.map(str::to_owned),
        binds: best.map(|l| binds(l, &complete).to_owned()),
        compatible,
        impossible,
        notes: Vec::new(),
        limits,
    };
    bound.notes = notes(&bound);
    Some(bound)
}

fn context(complete: &[&Sample]) -> Option<f64> {
    let of = |s: &&Sample| Some(s.prompt_tokens? as f64 + s.output_tokens? as f64 / 2.0);
    super::stats::mean(&complete.iter().filter_map(of).collect::<Vec<_>>())
}

fn limit(gpu: &Gpu, m: &Measured<'_>, streams: f64, context: f64, tpot: Option<f64>) -> Limit {
    let most = most_tokens(gpu, streams, context);
    // The rate of a varying number of streams never passes that of the most there were.
    let ceiling = most_tokens(gpu, f64::from(m.peak.max(1)), 0.0);
    let least_tpot = step_gb(1.0, context) / gpu.bandwidth * 1000.0;
    let pages = gpu.name == "H100 SXM" && m.pages_per_s.is_some_and(|p| p > MOST_PAGES_H100_SXM);
    let prompt: f64 = m.samples.iter().filter(|s| s.complete()).filter_map(|s| s.prompt_tokens).sum::<u64>() as f64;
    let tokens_per_s = m.tokens_per_s + prompt / (m.window_ms / 1000.0);
    let compute = gpu.tflops.map(|tflops| tokens_per_s * step_gb(1.0, 0.0) * 1e9 / (tflops * 1e12));
    Limit {
        gpu: gpu.name.to_owned(),
        most_tokens_per_s: Figure::new(most),
        share: Figure::new(m.tokens_per_s / most),
        compute_share: compute.map_or_else(|| Figure::unknown("no figure for its arithmetic"), Figure::new),
        least_tpot_ms: Figure::new(least_tpot),
        possible: m.tokens_per_s <= ceiling && tpot.is_none_or(|t| t >= step_gb(1.0, 0.0) / gpu.bandwidth * 1000.0) && !pages,
    }
}

/// Whether a documented name can mean this GPU: `NVIDIA H100 80GB` can be both kinds of H100.
fn is_named(documented: &str, gpu: &str) -> bool {
    let documented = documented.to_ascii_uppercase();
    let family = gpu.split(' ').next().unwrap_or(gpu);
    match gpu {
        "H100 SXM" => documented.contains(family) && !documented.contains("PCIE"),
        "H100 PCIe" => documented.contains(family) && !documented.contains("SXM"),
        "DGX Spark" => documented.contains("SPARK") || documented.contains("GB10"),
        _ => documented.contains(family),
    }
}

fn binds(limit: &Limit, complete: &[&Sample]) -> &'static str {
    let upload: f64 = complete.iter().filter_map(|s| s.upload_ms).sum();
    let ttft: f64 = complete.iter().filter_map(|s| s.ttft_ms).sum();
    let (memory, compute) = (limit.share.number().unwrap_or(0.0), limit.compute_share.number().unwrap_or(0.0));
    match () {
        () if upload > ttft / 2.0 => "uplink",
        () if memory.max(compute) < 0.5 => "none",
        () if memory >= compute => "memory",
        () => "compute",
    }
}

fn notes(bound: &Bound) -> Vec<String> {
    let mut notes = Vec::new();
    let excluded: Vec<&str> = bound.limits.iter().filter(|l| !l.possible).map(|l| l.gpu.as_str()).collect();
    if bound.impossible {
        notes.push("faster than any known GPU can read the weights: the measurement is wrong, or tokens are speculated".to_owned());
    } else if !excluded.is_empty() {
        notes.push(format!("too fast for: {}", excluded.join(", ")));
    }
    match bound.compatible {
        Some(true) => notes.push("the documented GPU can be this fast; slower proves nothing".to_owned()),
        Some(false) => notes.push("the documented GPU cannot be this fast".to_owned()),
        None => {}
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::good;
    use super::*;

    #[test]
    fn the_limits_of_the_documents() {
        for (n, rate) in [(0, 2918.0), (1, 1777.0), (2, 1354.0), (3, 238.0)] {
            assert!((most_tokens(&GPUS[n], 1.0, 0.0) - rate).abs() < 1.0, "{}", GPUS[n].name);
        }
        assert!((most_tokens(&GPUS[0], 100.0, 1400.0) - 23_700.0).abs() < 50.0);
        assert!((step_gb(1.0, 0.0) - 1.148).abs() < 5e-4);
    }

    fn run(tpot: f64, peak: u32, rate: f64) -> Bound {
        let samples: Vec<Sample> = (0..8).map(|_| good(20.0, tpot, 100)).collect();
        let m = Measured { samples: &samples, tokens_per_s: rate, pages_per_s: None, window_ms: 1000.0, peak };
        bound("deepseek-ai/DeepSeek-OCR", Some("NVIDIA H100 80GB"), &m).unwrap()
    }

    fn possible(b: &Bound) -> Vec<&str> {
        b.limits.iter().filter(|l| l.possible).map(|l| l.gpu.as_str()).collect()
    }

    #[test]
    fn below_4_2_ms_at_one_stream_it_is_no_dgx_spark() {
        assert_eq!(possible(&run(4.1, 1, 240.0)), ["H100 SXM", "H100 PCIe", "A100 40GB"]);
        // Slower proves nothing.
        let slow = run(20.0, 1, 50.0);
        assert_eq!((possible(&slow).len(), slow.compatible, slow.binds.as_deref()), (4, Some(true), Some("none")));
    }

    #[test]
    fn above_2918_tokens_per_second_at_one_stream_the_measurement_is_wrong() {
        let b = run(0.34, 1, 2930.0);
        assert!(b.impossible && b.compatible == Some(false));
        let many = run(3.0, 64, 9000.0);
        assert!(!many.impossible && !possible(&many).contains(&"DGX Spark"));
    }

    #[test]
    fn other_models_and_empty_runs_have_no_bound() {
        let m = Measured { samples: &[], tokens_per_s: 0.0, pages_per_s: None, window_ms: 1.0, peak: 0 };
        assert_eq!((bound("tiny", None, &m), bound("DeepSeek-OCR", None, &m)), (None, None));
    }
}
