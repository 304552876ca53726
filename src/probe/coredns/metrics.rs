//! What CoreDNS' metrics say (plugins `prometheus`, `forward`, `cache`; names of CoreDNS 1.14).

use crate::check::{Observation, clean};
use std::collections::{BTreeMap, BTreeSet};

/// Upstreams, plugins and rcodes that are listed.
const MOST: usize = 32;

/// Records facts from the metrics of all pods together; unknown if no pod shows any.
pub(super) fn record(seen: &mut Observation, pages: &[Result<&str, &str>]) {
    const PATHS: [&str; 12] = [
        "version",
        "plugins",
        "cache_hits",
        "cache_misses",
        "forwarded",
        "upstreams",
        "upstream_failures",
        "upstreams_down",
        "panics",
        "servfail",
        "nxdomain",
        "noerror",
    ];
    let texts: Vec<&str> = pages.iter().filter_map(|page| page.ok()).collect();
    if texts.is_empty() {
        let why = pages.iter().find_map(|page| page.err()).unwrap_or("no CoreDNS pod is known");
        PATHS.iter().for_each(|path| _ = seen.facts.unknown(path, format!("no metrics: {why}")));
        return;
    }
    let totals = texts.into_iter().fold(Totals::default(), Totals::add);
    let rcode = |rcode: &str| totals.rcodes.get(rcode).copied().unwrap_or_default();
    seen.facts
        .set_or_unknown("version", totals.version.clone(), "the metrics do not name it")
        .set("plugins", totals.plugins.iter().cloned().collect::<Vec<_>>())
        .set("cache_hits", totals.cache_hits)
        .set("cache_misses", totals.cache_misses)
        .set("forwarded", totals.forwarded)
        .set("upstreams", totals.upstreams.iter().cloned().collect::<Vec<_>>())
        .set("upstream_failures", totals.failures)
        .set("upstreams_down", totals.down)
        .set("panics", totals.panics)
        .set("servfail", rcode("SERVFAIL"))
        .set("nxdomain", rcode("NXDOMAIN"))
        .set("noerror", rcode("NOERROR"));
}

/// Sums over pages.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    version: Option<String>,
    plugins: BTreeSet<String>,
    cache_hits: u64,
    cache_misses: u64,
    forwarded: u64,
    upstreams: BTreeSet<String>,
    failures: u64,
    down: u64,
    panics: u64,
    rcodes: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds one page.
    pub(crate) fn add(mut self, text: &str) -> Self {
        text.lines().for_each(|line| self.line(line));
        self
    }

    fn line(&mut self, line: &str) {
        let (head, labels) = line.split_once('{').unwrap_or_else(|| (line.split_whitespace().next().unwrap_or_default(), ""));
        let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).filter(|v| v.is_finite()).unwrap_or_default() as u64;
        if head.starts_with("coredns_proxy_") || head.starts_with("coredns_forward_") {
            insert(&mut self.upstreams, label(labels, "to"));
        }
        let sum = match head {
            "coredns_proxy_healthcheck_failures_total" => &mut self.failures,
            "coredns_forward_healthcheck_broken_total" => &mut self.down,
            "coredns_proxy_request_duration_seconds_count" => &mut self.forwarded,
            "coredns_cache_hits_total" => &mut self.cache_hits,
            "coredns_cache_misses_total" => &mut self.cache_misses,
            "coredns_panics_total" => &mut self.panics,
            "coredns_dns_responses_total" => match label(labels, "rcode").filter(|_| self.rcodes.len() < MOST) {
                Some(rcode) => self.rcodes.entry(clean(rcode, 16)).or_default(),
                None => return,
            },
            "coredns_plugin_enabled" if value == 1 => return insert(&mut self.plugins, label(labels, "name")),
            "coredns_build_info" => {
                self.version = label(labels, "version").map(|version| clean(version, 32));
                return;
            }
            _ => return,
        };
        // A hostile page may count beyond the end.
        *sum = sum.saturating_add(value);
    }

    /// Entries that the totals hold: bounded, whatever the pages say.
    pub(super) fn entries(&self) -> usize {
        self.plugins.len() + self.upstreams.len() + self.rcodes.len()
    }
}

fn insert(set: &mut BTreeSet<String>, text: Option<&str>) {
    if let Some(text) = text.filter(|_| set.len() < MOST) {
        set.insert(clean(text, 64));
    }
}

/// The value of a label in `a="b",c="d"} 1`; CoreDNS' own values hold no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let rest = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_metrics_name_the_upstream_and_its_failures() {
        let totals = Totals::default().add(include_str!("../../../tests/data/coredns/metrics-upstream-dropped.http"));
        assert_eq!(totals.upstreams.iter().map(String::as_str).collect::<Vec<_>>(), ["203.0.113.10:53"]);
        assert!(totals.failures > 0 && totals.down > 0 && totals.panics == 0);
        assert!(totals.rcodes["SERVFAIL"] > 0 && totals.rcodes["NXDOMAIN"] > 0);
    }

    #[test]
    fn captured_metrics_name_version_plugins_and_cache() {
        let totals = Totals::default().add(include_str!("../../../tests/data/coredns/metrics-healthy.http"));
        assert_eq!(totals.version.as_deref(), Some("1.14.7"));
        assert!(totals.plugins.contains("loop") && totals.plugins.contains("kubernetes"), "{:?}", totals.plugins);
        assert_eq!((totals.cache_hits, totals.cache_misses, totals.forwarded, totals.failures), (3, 37, 14, 0));
    }

    #[test]
    fn hostile_metrics_never_panic_and_stay_bounded() {
        for text in
            ["", "{", "coredns_proxy_x{to=\"", "coredns_dns_responses_total{rcode=\"A} NaN", "coredns_panics_total 1e400", "é{é=\"é"]
        {
            Totals::default().add(text);
        }
        let flood: String = (0..5000).map(|n| format!("coredns_proxy_x{{to=\"{n}\"}} 1\ncoredns_panics_total 1e19\n")).collect();
        let totals = Totals::default().add(&flood);
        assert_eq!((totals.entries(), totals.panics), (MOST, u64::MAX));
    }
}
