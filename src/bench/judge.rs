//! Whether a run measured the server or the machine it ran on. Pure.
//!
//! A client that does not get the processor reads late and in lumps: then times to first token are too long, times per
//! token too short, and nothing in the figures shows it. So every run brings evidence about its own client.

use super::stats::{LEAST_FOR_P99, quantile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most of the window that the client may have waited for a processor.
pub const MOST_WAITING: f64 = 0.05;
/// Most that one turn of the client may have waited for a processor, on average, ms.
pub const MOST_WAIT_PER_TURN_MS: f64 = 0.5;
/// Most of one processor that the client may use: above this, events queue inside it.
pub const MOST_BUSY: f64 = 0.8;
/// Most that the client's loop may be behind, in the median and in the 99th percentile, ms.
pub const MOST_LAG_MS: (f64, f64) = (1.0, 5.0);
/// Most of the complete answers whose first or last token may have been read late (more than 1 ms and 1 % of its time): fewer move
/// neither the median nor the 90th percentile; and the same where the 99th percentile is told.
pub const MOST_READ_LATE: (f64, f64) = (0.05, 0.005);
/// Token events per read above which the times between events say nothing.
pub const MOST_EVENTS_PER_READ: f64 = 1.05;
/// Token events per read above which no time can be trusted.
const MOST_EVENTS_PER_READ_AT_ALL: f64 = 2.0;
/// Most that requests of an open loop may be sent late, in the 99th percentile, ms.
const MOST_SEND_LAG_MS: f64 = 10.0;

/// What the client noticed about itself during the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Client {
    /// The window, ms.
    pub window_ms: f64,
    /// Time that the client's thread ran, ms; `None` where the kernel does not tell.
    pub running_ms: Option<f64>,
    /// Time that it was ready to run and waited for a processor, ms (`/proc/PID/task/TID/schedstat`, second field).
    pub waiting_ms: Option<f64>,
    /// Turns on a processor (third field).
    pub turns: Option<u64>,
    /// How late the client's loop answered a regular signal, median, ms.
    pub lag_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub lag_p99_ms: Option<f64>,
    /// Complete answers of which the kernel stamped the first and the last token when they came.
    pub answers_stamped: u64,
    /// Those of them whose first or last token then lay in the client's socket for more than 1 ms and 1 % of its time.
    pub answers_read_late: u64,
    /// Token events of all requests.
    pub token_events: u64,
    /// Reads that brought them.
    pub token_reads: u64,
    /// How late requests were sent, 99th percentile, ms (open loop).
    pub send_lag_p99_ms: Option<f64>,
}

impl Client {
    /// Takes how late the loop was, sample by sample.
    pub fn set_lags(&mut self, mut lags: Vec<f64>) {
        lags.sort_by(f64::total_cmp);
        self.lag_p50_ms = quantile(&lags, 0.5);
        self.lag_p99_ms = quantile(&lags, 0.99);
    }

    /// Share of the answers that were read late; `None` where the kernel stamps nothing.
    pub fn read_late(&self) -> Option<f64> {
        (self.answers_stamped > 0).then(|| self.answers_read_late as f64 / self.answers_stamped as f64)
    }

    /// Token events for each read that brought any; 1 is healthy.
    pub fn events_per_read(&self) -> Option<f64> {
        (self.token_reads > 0).then(|| self.token_events as f64 / self.token_reads as f64)
    }
}

/// Whether the figures can be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// They can.
    pub valid: bool,
    /// Why not: stable codes, `client-limited`, `bursts`, `no-evidence`, `foreign-load`, `mismatch`.
    pub codes: Vec<String>,
    /// The same as sentences.
    pub reasons: Vec<String>,
}

impl Validity {
    /// Nothing against it.
    pub const fn good() -> Self {
        Self { valid: true, codes: Vec::new(), reasons: Vec::new() }
    }

    /// Adds a reason not to believe the figures.
    pub fn doubt(&mut self, code: &str, reason: impl Into<String>) {
        self.valid = false;
        if !self.codes.iter().any(|c| c == code) {
            self.codes.push(code.to_owned());
        }
        self.reasons.push(reason.into());
    }

    /// `valid`, or `invalid: CODE, CODE`.
    pub fn word(&self) -> String {
        if self.valid { "valid".to_owned() } else { format!("invalid: {}", self.codes.join(", ")) }
    }
}

/// Judges a run by what its client noticed.
pub fn judge(client: &Client) -> Validity {
    let mut validity = Validity::good();
    starved(client, &mut validity);
    saturated(client, &mut validity);
    late(client, &mut validity);
    lumps(client, &mut validity);
    if validity.valid && client.waiting_ms.is_none() && client.lag_p99_ms.is_none() && client.read_late().is_none() {
        validity.doubt("no-evidence", "nothing tells whether this client was starved");
    }
    validity
}

const LIMITED: &str = "client-limited";

fn starved(client: &Client, validity: &mut Validity) {
    let Some(waiting) = client.waiting_ms else { return };
    let share = waiting / client.window_ms;
    if share > MOST_WAITING {
        validity.doubt(LIMITED, format!("the client waited for a processor {:.0} % of the time", share * 100.0));
    }
    let per_turn = client.turns.filter(|t| *t > 0).map(|t| waiting / t as f64);
    if let Some(per_turn) = per_turn.filter(|w| *w > MOST_WAIT_PER_TURN_MS) {
        validity.doubt(LIMITED, format!("each of its turns waited {per_turn:.2} ms for a processor"));
    }
}

