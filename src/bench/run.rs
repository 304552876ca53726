//! A whole bench: look at the server, warm up, measure, look again, judge.

use super::baseline::{self, Settings};
use super::bound::{Measured, bound};
use super::budget::Budget;
use super::client::Target;
use super::drive::{Driven, Progress, Stop, drive};
use super::judge::{Validity, judge};
use super::ladder::{self, Ladder, Rung};
use super::plan::{Load, Plan};
use super::reconcile::{Reconciliation, reconcile};
use super::report::{Figures, Report, SCHEMA, stop_word};
use super::sample::Slo;
use super::scrape::{Scrape, Serving, scrape, serving};
use crate::check::clean;
use chrono::{DateTime, Utc};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between two looks at the queue while a run goes on.
const LOOK: Duration = Duration::from_millis(500);
/// How often, and how far apart, the server is asked again if it has not counted everything yet.
const SETTLE: (u32, Duration) = (5, Duration::from_millis(200));

/// What to do and where.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The server.
    pub target: Target,
    /// The vantage's name, for the report.
    pub from: String,
    /// The GPU of the documents.
    pub gpu: Option<String>,
    /// What to send.
    pub plan: Plan,
    /// Limits of a good request.
    pub slo: Option<Slo>,
    /// The share that must be good.
    pub goodput: f64,
    /// Climb up to the plan's concurrency.
    pub ladder: bool,
}

/// Why nothing was measured.
#[derive(Debug)]
pub enum Refused {
    /// It would pass a ceiling, or sends nothing.
    Plan(String),
    /// The server has other models.
    NotServed(String, Vec<String>),
    /// Requests are waiting on the server already: measuring would hurt them, and measure them.
    Waiting(u64),
    /// This machine could not.
    Io(io::Error),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plan(why) => write!(f, "{why}"),
            Self::NotServed(model, others) => write!(f, "the server has no model `{}` but {}", clean(model, 200), others.join(", ")),
            Self::Waiting(n) => write!(f, "{n} requests are waiting on the server: it is not measured now"),
            Self::Io(error) => write!(f, "the client cannot run: {error}"),
        }
    }
}

/// What one run of a bench needs from the bench.
struct Run<'a> {
    bench: &'a Bench,
    budget: Arc<Budget>,
    progress: &'a Arc<Progress>,
    stop: &'a watch::Sender<Option<Stop>>,
    serving: Option<Serving>,
    /// Of the warm-up, whose requests are not among those that were asked for.
    warming: Arc<Progress>,
    warmup: u32,
}

impl Bench {
    /// The plans, one after the other: one, or a rung of the ladder each.
    pub fn plans(&self) -> Vec<Plan> {
        let Load::Closed { concurrency: most } = self.plan.load else { return vec![self.plan.clone()] };
        if !self.ladder {
            return vec![self.plan.clone()];
        }
        let rung = |concurrency: u32| {
            // Twice as many as at a time, so that most of a rung runs full.
            let requests = self.plan.requests.max(concurrency.saturating_mul(2));
            Plan { load: Load::Closed { concurrency }, requests, ..self.plan.clone() }
        };
        ladder::steps(most).into_iter().map(rung).collect()
    }

    /// All of it as one plan, for the ceilings.
    fn whole(&self) -> Plan {
        let requests = self.plans().iter().fold(0u32, |sum, plan| sum.saturating_add(plan.requests));
        Plan { requests, ..self.plan.clone() }
    }

    /// One sentence: what will be sent.
    pub fn statement(&self) -> String {
        let rungs = self.plans().len();
        let ladder = if self.ladder { format!(", on a ladder of up to {rungs} rungs that ends there") } else { String::new() };
        format!("{}{ladder}", self.whole().statement())
    }

    /// The clause that says why this must not be sent, if so.
    pub fn refused(&self) -> Option<String> {
        // A plan without requests is refused for itself: on a ladder it would have some.
        self.plan.refused().or_else(|| self.whole().refused())
    }

    /// Whether this can be held against a recorded run; the error says why not. Sends no completion.
    pub async fn comparable(&self, old: &Report) -> Result<(), String> {
        if self.ladder {
            return Err("a ladder chooses its load itself: it is not compared".to_owned());
        }
        let serving = serving(&self.target, &self.plan.model).await.ok();
        let target = self.target.shown();
        baseline::comparable(&Settings { target: &target, from: &self.from, plan: &self.plan, serving: serving.as_ref() }, old)
    }

