//! The engine: tokens at a pace, a freeze, and what it counts.

mod place;
mod text;

use super::chunks::Details;
use super::fetch::Host;
use super::metrics::{Counts, Load};
use super::request::{Refusal, Work};
use super::{Pace, Vllm};
use crate::vantage::Net;
use place::{Running, Waiting};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub(super) use text::Token;
use text::{repeated, token};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Events that wait for a slow reader.
const WAITING_EVENTS: usize = 64;
/// Share of a core that the API server uses when it has nothing to do.
const IDLE_CPU: f64 = 0.02;
/// Tokens that a request gets from an engine that then dies.
const TOKENS_BEFORE_CRASH: u32 = 3;

/// What other clients make the server do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Their requests in the batch.
    pub running: u32,
    /// Their requests that wait.
    pub waiting: u32,
    /// Prompt tokens prefilled for them per second.
    pub prompt_per_s: u32,
    /// Tokens generated for them per second.
    pub generated_per_s: u32,
    /// How often per second one of them is preempted.
    pub preempted_per_s: u32,
    /// The share of the KV cache that they use, 0 to 1.
    pub kv_cache: f64,
    /// How long a new request waits before it is scheduled.
    pub queue: Duration,
}

/// What can be wrong with a server that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// The queue is full (`--max-num-queued-reqs`): new requests are refused with 503.
    QueueFull,
    /// The engine process dies at its next request: an error event in the stream, then 500, `/health` 503.
    Crash,
    /// `/metrics` answers 200 with an empty body (vllm#8612).
    NoMetrics,
    /// A request with an image runs out of GPU memory.
    OutOfMemory,
    /// The model that is served reads text alone.
    TextOnly,
    /// Repeats itself until `max_tokens`: the no-repeat n-gram processor is not loaded.
    Repetition,
    /// Preparing an image keeps the API server's one core busy for this many milliseconds.
    SlowPreprocessing(u32),
}

struct State {
    served: Vllm,
    counts: Counts,
    load: (u32, u32),
    traffic: Traffic,
    /// Until when the traffic has been counted.
    counted: Instant,
    /// Requests of ours that wait.
    waiting: u32,
    trouble: Trouble,
    crashed: bool,
    stream_interval: u32,
    details: bool,
    api_key: Option<String>,
    /// Processor time of the API server's preprocessing.
    cpu: Duration,
    host: Host,
}

/// The engine process.
pub(super) struct Engine {
    state: Mutex<State>,
    frozen: watch::Sender<bool>,
    started: SystemTime,
}

impl Engine {
    pub(super) fn new(served: Vllm, net: &Net) -> Self {
        let counts = Counts::new(served.max_model_len);
        let state = State {
            served,
            counts,
            load: (0, 0),
            traffic: Traffic::default(),
            counted: Instant::now(),
            waiting: 0,
            trouble: Trouble::None,
            crashed: false,
            stream_interval: 1,
            details: false,
            api_key: None,
            cpu: Duration::ZERO,
            host: Host { net: net.clone(), names: BTreeMap::new() },
        };
        Self { state: Mutex::new(state), frozen: watch::Sender::new(false), started: SystemTime::now() }
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
        let mut state = self.state();
        state.count_traffic();
        let traffic = state.traffic;
        let load = Load {
            running: state.load.0 + traffic.running,
            waiting: state.load.1 + traffic.waiting + state.waiting,
            kv_cache: traffic.kv_cache,
        };
        let idle = self.started.elapsed().unwrap_or_default().mul_f64(IDLE_CPU);
        state.counts.render(&state.served.model, &load, self.started, idle + state.cpu)
    }

    pub(super) fn set_traffic(&self, traffic: Traffic) {
        let mut state = self.state();
        state.count_traffic();
        state.traffic = traffic;
    }

    pub(super) fn set_trouble(&self, trouble: Trouble) {
        let mut state = self.state();
        state.trouble = trouble;
        state.crashed = false;
    }

    pub(super) fn set_stream_interval(&self, tokens: u32) {
        self.state().stream_interval = tokens;
    }

    pub(super) fn stream_interval(&self) -> u32 {
        self.state().stream_interval
    }

    pub(super) fn set_details(&self, details: bool) {
        self.state().details = details;
    }

