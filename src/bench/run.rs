//! A whole bench: look at the server, warm up, measure, look again, judge.

use super::bound::{Measured, bound};
use super::client::Target;
use super::drive::{Driven, Progress, Stop, drive};
use super::judge::{Validity, judge};
use super::ladder::{self, Ladder, Rung};
use super::plan::{Load, Plan};
use super::reconcile::{Reconciliation, reconcile};
use super::report::{Figures, Report, SCHEMA, stop_word};
use super::sample::Slo;
use super::scrape::{Scrape, scrape};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

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
    /// Requests are waiting on the server already: measuring would hurt them, and measure them.
    Waiting(u64),
    /// This machine could not.
    Io(io::Error),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waiting(n) => write!(f, "{n} requests are waiting on the server: it is not measured now"),
            Self::Io(error) => write!(f, "the client cannot run: {error}"),
        }
    }
}

impl Bench {
    /// Runs it. `stop` ends it early; the report then holds what there is.
    pub async fn run(&self, progress: Arc<Progress>, stop: watch::Sender<Option<Stop>>) -> Result<Report, Refused> {
        if let Ok(Scrape { waiting: Some(waiting), .. }) = scrape(&self.target).await
            && waiting >= 1.0
        {
            return Err(Refused::Waiting(waiting as u64));
        }
        let warmup = self.warm_up(&stop).await.map_err(Refused::Io)?;
        let outcome =
            if self.ladder { self.climb(warmup, &progress, &stop).await } else { self.once(&self.plan, warmup, &progress, &stop).await };
        outcome.map_err(Refused::Io)
    }

    /// Requests of their own, so that no cache that they fill helps a measured one; returns how many were complete.
    async fn warm_up(&self, stop: &watch::Sender<Option<Stop>>) -> io::Result<u32> {
        if self.plan.warmup == 0 {
            return Ok(0);
        }
        let concurrency = match self.plan.load {
            Load::Closed { concurrency } => concurrency,
            Load::Open { .. } => 4,
        };
        let load = Load::Closed { concurrency: concurrency.min(self.plan.warmup) };
        let plan = Plan { requests: self.plan.warmup, load, ..self.plan.clone() };
        let driven = drive(self.target.clone(), plan, self.plan.requests, Arc::default(), stop.subscribe()).await?;
        Ok(driven.samples.iter().filter(|s| s.complete()).count() as u32)
    }

    async fn once(&self, plan: &Plan, warmup: u32, progress: &Arc<Progress>, stop: &watch::Sender<Option<Stop>>) -> io::Result<Report> {
        let before = scrape(&self.target).await;
        let started_at = chrono::Utc::now();
        let watching = tokio::spawn(watch_queue(self.target.clone(), progress.clone(), stop.clone()));
        let driven = drive(self.target.clone(), plan.clone(), 0, progress.clone(), stop.subscribe()).await;
        watching.abort();
        let driven = driven?;
        let server = self.account(&driven, &before).await;
        Ok(self.report(plan, started_at, warmup, driven, server))
    }

    /// The server counts with its next step: it is asked again until it has counted everything, a few times.
    async fn account(&self, driven: &Driven, before: &Result<Scrape, String>) -> Reconciliation {
        let old = before.as_ref().map_err(String::as_str);
        let mut tries = SETTLE.0;
        loop {
            let after = scrape(&self.target).await;
            let account = reconcile(&driven.samples, old, after.as_ref().map_err(String::as_str));
            let behind = account.requests.server.is_some_and(|server| server < account.requests.client);
            tries -= 1;
            if !behind || tries == 0 {
                return account;
            }
            tokio::time::sleep(SETTLE.1).await;
        }
    }

    fn report(
        &self,
        plan: &Plan,
        started_at: chrono::DateTime<chrono::Utc>,
        warmup: u32,
        driven: Driven,
        server: Reconciliation,
    ) -> Report {
        let figures = Figures::of(plan, &driven, self.slo, self.goodput);
        let measured = Measured {
            samples: &driven.samples,
            tokens_per_s: figures.output_tokens_per_s.number().unwrap_or(0.0),
            pages_per_s: figures.pages_per_s.number(),
            window_ms: driven.client.window_ms,
            peak: driven.peak,
        };
        let bound = bound(&plan.model, self.gpu.as_deref(), &measured);
        let mut validity = judge(&driven.client);
        doubts(&mut validity, &server, bound.as_ref());
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            target: self.target.shown(),
            from: self.from.clone(),
            plan: plan.clone(),
            validity,
            stopped: driven.stopped.map(stop_word),
            figures,
            warmup_complete: warmup,
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

    async fn climb(&self, warmup: u32, progress: &Arc<Progress>, stop: &watch::Sender<Option<Stop>>) -> io::Result<Report> {
        let most = match self.plan.load {
            Load::Closed { concurrency } => concurrency,
            Load::Open { .. } => 1,
        };
        let (mut reports, mut rungs) = (Vec::new(), Vec::new());
        let mut ended = "the greatest concurrency that was asked for".to_owned();
        for concurrency in ladder::steps(most) {
            // Twice as many as at a time, so that most of a rung runs full.
            let requests = self.plan.requests.max(2 * concurrency);
            let plan = Plan { load: Load::Closed { concurrency }, requests, ..self.plan.clone() };
            let report = self.once(&plan, warmup, progress, stop).await?;
            rungs.push(rung(concurrency, &report));
            let stopped = report.stopped.clone();
            reports.push(report);
            if let Some(why) = stopped.or_else(|| ladder::ends(&rungs)) {
                ended = why;
                break;
            }
        }
        let ladder = Ladder::of(rungs, self.goodput, ended);
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
async fn watch_queue(target: Target, progress: Arc<Progress>, stop: watch::Sender<Option<Stop>>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let ours = progress.in_flight.load(Ordering::Relaxed);
        let Ok(scrape) = scrape(&target).await else { continue };
        let ours = ours.max(progress.in_flight.load(Ordering::Relaxed)) as f64;
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
