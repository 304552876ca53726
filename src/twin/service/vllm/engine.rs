//! The engine: tokens at a pace, a freeze, and what it counts.

use super::metrics::{Counts, Finished};
use super::request::Work;
use super::{Pace, Vllm};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Events that wait for a slow reader.
const WAITING_EVENTS: usize = 64;
/// The text that the model writes, in tokens.
const PAGE: &[&str] = &[
    "#",
    " Vessel",
    " register",
    "\n\n",
    "|",
    " Name",
    " |",
    " Flag",
    " |",
    " IM",
    "O",
    " |",
    "\n",
    "|",
    "---",
    "|",
    "---",
    "|",
    "---",
    "|",
    "\n",
    "|",
    " Ocean",
    "ia",
    " |",
    " NO",
    " |",
    " ",
    "912",
    "345",
    "6",
    " |",
    "\n",
    "|",
    " Calyp",
    "so",
    " |",
    " PA",
    " |",
    " ",
    "987",
    "654",
    "3",
    " |",
    "\n",
];

/// One token, as the engine reports it to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// Its text.
    pub(super) text: &'static str,
    /// On the last token, why it is the last.
    pub(super) finish: Option<&'static str>,
}

struct State {
    served: Vllm,
    counts: Counts,
    load: (u32, u32),
}

/// The engine process.
pub(super) struct Engine {
    state: Mutex<State>,
    frozen: watch::Sender<bool>,
    started: SystemTime,
}

impl Engine {
    pub(super) fn new(served: Vllm) -> Self {
        let counts = Counts::new(served.max_model_len);
        Self { state: Mutex::new(State { served, counts, load: (0, 0) }), frozen: watch::Sender::new(false), started: SystemTime::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn served(&self) -> Vllm {
        self.state().served.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vllm)) {
        change(&mut self.state().served);
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    pub(super) fn set_load(&self, running: u32, waiting: u32) {
        self.state().load = (running, waiting);
    }

    /// Seconds since the epoch at which it started.
    pub(super) fn started(&self) -> u64 {
        self.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// The page of `/metrics`. It comes from the API process, so it is served while the engine is frozen.
    pub(super) fn metrics(&self) -> String {
        let state = self.state();
        state.counts.render(&state.served.model, state.load, self.started)
    }

    fn pace(&self) -> Pace {
        self.state().served.pace
    }

    /// Starts a request; its events end when it has finished. Dropping the receiver aborts it.
    pub(super) fn start(self: &Arc<Self>, work: &Work) -> mpsc::Receiver<Token> {
        let (events, receiver) = mpsc::channel(WAITING_EVENTS);
        let (engine, work) = (self.clone(), work.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = engine.run(&work, &events) => {}
                () = events.closed() => {}
            }
        });
        receiver
    }

    /// Waits while the engine is frozen.
    async fn thawed(&self) {
        // The sender is ours, so it lives as long as we do.
        self.frozen.subscribe().wait_for(|frozen| !frozen).await.ok();
    }

    async fn run(&self, work: &Work, events: &mpsc::Sender<Token>) {
        let arrived = Instant::now();
        self.thawed().await;
        let mut running =
            Running { engine: self, work, arrived, scheduled: Instant::now(), first: None, last: None, tokens: 0, ended: false };
        self.state().counts.running += 1;
        let mut due = Instant::now() + self.pace().first_token;
        for index in 0..work.max_tokens {
            tokio::time::sleep_until(due).await;
            self.thawed().await;
            let token = token(index, work);
            running.count_token();
            if events.send(token).await.is_err() {
                return;
            }
            if let Some(reason) = token.finish {
                running.finish(reason);
                return;
            }
            // After a freeze there is no burst to catch up.
            due = (due + self.pace().interval).max(Instant::now());
        }
    }
}

/// The token at an index. The end of the text is an empty token with reason `stop`, as the end-of-sequence token is.
fn token(index: u32, work: &Work) -> Token {
    let index = index as usize;
    let last = index + 1 == work.max_tokens as usize;
    if index >= PAGE.len() && !work.ignore_eos {
        return Token { text: "", finish: Some("stop") };
    }
    Token { text: PAGE[index % PAGE.len()], finish: last.then_some("length") }
}

/// A request in the batch; leaving it unfinished is an abort.
struct Running<'a> {
    engine: &'a Engine,
    work: &'a Work,
    arrived: Instant,
    scheduled: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    tokens: u32,
    ended: bool,
}

impl Running<'_> {
    fn count_token(&mut self) {
        let now = Instant::now();
        let mut state = self.engine.state();
        match self.last {
            None => state.counts.first_token(self.work.prompt_tokens, now - self.arrived),
            Some(last) => state.counts.next_token(now - last),
        }
        drop(state);
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tokens += 1;
    }

    fn finish(&mut self, reason: &'static str) {
        let span = |from: Option<Instant>, until: Option<Instant>| match (from, until) {
            (Some(from), Some(until)) => until - from,
            _ => Duration::ZERO,
        };
        let finished = Finished {
            reason,
            prompt_tokens: self.work.prompt_tokens,
            tokens: self.tokens,
            max_tokens: self.work.max_tokens,
            queued: self.scheduled - self.arrived,
            prefill: span(Some(self.scheduled), self.first),
            decode: span(self.first, self.last),
            whole: span(Some(self.arrived), self.last),
        };
        self.engine.state().counts.finished(&finished);
        self.ended = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        state.counts.running -= 1;
        if !self.ended {
            state.counts.aborted();
        }
    }
}
