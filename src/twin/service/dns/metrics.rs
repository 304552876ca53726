//! CoreDNS' metrics (1.14 names), as far as a diagnosis reads them.

use super::answer::Question;
use hickory_resolver::proto::op::ResponseCode;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddrV4;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the duration histograms, in seconds.
const BOUNDS: [&str; 16] = [
    "0.00025", "0.0005", "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024", "2.048",
    "4.096", "8.192",
];
/// Labels of the one server block.
const SERVER: &str = "server=\"dns://:53\"";
/// The plugins of K3s' Corefile that announce themselves.
const PLUGINS: [&str; 8] = ["cache", "errors", "forward", "hosts", "kubernetes", "loadbalance", "loop", "prometheus"];

#[derive(Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn record(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(bound.parse::<f64>().is_ok_and(|bound| seconds <= bound));
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let bounds = self.buckets.iter().zip(BOUNDS).chain([(&self.count, "+Inf")]);
        for (count, bound) in bounds {
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}").ok();
        }
        writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}", self.sum, self.count).ok();
    }
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<String, u64>,
    responses: BTreeMap<String, u64>,
    durations: Histogram,
    cache_hits: BTreeMap<&'static str, u64>,
    cache_misses: u64,
    cache_entries: (usize, usize),
    forwarded: BTreeMap<String, Histogram>,
    failures: BTreeMap<String, u64>,
    broken: u64,
}

/// Live counts.
pub(super) struct Metrics(Mutex<Counts>);

/// Escapes a label value; record types and codes are words, so this never changes them.
fn word(text: String) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets everything, as a new process does.
    pub(super) fn reset(&self) {
        self.change(|counts| *counts = Counts::default());
    }

    pub(super) fn answered(&self, question: &Question, code: ResponseCode, took: Duration) {
        let proto = if question.tcp { "tcp" } else { "udp" };
        let kind = word(question.kind.to_string());
        self.change(|counts| {
            *counts.requests.entry(format!("family=\"1\",proto=\"{proto}\",{SERVER},type=\"{kind}\",view=\"\",zone=\".\"")).or_default() +=
                1;
            *counts.responses.entry(format!("plugin=\"errors\",rcode=\"{}\",{SERVER},view=\"\",zone=\".\"", rcode(code))).or_default() += 1;
            counts.durations.record(took);
        });
    }

    /// A look into the cache: `None` is a miss, otherwise whether the entry is a denial.
    pub(super) fn looked_up(&self, hit: Option<bool>) {
        self.change(|counts| match hit {
            None => counts.cache_misses += 1,
            Some(denial) => *counts.cache_hits.entry(if denial { "denial" } else { "success" }).or_default() += 1,
        });
    }

    pub(super) fn set_cache_entries(&self, success: usize, denial: usize) {
        self.change(|counts| counts.cache_entries = (success, denial));
    }

    pub(super) fn forwarded(&self, upstream: SocketAddrV4, code: ResponseCode, took: Duration) {
        let labels = format!("proxy_name=\"forward\",rcode=\"{}\",to=\"{upstream}\"", rcode(code));
        self.change(|counts| counts.forwarded.entry(labels).or_default().record(took));
    }

    pub(super) fn upstream_failed(&self, upstream: SocketAddrV4) {
        self.change(|counts| *counts.failures.entry(format!("proxy_name=\"forward\",to=\"{upstream}\"")).or_default() += 1);
    }

    pub(super) fn all_upstreams_failed(&self) {
        self.change(|counts| counts.broken += 1);
    }

    /// The page.
    pub(super) fn render(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page(String::new());
        page.family(
            "coredns_build_info",
            "gauge",
            "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
        );
        page.value("coredns_build_info", "goversion=\"go1.26.8\",revision=\"\",version=\"1.14.7\"", 1);
        page.cache(&counts);
        page.family("coredns_dns_request_duration_seconds", "histogram", "Histogram of the time (in seconds) each request took per zone.");
        counts.durations.render(&mut page.0, "coredns_dns_request_duration_seconds", &format!("{SERVER},view=\"\",zone=\".\""));
        page.family("coredns_dns_requests_total", "counter", "Counter of DNS requests made per zone, protocol and family.");
        page.values("coredns_dns_requests_total", &counts.requests);
        page.family("coredns_dns_responses_total", "counter", "Counter of response status codes.");
        page.values("coredns_dns_responses_total", &counts.responses);
        page.family(
            "coredns_forward_healthcheck_broken_total",
            "counter",
            "Counter of the number of complete failures of the healthchecks.",
        );
        page.value("coredns_forward_healthcheck_broken_total", "", counts.broken);
        page.family(
            "coredns_forward_max_concurrent_rejects_total",
            "counter",
            "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        );
        page.value("coredns_forward_max_concurrent_rejects_total", "", 0);
        page.family("coredns_health_request_failures_total", "counter", "The number of times the health check failed.");
        page.value("coredns_health_request_failures_total", "", 0);
        page.family("coredns_panics_total", "counter", "A metrics that counts the number of panics.");
        page.value("coredns_panics_total", "", 0);
        page.family("coredns_plugin_enabled", "gauge", "A metric that indicates whether a plugin is enabled on per server and zone basis.");
        for plugin in PLUGINS {
            page.value("coredns_plugin_enabled", &format!("name=\"{plugin}\",{SERVER},view=\"\",zone=\".\""), 1);
        }
        page.family("coredns_proxy_healthcheck_failures_total", "counter", "Counter of the number of failed healthchecks.");
        page.values("coredns_proxy_healthcheck_failures_total", &counts.failures);
        page.family("coredns_proxy_request_duration_seconds", "histogram", "Histogram of the time each request took.");
        for (labels, histogram) in &counts.forwarded {
            histogram.render(&mut page.0, "coredns_proxy_request_duration_seconds", labels);
        }
        page.family("coredns_reload_failed_total", "counter", "Counter of the number of failed reload attempts.");
        page.value("coredns_reload_failed_total", "", 0);
        page.0
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn value(&mut self, name: &str, labels: &str, value: u64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.0, "{name}{labels} {value}").ok();
    }

    fn values(&mut self, name: &str, values: &BTreeMap<String, u64>) {
        for (labels, value) in values {
            self.value(name, labels, *value);
        }
    }

    fn cache(&mut self, counts: &Counts) {
        let of = |kind: &str| format!("{SERVER},type=\"{kind}\",view=\"\",zones=\".\"");
        let all = format!("{SERVER},view=\"\",zones=\".\"");
        self.family("coredns_cache_entries", "gauge", "The number of elements in the cache.");
        self.value("coredns_cache_entries", &of("denial"), counts.cache_entries.1 as u64);
        self.value("coredns_cache_entries", &of("success"), counts.cache_entries.0 as u64);
        self.family("coredns_cache_hits_total", "counter", "The count of cache hits.");
        for (kind, hits) in &counts.cache_hits {
            self.value("coredns_cache_hits_total", &of(kind), *hits);
        }
        self.family(
            "coredns_cache_misses_total",
            "counter",
            "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
        );
        self.value("coredns_cache_misses_total", &all, counts.cache_misses);
        self.family("coredns_cache_requests_total", "counter", "The count of cache requests.");
        self.value("coredns_cache_requests_total", &all, counts.cache_misses + counts.cache_hits.values().sum::<u64>());
    }
}

/// A response code as CoreDNS writes it.
fn rcode(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        _ => "OTHER",
    }
}
