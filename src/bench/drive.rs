//! The client: a thread of its own with one event loop, which sends what the feeder prepares and reads every stream.

use super::budget::Budget;
use super::client::{self, Done, Job, Target};
use super::host::{Metronome, Schedstat};
use super::judge::Client;
use super::plan::{Input, Load, Plan};
use super::prompt;
use super::sample::{Outcome, Sample};
use super::stats::quantile;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Open loop: more requests than this are never in flight; an arrival that finds so many is a miss.
const MOST_IN_FLIGHT: usize = 2048;
/// Bodies that wait for a closed loop.
const PREPARED: usize = 64;
/// Times between tokens that are kept.
const MOST_GAPS: usize = 4 << 20;

/// Why a run ended before its plan did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The user interrupted it.
    Interrupted,
    /// The ceiling on time.
    Time,
    /// The ceiling on requests.
    Requests,
    /// The ceiling on tokens.
    Tokens,
    /// Requests of others began to wait.
    Polite,
}

/// What a live view may show.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests in flight.
    pub in_flight: AtomicU64,
    /// Requests that ended, and how many of them are complete.
    pub done: AtomicU64,
    /// Of these, complete ones.
    pub complete: AtomicU64,
    /// Output tokens of complete answers.
    pub tokens: AtomicU64,
    /// Sum of their times to first token, microseconds.
    pub ttft_us: AtomicU64,
}

impl Progress {
    fn ended(&self, sample: &Sample) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if sample.complete() {
            self.complete.fetch_add(1, Ordering::Relaxed);
            self.tokens.fetch_add(sample.output_tokens.unwrap_or(0), Ordering::Relaxed);
            self.ttft_us.fetch_add((sample.ttft() * 1000.0) as u64, Ordering::Relaxed);
        }
    }
}

/// What the client brings back.
#[derive(Debug, Default)]
pub struct Driven {
    /// Every request of the plan that was due.
    pub samples: Vec<Sample>,
    /// Times between token events of complete answers, ms.
    pub gaps: Vec<f32>,
    /// Its evidence about itself.
    pub client: Client,
    /// Most requests in flight at once.
    pub peak: u32,
    /// Why it ended early.
    pub stopped: Option<Stop>,
}

