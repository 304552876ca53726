//! What kube-proxy says of itself, on the loopback of its node: why the rules are as they are.

use crate::check::{Facts, Observation, clean};
use crate::probe::Context;
use crate::probe::http_get::{HttpUrl, get};
use crate::probe::prometheus::samples;
use std::time::Duration;

/// It answers from memory, on the same machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Its answers: the body of a 200, else the status or the errno word.
pub(super) struct Word {
    health: Result<String, String>,
    mode: Result<String, String>,
    metrics: Result<String, String>,
}

/// Asks for health, mode and metrics.
pub(super) async fn ask(cx: &Context) -> Word {
    let (health, mode, metrics) = tokio::join!(
        one(cx, "http://127.0.0.1:10256/healthz"),
        one(cx, "http://127.0.0.1:10249/proxyMode"),
        one(cx, "http://127.0.0.1:10249/metrics")
    );
    Word { health, mode, metrics }
}

async fn one(cx: &Context, url: &'static str) -> Result<String, String> {
    let deadline = tokio::time::Instant::now() + cx.time_left(PATIENCE);
    let exchange = get(&cx.vantage, &HttpUrl::try_from(url.to_owned())?, None, deadline).await?;
    match exchange.status {
        0 => Err(exchange.error),
        // Of a long page the start is enough: kube-proxy's own metrics come before those of its process and client.
        200 => Ok(String::from_utf8_lossy(&exchange.body).into_owned()),
        other => Err(other.to_string()),
    }
}

impl Word {
    /// Records it; `now` is the time in seconds since 1970.
    pub(super) fn record(&self, seen: &mut Observation, now: i64) {
        let health = self.health.as_ref().map_or_else(String::as_str, |_| "ok");
        seen.note("kube-proxy", format!("127.0.0.1:10256/healthz: {}", clean(self.health.as_ref().unwrap_or_else(|word| word), 200)));
        seen.facts.set("healthz", clean(health, 64));
        match &self.mode {
            Ok(mode) => seen.facts.set("mode", clean(mode.trim(), 32)),
            Err(word) => seen.facts.unknown("mode", silent(word)),
        };
        self.synced(&mut seen.facts, now);
    }

    fn synced(&self, facts: &mut Facts, now: i64) {
        let text = match &self.metrics {
            Ok(text) => text,
            Err(word) => {
                facts.unknown("synced_s_ago", silent(word)).unknown("waiting_s", silent(word));
                return;
            }
        };
        // With two address families there is one sample of each: the older sync counts. Before the first sync it is 0.
        let of = |name: &str| samples(text).filter(|(n, v)| *n == name && *v > 0.0).map(|(_, v)| seconds(v)).min();
        let last = of("kubeproxy_sync_proxy_rules_last_timestamp_seconds");
        let queued = of("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds");
        let waiting = last.zip(queued).map(|(last, queued)| if queued > last { (now - queued).max(0) } else { 0 });
        facts.set_or_unknown("synced_s_ago", last.map(|last| (now - last).max(0)), "its metrics do not say");
        facts.set_or_unknown("waiting_s", waiting, "its metrics do not say");
    }
}

fn silent(word: &str) -> String {
    format!("127.0.0.1:10249 answers {}", clean(word, 64))
}

/// The conversion saturates.
#[allow(clippy::cast_possible_truncation, reason = "whole seconds are meant")]
fn seconds(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(health: Result<&str, &str>, mode: Result<&str, &str>, metrics: Result<&str, &str>) -> serde_json::Value {
        let owned = |answer: Result<&str, &str>| answer.map(str::to_owned).map_err(str::to_owned);
        let mut seen = Observation::default();
        Word { health: owned(health), mode: owned(mode), metrics: owned(metrics) }.record(&mut seen, 1000);
        seen.facts.to_json()
    }

    #[test]
    fn a_dead_one_is_told_from_one_that_hangs_and_from_one_that_keeps_up() {
        let metrics = |queued: &str, last: &str| {
            format!(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds {queued}\nkubeproxy_sync_proxy_rules_last_timestamp_seconds {last}\n"
            )
        };
        let well = facts(Ok("{}"), Ok("iptables"), Ok(&metrics("9.7e2", "971.5")));
        assert_eq!(well, json!({"healthz": "ok", "mode": "iptables", "synced_s_ago": 29, "waiting_s": 0}));
        let hangs = facts(Err("503"), Ok("nftables\n"), Ok(&metrics("950", "700")));
        assert_eq!(hangs, json!({"healthz": "503", "mode": "nftables", "synced_s_ago": 300, "waiting_s": 50}));
        let dead = facts(Err("ECONNREFUSED"), Err("ECONNREFUSED"), Err("ECONNREFUSED"));
        let silent = json!({"unknown": "127.0.0.1:10249 answers ECONNREFUSED"});
        assert_eq!(dead, json!({"healthz": "ECONNREFUSED", "mode": silent, "synced_s_ago": silent, "waiting_s": silent}));
    }

    #[test]
    fn what_was_never_synced_or_not_said_has_no_age() {
        let fresh = facts(Ok("{}"), Ok("nftables"), Ok("kubeproxy_sync_proxy_rules_last_timestamp_seconds 0\n"));
        assert_eq!(fresh["synced_s_ago"], json!({"unknown": "its metrics do not say"}));
        assert_eq!(fresh["waiting_s"], json!({"unknown": "its metrics do not say"}));
        let hostile = facts(Err("x\u{1b}[31m"), Ok("a\u{7}b"), Ok("kubeproxy_sync_proxy_rules_last_timestamp_seconds 1e300\n"));
        assert!(!hostile.to_string().contains("\\u001b") && !hostile.to_string().contains("\\u0007"), "{hostile}");
        assert_eq!(hostile["synced_s_ago"], json!(0));
    }
}