    /// Runs it. `stop` ends it early; the report then holds what there is.
    pub async fn run(&self, progress: Arc<Progress>, stop: watch::Sender<Option<Stop>>) -> Result<Report, Refused> {
        self.run_within(Arc::new(Budget::new(&self.plan)), progress, stop).await
    }

    /// The same with what is left of a budget.
    pub(super) async fn run_within(
        &self,
        budget: Arc<Budget>,
        progress: Arc<Progress>,
        stop: watch::Sender<Option<Stop>>,
    ) -> Result<Report, Refused> {
        let serving = self.look().await?;
        let warming = Arc::new(Progress::default());
        // The queue of others is watched from the first request on.
        let ours = [progress.clone(), warming.clone()];
        let mut watching = JoinSet::new();
        watching.spawn(watch_queue(self.target.clone(), ours, stop.clone()));
        let mut run = Run { bench: self, budget, progress: &progress, stop: &stop, serving, warming, warmup: 0 };
        run.warmup = run.warm_up().await.map_err(Refused::Io)?;
        let outcome = if self.ladder { run.climb().await } else { run.once(&self.plan).await };
        drop(watching);
        outcome.map_err(Refused::Io)
    }

    /// What can be known without loading the server: whether it may be measured at all.
    async fn look(&self) -> Result<Option<Serving>, Refused> {
        if let Some(why) = self.refused() {
            return Err(Refused::Plan(why));
        }
        let serving = serving(&self.target, &self.plan.model).await.ok();
        if let Some(others) = serving.as_ref().filter(|s| !s.has(&self.plan.model)) {
            return Err(Refused::NotServed(self.plan.model.clone(), others.models.clone()));
        }
        match scrape(&self.target).await {
            Ok(Scrape { waiting: Some(waiting), .. }) if waiting >= 1.0 => Err(Refused::Waiting(waiting as u64)),
            _ => Ok(serving),
        }
    }
}

impl Run<'_> {
    /// Requests of their own, so that no cache that they fill helps a measured one; returns how many were complete.
    async fn warm_up(&self) -> io::Result<u32> {
        let plan = &self.bench.plan;
        if plan.warmup == 0 {
            return Ok(0);
        }
        let concurrency = match plan.load {
            Load::Closed { concurrency } => concurrency,
            Load::Open { .. } => 4,
        };
        let load = Load::Closed { concurrency: concurrency.min(plan.warmup) };
        let warmup = Plan { requests: plan.warmup, load, ..plan.clone() };
        let driven = self.drive(&warmup, plan.requests, &self.warming).await?;
        Ok(driven.samples.iter().filter(|s| s.complete()).count() as u32)
    }

    async fn drive(&self, plan: &Plan, first: u32, progress: &Arc<Progress>) -> io::Result<Driven> {
        let (target, budget) = (self.bench.target.clone(), self.budget.clone());
        drive(target, plan.clone(), first, budget, progress.clone(), self.stop.subscribe()).await
    }

    async fn once(&self, plan: &Plan) -> io::Result<Report> {
        let before = scrape(&self.bench.target).await;
        let started_at = Utc::now();
        let driven = self.drive(plan, 0, self.progress).await?;
        let server = self.account(&driven, &before).await;
        Ok(self.report(plan, started_at, driven, server))
    }

    /// The server counts with its next step: it is asked again until it has counted everything, a few times.
    async fn account(&self, driven: &Driven, before: &Result<Scrape, String>) -> Reconciliation {
        let old = before.as_ref().map_err(String::as_str);
        let mut tries = SETTLE.0;
        loop {
            let after = scrape(&self.bench.target).await;
            let account = reconcile(&driven.samples, old, after.as_ref().map_err(String::as_str));
            let behind = account.requests.server.is_some_and(|server| server < account.requests.client);
            tries -= 1;
            if !behind || tries == 0 {
                return account;
            }
            tokio::time::sleep(SETTLE.1).await;
        }
    }

    fn report(&self, plan: &Plan, started_at: DateTime<Utc>, driven: Driven, server: Reconciliation) -> Report {
        let bench = self.bench;
        let figures = Figures::of(plan, &driven, bench.slo, bench.goodput);
        let measured = Measured {
            samples: &driven.samples,
            tokens_per_s: figures.output_tokens_per_s.number().unwrap_or(0.0),
            pages_per_s: figures.pages_per_s.number(),
            window_ms: driven.client.window_ms,
            peak: driven.peak,
        };
        let bound = bound(&plan.model, bench.gpu.as_deref(), &measured);
        let mut validity = judge(&driven.client);
        doubts(&mut validity, &server, bound.as_ref());
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            target: bench.target.shown(),
            from: bench.from.clone(),
            plan: plan.clone(),
            validity,
            stopped: driven.stopped.map(stop_word),
            figures,
            serving: self.serving.clone(),
            warmup_complete: self.warmup,
            client: driven.client,
            server,
            bound,
            baseline: None,
            ladder: None,
            exit_code: 0,
            samples: driven.samples,
        };
        report.exit_code = report.judge();
        report
    }

    async fn climb(&self) -> io::Result<Report> {
        let (mut reports, mut rungs) = (Vec::new(), Vec::new());
        let mut ended = "the greatest concurrency that was asked for".to_owned();
        for plan in self.bench.plans() {
            let Load::Closed { concurrency } = plan.load else { break };
            let report = self.once(&plan).await?;
            rungs.push(rung(concurrency, &report));
            let stopped = report.stopped.clone();
            reports.push(report);
            if let Some(why) = stopped.or_else(|| ladder::ends(&rungs)) {
                ended = why;
                break;
            }
        }
        let ladder = Ladder::of(rungs, self.bench.goodput, ended);
        let interrupted = reports.last().is_some_and(|r| r.stopped.is_some());
        let at = ladder.rungs.iter().position(|r| Some(r.concurrency) == ladder.knee && !interrupted);
        let chosen = at.unwrap_or(reports.len().saturating_sub(1));
        let mut report = reports.swap_remove(chosen);
        report.ladder = Some(ladder);
        Ok(report)
    }
}

