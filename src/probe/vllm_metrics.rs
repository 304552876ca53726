//! The few families of vLLM's `/metrics` that tell whether the engine works, before and after a canary.

use super::prometheus::samples;

/// What one scrape says; a family that is not there is `None`. Label sets (engines, models) are added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape {
    /// `vllm:num_requests_running`.
    pub(super) running: Option<f64>,
    /// `vllm:num_requests_waiting`.
    pub(super) waiting: Option<f64>,
    /// `vllm:prompt_tokens_total`.
    pub(super) prompt: Option<f64>,
    /// `vllm:generation_tokens_total`.
    pub(super) generated: Option<f64>,
    /// `vllm:iteration_tokens_total_count`: the engine's steps.
    pub(super) steps: Option<f64>,
    /// `vllm:kv_cache_usage_perc` (up to 0.8 `gpu_cache_usage_perc`, up to 0.11 both), a fraction: that of the fullest engine.
    pub(super) kv_cache: Option<f64>,
    /// `vllm:num_preemptions_total`.
    pub(super) preemptions: Option<f64>,
    /// `process_cpu_seconds_total` of the API server.
    pub(super) cpu_seconds: Option<f64>,
    /// Whose metrics these are.
    pub(super) family: Family,
}

/// Whose metrics a scrape shows; the documented port 8002 is Triton's default, not vLLM's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Family {
    /// `vllm:`
    Vllm,
    /// `nv_inference_`
    Triton,
    /// `DCGM_FI_`
    Dcgm,
    /// None of these.
    #[default]
    Other,
}

impl Family {
    /// The word for reports.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Triton => "triton",
            Self::Dcgm => "dcgm",
            Self::Other => "other",
        }
    }

    /// Why there are no vLLM facts in such a scrape.
    pub(super) fn why_not(self) -> &'static str {
        match self {
            Self::Vllm => "this vLLM has no such metric",
            Self::Triton => "these are the metrics of a Triton server",
            Self::Dcgm => "these are the metrics of a GPU exporter",
            Self::Other => "no metric of vLLM in the answer",
        }
    }
}

impl Scrape {
    /// Reads a scrape.
    pub(super) fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        for (name, value) in samples(text) {
            scrape.take(name, value);
        }
        scrape
    }

    fn take(&mut self, name: &str, value: f64) {
        self.family = match name {
            _ if name.starts_with("vllm:") => Family::Vllm,
            _ if name.starts_with("nv_inference_") && self.family == Family::Other => Family::Triton,
            _ if name.starts_with("DCGM_FI_") && self.family == Family::Other => Family::Dcgm,
            _ => self.family,
        };
        let slot = match name.strip_prefix("vllm:") {
            None if name == "process_cpu_seconds_total" => &mut self.cpu_seconds,
            Some("num_requests_running") => &mut self.running,
            Some("num_requests_waiting") => &mut self.waiting,
            Some("prompt_tokens_total") => &mut self.prompt,
            Some("generation_tokens_total") => &mut self.generated,
            Some("iteration_tokens_total_count") => &mut self.steps,
            Some("num_preemptions_total") => &mut self.preemptions,
            Some("kv_cache_usage_perc" | "gpu_cache_usage_perc") => {
                self.kv_cache = Some(self.kv_cache.unwrap_or(0.0).max(value));
                return;
            }
            _ => return,
        };
        *slot = Some(slot.unwrap_or(0.0) + value);
    }
}

/// By how much a counter grew; `None` if it is not in both scrapes, or went back (the server restarted).
pub(super) fn growth(before: Option<f64>, after: Option<f64>) -> Option<i64> {
    whole(after? - before?).filter(|grown| *grown >= 0)
}

/// A count as a whole number.
pub(super) fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (value.abs() < EXACT).then_some(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_scrape() {
        let scrape = Scrape::read(include_str!("../../tests/data/vllm/metrics_under_load.txt"));
        assert_eq!((scrape.running, scrape.waiting, scrape.preemptions), (Some(8.0), Some(8.0), Some(0.0)));
        assert_eq!((scrape.generated, scrape.steps, scrape.family), (Some(14278.0), Some(8140.0), Family::Vllm));
        assert!((scrape.kv_cache.unwrap() - 0.000_488).abs() < 1e-6);
    }

    #[test]
    fn label_sets_add_up_and_old_names_count() {
        let text = "vllm:num_requests_running{e=\"0\"} 1\nvllm:num_requests_running{e=\"1\"} 2\nvllm:gpu_cache_usage_perc 0.5\n";
        let scrape = Scrape::read(text);
        assert_eq!((scrape.running, scrape.kv_cache, scrape.waiting), (Some(3.0), Some(0.5), None));
        assert_eq!(Scrape::read("nv_inference_count 1").family, Family::Triton);
        assert_eq!(Scrape::read("<html>").family, Family::Other);
    }

    /// A page for each version of the table: every name that its V1 engine has, with the suffixes that Prometheus' client adds.
    fn pages() -> Vec<(String, String)> {
        let table = include_str!("../../tests/data/vllm/metric_names_by_version.txt");
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).filter(|row: &Vec<_>| row.len() > 1).collect();
        let page = |column: usize| {
            let names = rows[1..].iter().filter(|row| row[column].contains("V1")).map(|row| row[0]);
            names.flat_map(|name| ["", "_total", "_sum", "_count"].map(|suffix| format!("{name}{suffix} 1\n"))).collect::<String>()
        };
        (1..rows[0].len()).map(|column| (rows[0][column].to_owned(), page(column))).collect()
    }

    #[test]
    fn every_version_has_the_names_that_are_read() {
        let pages = pages();
        assert!(pages.len() > 7 && pages[0].0 == "0.8.5", "{:?}", pages.iter().map(|(version, _)| version).collect::<Vec<_>>());
        for (version, page) in pages {
            let seen = Scrape::read(&page);
            let all = [seen.running, seen.waiting, seen.prompt, seen.generated, seen.steps, seen.kv_cache, seen.preemptions];
            assert!(all.iter().all(Option::is_some), "{version}: {seen:?}");
            let seen = crate::bench::scrape::Scrape::parse(&page);
            let counters = [seen.running, seen.waiting, seen.ended, seen.prompt_tokens, seen.output_tokens, seen.preemptions];
            assert!(counters.iter().all(Option::is_some), "{version}: {seen:?}");
            let times = [seen.ttft, seen.queue, seen.prefill, seen.decode];
            assert!(times.iter().all(|sum| sum.is_some_and(|sum| sum.count > 0.0 && sum.sum > 0.0)), "{version}: {seen:?}");
        }
    }

    #[test]
    fn a_counter_that_went_back_has_no_growth() {
        assert_eq!((growth(Some(3.0), Some(19.0)), growth(Some(3.0), Some(1.0)), growth(None, Some(1.0))), (Some(16), None, None));
        assert_eq!(growth(Some(0.0), Some(1e300)), None);
    }
}