    /// What it adds to its answers, if it was told to.
    pub(super) fn details(&self) -> Option<Details> {
        let state = self.state();
        state.details.then_some(Details(state.served.pace))
    }

    pub(super) fn set_api_key(&self, key: Option<&str>) {
        self.state().api_key = key.map(str::to_owned);
    }

    /// Whether an `Authorization` header opens the API.
    pub(super) fn admits_key(&self, authorization: Option<&[u8]>) -> bool {
        let wanted = self.state().api_key.as_ref().map(|key| format!("Bearer {key}"));
        wanted.is_none_or(|wanted| authorization == Some(wanted.as_bytes()))
    }

    pub(super) fn change_host(&self, change: impl FnOnce(&mut Host)) {
        change(&mut self.state().host);
    }

    pub(super) fn host(&self) -> Host {
        self.state().host.clone()
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.state().trouble
    }

    pub(super) fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// What the server refuses before the engine sees it.
    pub(super) fn admit(&self, work: &Work) -> Result<(), Refusal> {
        let mut state = self.state();
        match state.trouble {
            _ if state.crashed => Err(Refusal::dead()),
            Trouble::QueueFull => {
                state.counts.rejected += 1;
                Err(Refusal::busy())
            }
            Trouble::OutOfMemory if work.images > 0 => Err(Refusal::out_of_memory()),
            Trouble::TextOnly if work.images > 0 => Err(Refusal::not_multimodal(&state.served.model)),
            Trouble::Repetition => Ok(()),
            _ => work.ngram_size.as_ref().map_or(Ok(()), check_ngram_size),
        }
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

    /// Waits behind what other clients have sent.
    async fn queued(&self) {
        let queue = self.state().traffic.queue;
        if !queue.is_zero() {
            let _waiting = Waiting::enter(self);
            tokio::time::sleep(queue).await;
        }
    }

    /// Prepares a request's images, before its headers leave.
    pub(super) async fn preprocess(&self, work: &Work) {
        if let (Trouble::SlowPreprocessing(ms), true) = (self.trouble(), work.images > 0) {
            const STEP: Duration = Duration::from_millis(100);
            for _ in 0..ms / 100 {
                let began = Instant::now();
                tokio::time::sleep(STEP).await;
                // However late this machine wakes it up, it is busy all that time.
                self.state().cpu += began.elapsed();
            }
        }
    }

    async fn run(&self, work: &Work, events: &mpsc::Sender<Token>) {
        let arrived = Instant::now();
        self.thawed().await;
        self.queued().await;
        let mut running = Running::enter(self, work, arrived);
        let mut due = Instant::now() + self.pace().first_token;
        for index in 0..work.max_tokens {
            tokio::time::sleep_until(due).await;
            self.thawed().await;
            let trouble = self.trouble();
            if trouble == Trouble::Crash && index >= TOKENS_BEFORE_CRASH {
                self.state().crashed = true;
                let _ = events.send(Token { text: "", finish: None, died: true }).await;
                return;
            }
            let token = if trouble == Trouble::Repetition && work.images > 0 { repeated(index, work) } else { token(index, work) };
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

/// What the no-repeat n-gram processor refuses: anything but a positive whole number, and a text that reads like one too.
fn check_ngram_size(size: &Value) -> Result<(), Refusal> {
    if size.as_i64().is_some_and(|size| size > 0) {
        return Ok(());
    }
    Err(Refusal::ngram_size(size.as_str().map_or_else(|| size.to_string(), str::to_owned).as_str()))
}

impl State {
    /// Counts what the others' requests have made since the last time.
    fn count_traffic(&mut self) {
        let now = Instant::now();
        let elapsed = now - self.counted;
        let grown = |per_s: u32| (f64::from(per_s) * elapsed.as_secs_f64()) as u64;
        let Traffic { prompt_per_s, generated_per_s, preempted_per_s, .. } = self.traffic;
        let (prompt, generated, preempted) = (grown(prompt_per_s), grown(generated_per_s), grown(preempted_per_s));
        // The slowest of them sets the pace: less than one of something would be lost.
        let slowest = [prompt_per_s, generated_per_s, preempted_per_s].into_iter().filter(|rate| *rate > 0).min();
        if slowest.is_none_or(|rate| grown(rate) > 0) {
            self.counts.others(prompt, generated, preempted);
            self.counted = now;
        }
    }
}