/// Runs a plan to its end, until `stop` says so, or until `budget` is used up. Blocks nothing: the work is done on a thread of
/// its own.
pub async fn drive(
    target: Target,
    plan: Plan,
    first: u32,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    stop: watch::Receiver<Option<Stop>>,
) -> io::Result<Driven> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(target, plan, first, budget, progress, stop))
    };
    std::thread::Builder::new().name("bench-client".to_owned()).spawn(move || {
        // A receiver that is gone has no use for the outcome.
        let _ = sender.send(work());
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the client's thread ended")))
}

/// Prepares the requests of a plan on a thread of its own, which ends when nobody takes them any more.
fn start_feeder(plan: &Plan, first: u32, began: Instant) -> io::Result<mpsc::Receiver<Job>> {
    let (sender, jobs) = mpsc::channel(PREPARED);
    let (plan, nonce) = (plan.clone(), super::random::nonce());
    std::thread::Builder::new().name("bench-feeder".to_owned()).spawn(move || feed(&plan, first, nonce, began, &sender))?;
    Ok(jobs)
}

/// Prepares bodies and hands each over: at its time in an open loop, as soon as there is room in a closed one.
fn feed(plan: &Plan, first: u32, nonce: u64, began: Instant, jobs: &mpsc::Sender<Job>) {
    let schedule = plan.schedule();
    for n in 0..plan.requests {
        let body = prompt::body(plan, first + n, nonce);
        let due = schedule.get(n as usize).map(|at| began + *at);
        while let Some(left) = due.and_then(|due| due.checked_duration_since(Instant::now())).filter(|left| !left.is_zero()) {
            // In slices, so that the thread ends soon after a run that was stopped.
            std::thread::sleep(left.min(Duration::from_millis(50)));
            if jobs.is_closed() {
                return;
            }
        }
        let job = Job { index: n, due, body, page: plan.input == Input::Image };
        if jobs.blocking_send(job).is_err() {
            return;
        }
    }
}

/// The event loop's state.
struct Loop {
    target: Arc<Target>,
    began: Instant,
    patience: Duration,
    progress: Arc<Progress>,
    budget: Arc<Budget>,
    running: JoinSet<Done>,
    driven: Driven,
    handed: u32,
}

async fn run(
    target: Target,
    plan: Plan,
    first: u32,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    mut stop: watch::Receiver<Option<Stop>>,
) -> io::Result<Driven> {
    let lags = Lags::listen()?;
    let limit = match plan.load {
        Load::Closed { concurrency } => concurrency as usize,
        Load::Open { .. } => MOST_IN_FLIGHT,
    };
    let open = matches!(plan.load, Load::Open { .. });
    // A moment for the feeder to prepare what an open loop needs first.
    let began = Instant::now() + if open { Duration::from_millis(20) } else { Duration::ZERO };
    let mut jobs = start_feeder(&plan, first, began)?;
    let mut state = Loop {
        target: Arc::new(target),
        began,
        patience: Duration::from_secs_f64(plan.request_seconds),
        progress,
        budget,
        running: JoinSet::new(),
        driven: Driven::default(),
        handed: 0,
    };
    let before = Schedstat::of_this_thread();
    let ceiling = state.budget.until();
    let mut feeding = true;
    while feeding || !state.running.is_empty() {
        let room = open || state.running.len() < limit;
        tokio::select! {
            biased;
            why = stopped(&mut stop) => { state.driven.stopped = Some(why); break; }
            () = tokio::time::sleep_until(ceiling) => { state.driven.stopped = Some(Stop::Time); break; }
            Some(done) = state.running.join_next() => state.take(done),
            job = jobs.recv(), if feeding && room => match job.map(|job| state.start(job, limit)) {
                Some(Ok(())) => {}
                None => feeding = false,
                // What is under way is inside the budget: it may end.
                Some(Err(why)) => {
                    state.driven.stopped = Some(why);
                    feeding = false;
                }
            },
        }
    }
    // Nobody may go on preparing for a run that has ended.
    drop(jobs);
    let after = Schedstat::of_this_thread();
    Ok(state.finish(&plan, before.zip(after).map(|(before, after)| after.since(before)), lags.so_far()).await)
}

/// How late the event loop reads a regular signal.
struct Lags {
    ms: Arc<Mutex<Vec<f64>>>,
    /// Listens; ends with this.
    _listener: JoinSet<()>,
}

impl Lags {
    fn listen() -> io::Result<Self> {
        let (mut metronome, ms) = (Metronome::start()?, Arc::new(Mutex::new(Vec::new())));
        let (heard, mut listener) = (ms.clone(), JoinSet::new());
        listener.spawn(async move {
            while let Some(lag) = metronome.lag().await {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(lag);
            }
        });
        Ok(Self { ms, _listener: listener })
    }

    fn so_far(&self) -> Vec<f64> {
        std::mem::take(&mut *self.ms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    let why = stop.wait_for(Option::is_some).await.ok().and_then(|why| *why);
    match why {
        Some(why) => why,
        // Nobody is left who could stop it.
        None => std::future::pending().await,
    }
}

impl Loop {
    fn start(&mut self, job: Job, limit: usize) -> Result<(), Stop> {
        self.handed += 1;
        if self.running.len() >= limit {
            let due = job.due.map(|due| due.saturating_duration_since(self.began).as_secs_f64() * 1000.0);
            self.driven.samples.push(Sample::unsent(job.index, due));
            return Ok(());
        }
        self.budget.take()?;
        let (target, began, patience) = (self.target.clone(), self.began, self.patience);
        self.running.spawn(async move { client::run(&target, job, began, patience).await });
        self.driven.peak = self.driven.peak.max(u32::try_from(self.running.len()).unwrap_or(u32::MAX));
        self.progress.in_flight.store(self.running.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let Ok(done) = done else {
            self.budget.settle(None);
            return;
        };
        self.progress.in_flight.store(self.running.len() as u64, Ordering::Relaxed);
        self.progress.ended(&done.sample);
        self.budget.settle(done.sample.prompt_tokens.zip(done.sample.output_tokens).map(|(read, made)| read + made));
        let room = MOST_GAPS.saturating_sub(self.driven.gaps.len());
        self.driven.gaps.extend(done.gaps.into_iter().take(room));
        self.driven.samples.push(done.sample);
    }

    async fn finish(mut self, plan: &Plan, spent: Option<Schedstat>, lags: Vec<f64>) -> Driven {
        let window = self.began.elapsed();
        let cut = self.running.len();
        self.running.shutdown().await;
        (0..cut).for_each(|_| self.budget.settle(None));
        self.driven.samples.sort_by_key(|s| s.index);
        self.missed(plan, window);
        let mut driven = self.driven;
        driven.samples.extend((0..cut).map(|_| Sample { outcome: Outcome::Cut, ..Sample::unsent(u32::MAX, None) }));
        let client = &mut driven.client;
        client.window_ms = window.as_secs_f64() * 1000.0;
        client.running_ms = spent.map(|s| s.running_ns as f64 / 1e6);
        client.waiting_ms = spent.map(|s| s.waiting_ns as f64 / 1e6);
        client.turns = spent.map(|s| s.turns);
        client.set_lags(lags);
        client.token_events = driven.samples.iter().map(|s| s.token_events).sum();
        client.token_reads = driven.samples.iter().map(|s| s.token_reads).sum();
        let read_late: Vec<bool> = driven.samples.iter().filter(|s| s.complete()).filter_map(Sample::read_late).collect();
        client.answers_stamped = read_late.len() as u64;
        client.answers_read_late = read_late.into_iter().filter(|late| *late).count() as u64;
        let mut late: Vec<f64> = driven.samples.iter().filter_map(send_lag).collect();
        late.sort_by(f64::total_cmp);
        client.send_lag_p99_ms = quantile(&late, 0.99);
        self.progress.in_flight.store(0, Ordering::Relaxed);
        driven
    }

    /// Arrivals whose time came and that were never handed over: the feeder could not keep up.
    fn missed(&mut self, plan: &Plan, window: Duration) {
        // Behind a ceiling nothing was due any more.
        if matches!(self.driven.stopped, Some(Stop::Requests | Stop::Tokens)) {
            return;
        }
        for (n, due) in plan.schedule().iter().enumerate().skip(self.handed as usize) {
            if *due <= window {
                let index = u32::try_from(n).unwrap_or(u32::MAX);
                self.driven.samples.push(Sample::unsent(index, Some(due.as_secs_f64() * 1000.0)));
            }
        }
    }
}

/// How late a request of an open loop was sent, the handshakes aside.
fn send_lag(sample: &Sample) -> Option<f64> {
    let handshakes = sample.connect_ms.unwrap_or(0.0) + sample.tls_ms.unwrap_or(0.0);
    Some((sample.sent_at? - sample.scheduled_at? - handshakes).max(0.0))
}
