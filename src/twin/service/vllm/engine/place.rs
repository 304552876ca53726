//! A request's place: first in the queue, then in the batch. The engine's counts follow it in and, however it ends, out.

use super::super::metrics::Finished;
use super::super::request::Work;
use super::Engine;
use std::time::Duration;
use tokio::time::Instant;

/// A request that waits to be scheduled, for the gauge.
pub(super) struct Waiting<'a>(&'a Engine);

impl<'a> Waiting<'a> {
    pub(super) fn enter(engine: &'a Engine) -> Self {
        engine.state().waiting += 1;
        Self(engine)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// A request in the batch; leaving it unfinished is an abort.
pub(super) struct Running<'a> {
    engine: &'a Engine,
    work: &'a Work,
    arrived: Instant,
    scheduled: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    tokens: u32,
    ended: bool,
}

impl<'a> Running<'a> {
    pub(super) fn enter(engine: &'a Engine, work: &'a Work, arrived: Instant) -> Self {
        engine.state().counts.running += 1;
        Self { engine, work, arrived, scheduled: Instant::now(), first: None, last: None, tokens: 0, ended: false }
    }

    pub(super) fn count_token(&mut self) {
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

    pub(super) fn finish(&mut self, reason: &'static str) {
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
