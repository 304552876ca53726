//! The client's account against the server's, over the same window. Pure.

use super::sample::{Outcome, Sample};
use super::scrape::{Scrape, Sum};
use super::stats::{Figure, mean};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A count by both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Both {
    /// By this client.
    pub client: u64,
    /// By the server; `None` if it does not tell.
    pub server: Option<u64>,
}

/// What the two accounts say of each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reconciliation {
    /// Requests that ended.
    pub requests: Both,
    /// Output tokens.
    pub output_tokens: Both,
    /// Prompt tokens.
    pub prompt_tokens: Both,
    /// Requests on the server that this client did not send.
    pub foreign_requests: Option<u64>,
    /// Mean time to first token by this client, ms, from the first byte sent.
    pub client_ttft_ms: Figure,
    /// By the server, ms. The server's means are over all requests, those of others included.
    pub server_ttft_ms: Figure,
    /// Mean wait in the server's queue, ms.
    pub queue_ms: Figure,
    /// Mean prefill, ms.
    pub prefill_ms: Figure,
    /// Mean decode, ms.
    pub decode_ms: Figure,
    /// What lies between the two times to first token: network, HTTP and admission, ms.
    pub network_ms: Figure,
    /// Preemptions during the window.
    pub preemptions: Option<u64>,
    /// Prompt tokens that a cache answered for.
    pub cached_tokens: Option<u64>,
    /// Where most of the time before the first token goes: `queue`, `prefill` or `network`.
    pub mostly: Option<String>,
    /// Whether both accounts agree; `None` if the server does not tell.
    pub agrees: Option<bool>,
    /// What does not agree, or why nothing is known.
    pub notes: Vec<String>,
    /// The client saw tokens before the server made them, or more of them: the figures are wrong.
    pub impossible: bool,
}

/// The client may be this much faster than the server says, for rounding, ms and as a share.
const SLACK: (f64, f64) = (1.0, 0.01);

/// Compares. `why_not` is for a server that could not be scraped.
pub fn reconcile(samples: &[Sample], before: Result<&Scrape, &str>, after: Result<&Scrape, &str>) -> Reconciliation {
    let sent = samples.iter().filter(|s| s.sent_at.is_some() || s.outcome == Outcome::Cut).count() as u64;
    let tokens = |of: fn(&Sample) -> Option<u64>| samples.iter().filter_map(of).sum::<u64>();
    let (old, new, why) = match (before, after) {
        (Ok(old), Ok(new)) => (old.clone(), new.clone(), String::new()),
        (Err(why), _) | (_, Err(why)) => (Scrape::default(), Scrape::default(), format!("/metrics: {why}")),
    };
    let ended = growth(old.ended, new.ended);
    let ttft: Vec<f64> = samples.iter().filter(|s| s.complete()).filter_map(|s| s.ttft_ms).collect();
    let client_ttft = mean(&ttft);
    let mean_ms = |old: Option<Sum>, new: Option<Sum>| mean_growth(old, new).map(|s| s * 1000.0);
    let server_ttft = mean_ms(old.ttft, new.ttft);
    let (queue, prefill) = (mean_ms(old.queue, new.queue), mean_ms(old.prefill, new.prefill));
    let network = client_ttft.zip(server_ttft).map(|(client, server)| client - server);
    let figure = |value: Option<f64>| value.map_or_else(|| Figure::unknown(unknown(&why)), Figure::new);
    let mut r = Reconciliation {
        requests: Both { client: sent, server: ended },
        output_tokens: Both { client: tokens(|s| s.output_tokens), server: growth(old.output_tokens, new.output_tokens) },
        prompt_tokens: Both { client: tokens(|s| s.prompt_tokens), server: growth(old.prompt_tokens, new.prompt_tokens) },
        foreign_requests: ended.map(|server| server.saturating_sub(sent)),
        client_ttft_ms: client_ttft.map_or_else(|| Figure::unknown("no complete answer"), Figure::new),
        server_ttft_ms: figure(server_ttft),
        queue_ms: figure(queue),
        prefill_ms: figure(prefill),
        decode_ms: figure(mean_ms(old.decode, new.decode)),
        network_ms: figure(network),
        preemptions: growth(old.preemptions, new.preemptions),
        cached_tokens: growth(old.cache_hits, new.cache_hits),
        mostly: mostly(queue, prefill, network),
        agrees: None,
        notes: Vec::new(),
        impossible: false,
    };
    if why.is_empty() {
        compare(&mut r, samples, client_ttft.zip(server_ttft))
    } else {
        r.notes.push(why)
    }
    r
}

fn unknown(why: &str) -> &str {
    if why.is_empty() { "the server does not tell" } else { why }
}