fn rung(concurrency: u32, report: &Report) -> Rung {
    let f = &report.figures;
    Rung {
        concurrency,
        output_tokens_per_s: f.output_tokens_per_s.clone(),
        ttft_p50_ms: f.ttft_ms.p50.clone(),
        tpot_p50_ms: f.tpot_ms.p50.clone(),
        e2e_p50_ms: f.e2e_ms.p50.clone(),
        goodput: f.goodput.map(|g| g.share),
        validity: report.validity.word(),
        failed: f.failed,
    }
}

/// What the server's account and physics say against the figures.
fn doubts(validity: &mut Validity, server: &Reconciliation, bound: Option<&super::bound::Bound>) {
    if server.impossible {
        validity.doubt("mismatch", server.notes.join("; "));
    }
    let ours = server.requests.client;
    if let Some(foreign) = server.foreign_requests.filter(|n| *n * 20 > ours.max(1)) {
        validity.doubt("foreign-load", format!("{foreign} requests of others ended beside {ours} of this run"));
    }
    if let Some(bound) = bound.filter(|b| b.impossible) {
        validity.doubt("above-limit", bound.notes.join("; "));
    }
}

/// Stops the run when requests that are not ours begin to wait: twice in a row, as gauges lag behind.
async fn watch_queue(target: Target, ours: [Arc<Progress>; 2], stop: watch::Sender<Option<Stop>>) {
    let mut seen = 0;
    let in_flight = || ours.iter().map(|progress| progress.in_flight.load(Ordering::Relaxed)).sum::<u64>();
    loop {
        tokio::time::sleep(LOOK).await;
        let before = in_flight();
        let Ok(scrape) = scrape(&target).await else { continue };
        let ours = before.max(in_flight()) as f64;
        let (running, waiting) = (scrape.running.unwrap_or(0.0), scrape.waiting.unwrap_or(0.0));
        seen = if waiting >= 1.0 && running + waiting > ours { seen + 1 } else { 0 };
        if seen >= 2 {
            stop.send_if_modified(|why| {
                let first = why.is_none();
                if first {
                    *why = Some(Stop::Polite);
                }
                first
            });
            return;
        }
    }
}