fn saturated(client: &Client, validity: &mut Validity) {
    let share = client.running_ms.map_or(0.0, |running| running / client.window_ms);
    if share > MOST_BUSY {
        validity.doubt(LIMITED, format!("the client used {:.0} % of its one processor", share * 100.0));
    }
}

fn late(client: &Client, validity: &mut Validity) {
    let above = |value: Option<f64>, most: f64| value.filter(|v| *v > most);
    if let Some(lag) = above(client.lag_p50_ms, MOST_LAG_MS.0) {
        validity.doubt(LIMITED, format!("its loop answered a timer {lag:.1} ms late (median)"));
    } else if let Some(lag) = above(client.lag_p99_ms, MOST_LAG_MS.1) {
        validity.doubt(LIMITED, format!("its loop answered a timer {lag:.1} ms late (99th percentile)"));
    }
    let most = if client.answers_stamped < LEAST_FOR_P99 as u64 { MOST_READ_LATE.0 } else { MOST_READ_LATE.1 };
    if above(client.read_late(), most).is_some() {
        let (late, all) = (client.answers_read_late, client.answers_stamped);
        validity.doubt(LIMITED, format!("it read the first or the last token of {late} of {all} answers late"));
    }
    if let Some(lag) = above(client.send_lag_p99_ms, MOST_SEND_LAG_MS) {
        validity.doubt(LIMITED, format!("requests were sent {lag:.1} ms after their time (99th percentile)"));
    }
}

/// Several events in one read: by a late reader, or gathered on the way (a proxy that buffers).
fn lumps(client: &Client, validity: &mut Validity) {
    let Some(lumps) = client.events_per_read().filter(|n| *n > MOST_EVENTS_PER_READ_AT_ALL) else { return };
    let sentence = format!("{lumps:.1} token events came with each read");
    if validity.valid {
        validity.doubt("bursts", format!("{sentence}, though the client was on time: something on the way gathers them"));
    } else {
        validity.doubt(LIMITED, sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invented, of the size that 64 streams with a core of their own have.
    fn healthy() -> Client {
        Client {
            window_ms: 4012.0,
            running_ms: Some(612.0),
            waiting_ms: Some(21.0),
            turns: Some(9800),
            lag_p50_ms: Some(0.06),
            lag_p99_ms: Some(0.41),
            answers_stamped: 256,
            answers_read_late: 2,
            token_events: 25_600,
            token_reads: 25_590,
            send_lag_p99_ms: None,
        }
    }

    #[test]
    fn a_client_with_a_core_of_its_own_is_believed() {
        assert_eq!(judge(&healthy()), Validity::good());
        assert_eq!(judge(&healthy()).word(), "valid");
    }

    #[test]
    fn each_sign_of_a_starved_client_suffices() {
        let starved: [fn(&mut Client); 8] = [
            |c| c.waiting_ms = Some(1900.0),
            |c| (c.waiting_ms, c.turns) = (Some(150.0), Some(200)),
            |c| c.running_ms = Some(3990.0),
            |c| c.lag_p50_ms = Some(1.4),
            |c| c.lag_p99_ms = Some(9.0),
            |c| c.send_lag_p99_ms = Some(30.0),
            |c| c.answers_read_late = 64,
            |c| (c.token_reads, c.waiting_ms) = (2000, Some(1900.0)),
        ];
        for (n, change) in starved.iter().enumerate() {
            let mut client = healthy();
            change(&mut client);
            assert_eq!(judge(&client).word(), "invalid: client-limited", "{n}");
        }
    }

    #[test]
    fn a_99th_percentile_bears_fewer_late_reads() {
        let few = |late| Client { answers_stamped: 1000, answers_read_late: late, ..healthy() };
        assert!(judge(&few(5)).valid && judge(&Client { answers_stamped: 100, ..few(5) }).valid);
        let v = judge(&few(6));
        assert_eq!(v.word(), "invalid: client-limited");
        assert_eq!(v.reasons, ["it read the first or the last token of 6 of 1000 answers late"]);
    }

    #[test]
    fn lumps_without_starvation_come_from_the_way() {
        let v = judge(&Client { token_reads: 2000, ..healthy() });
        assert_eq!(v.codes, ["bursts"]);
        assert!(v.reasons[0].starts_with("12.8 token events came with each read, though"));
    }

    #[test]
    fn without_any_evidence_there_is_no_belief() {
        let blind = Client { window_ms: 100.0, token_events: 1, token_reads: 1, ..Client::default() };
        assert_eq!(judge(&blind).codes, ["no-evidence"]);
        // Where the kernel has no schedstat, the lag of the loop is evidence.
        assert!(judge(&Client { running_ms: None, waiting_ms: None, turns: None, ..healthy() }).valid);
    }

    #[test]
    fn lags_are_summed_up() {
        let mut client = Client::default();
        client.set_lags((1..=100).rev().map(f64::from).collect());
        assert_eq!((client.lag_p50_ms, client.lag_p99_ms), (Some(50.0), Some(99.0)));
    }
}