fn compare(r: &mut Reconciliation, samples: &[Sample], ttft: Option<(f64, f64)>) {
    // An answer that broke off leaves tokens that only the server knows of.
    let whole = samples.iter().all(Sample::complete);
    if let Some(foreign) = r.foreign_requests.filter(|n| *n > 0) {
        r.notes.push(format!("{foreign} requests of others ended meanwhile: the server's means are not about this run alone"));
    }
    if let Some(server) = r.requests.server.filter(|server| *server < r.requests.client && whole) {
        r.notes.push(format!("the server counts {server} requests, this client {}", r.requests.client));
    }
    let tokens = r.output_tokens.server;
    if let Some(server) = tokens.filter(|server| *server < r.output_tokens.client) {
        r.impossible = true;
        r.notes.push(format!("this client counts {} output tokens, the server only {server}", r.output_tokens.client));
    }
    if let Some(server) = tokens.filter(|server| *server > r.output_tokens.client && whole && r.foreign_requests == Some(0)) {
        r.notes.push(format!("the server made {server} tokens, this client saw {}", r.output_tokens.client));
    }
    if let Some((client, server)) = ttft.filter(|(client, server)| *client < server - SLACK.0.max(server * SLACK.1)) {
        r.impossible |= r.foreign_requests == Some(0);
        r.notes.push(format!("first tokens came after {client:.1} ms here and after {server:.1} ms on the server"));
    }
    r.agrees = (r.requests.server.is_some() && tokens.is_some()).then_some(r.notes.is_empty());
}

fn mostly(queue: Option<f64>, prefill: Option<f64>, network: Option<f64>) -> Option<String> {
    let parts = [("queue", queue?), ("prefill", prefill?), ("network", network?)];
    parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, _)| name.to_owned())
}

/// By how much a counter grew; `None` if it is missing or went back (the server restarted).
fn growth(old: Option<f64>, new: Option<f64>) -> Option<u64> {
    let grown = (new? - old?).round();
    (0.0..9e15).contains(&grown).then_some(grown as u64)
}

fn mean_growth(old: Option<Sum>, new: Option<Sum>) -> Option<f64> {
    let (new, old) = (new?, old.unwrap_or_default());
    let (sum, count) = (new.sum - old.sum, new.count - old.count);
    (count > 0.0 && sum >= 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::good;
    use super::*;

    fn scrape(n: f64, ttft_s: f64) -> Scrape {
        let sum = |each: f64| Some(Sum { sum: n * each, count: n });
        Scrape {
            ended: Some(n),
            prompt_tokens: Some(n * 100.0),
            output_tokens: Some(n * 10.0),
            ttft: sum(ttft_s),
            queue: sum(0.0),
            prefill: sum(ttft_s),
            decode: sum(0.045),
            ..Scrape::default()
        }
    }

    fn samples(n: usize) -> Vec<Sample> {
        (0..n).map(|_| good(40.0, 5.0, 10)).collect()
    }

    #[test]
    fn equal_accounts_agree_and_time_is_told_apart() {
        let r = reconcile(&samples(8), Ok(&scrape(5.0, 0.030)), Ok(&scrape(13.0, 0.030)));
        assert_eq!((r.agrees, r.impossible, r.foreign_requests), (Some(true), false, Some(0)), "{r:?}");
        assert_eq!((r.network_ms.number(), r.prefill_ms.number(), r.mostly.as_deref()), (Some(10.0), Some(30.0), Some("prefill")));
    }

    #[test]
    fn foreign_traffic_is_seen() {
        let r = reconcile(&samples(8), Ok(&scrape(0.0, 0.03)), Ok(&scrape(11.0, 0.03)));
        assert_eq!((r.agrees, r.foreign_requests, r.impossible), (Some(false), Some(3), false));
        assert!(r.notes[0].starts_with("3 requests of others"));
    }

    #[test]
    fn tokens_that_the_server_never_made_are_impossible() {
        let after = Scrape { output_tokens: Some(70.0), ..scrape(8.0, 0.03) };
        assert!(reconcile(&samples(8), Ok(&scrape(0.0, 0.0)), Ok(&after)).impossible);
        let early = reconcile(&samples(8), Ok(&scrape(0.0, 0.0)), Ok(&scrape(8.0, 0.060)));
        assert!(early.impossible && early.notes[0].starts_with("first tokens came after 40.0 ms here and after 60.0 ms"));
    }

    #[test]
    fn a_server_that_does_not_tell_or_restarted_leaves_unknowns() {
        let r = reconcile(&samples(1), Err("HTTP 404"), Ok(&scrape(1.0, 0.1)));
        assert_eq!((r.agrees, r.notes.as_slice()), (None, &["/metrics: HTTP 404".to_owned()][..]));
        let restarted = reconcile(&samples(1), Ok(&scrape(9.0, 0.1)), Ok(&scrape(1.0, 0.1)));
        assert_eq!((restarted.requests.server, restarted.agrees), (None, None));
    }
}
