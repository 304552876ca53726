//! Runs a plan: concurrently, in the order of needs, each probe with a deadline, the whole with one.

use super::event::RunEvent;
use super::plan::{Instance, Plan, Work};
use super::stall::Pulse;
use super::state::Run;
use crate::check::judge::{Judgement, judge};
use crate::check::{Observation, Verdict};
use crate::def::Catalog;
use crate::probe::{Context, Probe};
use crate::report::{CheckReport, ExpectationReport};
use crate::vantage::Vantage;
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The run's own deadline.
    pub timeout: Duration,
    /// Most probes under way at once.
    pub concurrency: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), concurrency: 32 }
    }
}

/// A run under way: read the events, and cancel if you must.
pub struct Running {
    /// The stream of events; it ends after [`RunEvent::Finished`].
    pub events: mpsc::Receiver<RunEvent>,
    cancel: watch::Sender<bool>,
}

impl Running {
    /// Stops as soon as possible; what has not been seen is reported as unknown.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    /// Splits off a handle that can cancel.
    pub fn split(self) -> (mpsc::Receiver<RunEvent>, watch::Sender<bool>) {
        (self.events, self.cancel)
    }
}

/// A verdict as dependants see it: none yet, or verdict and root.
type Known = Option<(Verdict, String)>;

/// Time a probe gets beyond its deadline to hand in what it has.
const GRACE: Duration = Duration::from_millis(500);

/// Begins a run on the current runtime.
pub fn start(plan: Plan, catalog: &Catalog, limits: Limits) -> Running {
    let started = RunEvent::Started {
        run: run_id(),
        at: Utc::now(),
        inventory: catalog.inventory_report.clone(),
        vantages: plan.vantage_reports(),
        planned: plan.outline(),
    };
    launch(started, plan, Earlier::default(), catalog, limits)
}

/// Looks again at the instances of a plan, which is part of the plan of `run`. Of what they need and is not looked at
/// again, the old verdicts count.
pub fn start_again(plan: Plan, run: &Run, because: String, catalog: &Catalog, limits: Limits) -> Running {
    let ids: Vec<String> = plan.instances.iter().map(|i| i.id.clone()).collect();
    let seen = run.checks_in_order().filter(|c| ids.contains(&c.id) && c.started_at.is_some()).map(|c| c.id.clone()).collect();
    let old = run.checks_in_order().filter(|c| !ids.contains(&c.id));
    let settled = old.map(|c| (c.id.clone(), (c.outcome, c.blocked_by.clone().unwrap_or_else(|| c.id.clone())))).collect();
    launch(RunEvent::Rechecking { at: Utc::now(), because, ids }, plan, Earlier { settled, seen }, catalog, limits)
}

/// What an earlier run has left.
#[derive(Default)]
struct Earlier {
    /// Verdicts, with their roots, of what is not looked at again.
    settled: HashMap<String, (Verdict, String)>,
    /// What is looked at again and had been seen: that stands if the new look is cut off.
    seen: HashSet<String>,
}

fn launch(first: RunEvent, plan: Plan, earlier: Earlier, catalog: &Catalog, limits: Limits) -> Running {
    let (events_in, events) = mpsc::channel(256);
    let (cancel, cancelled) = watch::channel(false);
    let inventory = catalog.inventory.clone();
    tokio::spawn(async move {
        if events_in.send(first).await.is_err() {
            return;
        }
        let deadline = Instant::now() + limits.timeout;
        let pulse = Pulse::start();
        let seats = Arc::new(Semaphore::new(limits.concurrency.max(1)));
        let mut board: HashMap<String, watch::Receiver<Known>> =
            earlier.settled.into_iter().map(|(id, known)| (id, watch::channel(Some(known)).1)).collect();
        let mut senders = Vec::new();
        for instance in plan.instances {
            let (known, watcher) = watch::channel::<Known>(None);
            board.insert(instance.id.clone(), watcher);
            senders.push((instance, known));
        }
        let mut tasks = JoinSet::new();
        for (instance, known) in senders {
            let needs = instance.needs.iter().filter_map(|n| Some((n.clone(), board.get(n)?.clone()))).collect();
            let runner = Runner {
                needs,
                known,
                seats: seats.clone(),
                cancelled: cancelled.clone(),
                deadline,
                pulse: pulse.clone(),
                inventory: inventory.clone(),
                events: events_in.clone(),
                seen_before: earlier.seen.contains(&instance.id),
            };
            tasks.spawn(runner.run(instance));
        }
        let mut complete = true;
        while let Some(done) = tasks.join_next().await {
            complete &= done.unwrap_or(false);
        }
        let interrupted = *cancelled.borrow();
        let _ = events_in.send(RunEvent::Finished { at: Utc::now(), complete: complete && !interrupted, interrupted }).await;
    });
    Running { events, cancel }
}

fn run_id() -> String {
    let now = Utc::now();
    format!("{}-{:05}", now.format("%Y%m%dT%H%M%S%3f"), std::process::id() % 100_000)
}

/// What one instance needs to run.
struct Runner {
    needs: Vec<(String, watch::Receiver<Known>)>,
    known: watch::Sender<Known>,
    seats: Arc<Semaphore>,
    cancelled: watch::Receiver<bool>,
    deadline: Instant,
    pulse: Pulse,
    inventory: Arc<crate::def::Inventory>,
    events: mpsc::Sender<RunEvent>,
    /// Whether a run that this one adds to has seen it.
    seen_before: bool,
}

/// How an instance ended, before it is a report.
enum End {
    Seen {
        seen: Seen,
        at: DateTime<Utc>,
        took: Duration,
    },
    Blocked {
        root: String,
        by: String,
        verdict: Verdict,
    },
    Skipped(String),
    /// The run ended first.
    CutOff(String),
}

/// What one instance saw in the end.
struct Seen {
    observation: Observation,
    judgement: Judgement,
    attempts: u32,
}

/// How to look, as often as it takes.
struct Look {
    probe: Arc<dyn Probe>,
    vantage: Arc<Vantage>,
    witness: Option<Arc<Vantage>>,
}

impl Runner {
    /// Whether the instance got a verdict of its own.
    async fn run(mut self, instance: Instance) -> bool {
        let mut instance = instance;
        let end = self.end(&mut instance).await;
        let own = !matches!(end, End::CutOff(_));
        let report = report(&instance, end);
        let root = report.blocked_by.clone().unwrap_or_else(|| report.id.clone());
        // A look that was cut off shows less than the earlier one: that stands, with its time.
        if own || !self.seen_before {
            self.known.send_replace(Some((report.outcome, root)));
            let _ = self.events.send(RunEvent::Judged { check: Box::new(report) }).await;
        }
        own
    }

    async fn end(&mut self, instance: &mut Instance) -> End {
        let work = std::mem::replace(&mut instance.work, Work::Skip(String::new()));
        let (probe, vantage, witness) = match work {
            Work::Skip(reason) => return End::Skipped(reason),
            Work::Probe { probe, vantage, witness } => (probe, vantage, witness),
        };
        let target = probe.target();
        let mut cancelled = self.cancelled.clone();
        let deadline = self.deadline;
        let ended = tokio::select! {
            biased;
            _ = cancelled.wait_for(|c| *c) => End::CutOff("the run was interrupted".to_owned()),
            end = self.look(instance, probe, vantage, witness) => end,
            () = tokio::time::sleep_until(deadline) => End::CutOff("the run's deadline passed".to_owned()),
        };
        instance.work = Work::Skip(target);
        ended
    }

    async fn look(&mut self, instance: &Instance, probe: Box<dyn Probe>, vantage: Arc<Vantage>, witness: Option<Arc<Vantage>>) -> End {
        for (need, watcher) in &mut self.needs {
            let known = match watcher.wait_for(Option::is_some).await {
                Ok(known) => known.clone(),
                Err(_) => None,
            };
            if let Some((verdict, root)) = known
                && !verdict.lets_dependants_run()
            {
                return End::Blocked { root, by: need.clone(), verdict };
            }
        }
        let Ok(_seat) = self.seats.clone().acquire_owned().await else { return End::CutOff("the run ended".to_owned()) };
        let at = Utc::now();
        let began = Instant::now();
        let _ = self.events.send(RunEvent::Probing { id: instance.id.clone(), at }).await;
        let look = Look { probe: probe.into(), vantage, witness };
        let seen = self.judged(instance, &look).await;
        End::Seen { seen, at, took: began.elapsed() }
    }

    /// Looks, and once more if the process stood still meanwhile and it is no pass: then nothing was proved.
    async fn judged(&self, instance: &Instance, look: &Look) -> Seen {
        let judge = |observation: &Observation| judge(observation, instance.root, &instance.bindings, &instance.expectations);
        let began = Instant::now();
        let observation = self.observation(instance, look).await;
        let judgement = judge(&observation);
        let stalled = self.pulse.stalled_since(began).filter(|_| judgement.verdict != Verdict::Pass);
        let Some(stalled) = stalled else { return Seen { observation, judgement, attempts: 1 } };
        let began = Instant::now();
        let mut observation = self.observation(instance, look).await;
        observation.note("stall", format!("looked twice: fathom itself stood still for {:.1} s at the first look", stalled.as_secs_f64()));
        let mut judgement = judge(&observation);
        // Whatever is unknown has its own reason, and a warning blames nobody.
        if judgement.verdict == Verdict::Fail
            && let Some(stalled) = self.pulse.stalled_since(began)
        {
            let stalled = stalled.as_secs_f64();
            observation.could_not_look = Some(format!("fathom itself stood still for {stalled:.1} s while it looked, twice"));
            judgement = judge(&observation);
        }
        Seen { observation, judgement, attempts: 2 }
    }

    async fn observation(&self, instance: &Instance, look: &Look) -> Observation {
        let deadline = (Instant::now() + instance.timeout).min(self.deadline);
        let cx = Context { vantage: look.vantage.clone(), witness: look.witness.clone(), inventory: self.inventory.clone(), deadline };
        let probe = look.probe.clone();
        // A task of its own: if the probe panics, it takes nothing else with it. Dropping the set ends it.
        let mut task = JoinSet::new();
        task.spawn(async move { probe.observe(&cx).await });
        match timeout_at(deadline + GRACE, task.join_next()).await {
            Ok(Some(Ok(observation))) => observation,
            Ok(_) => Observation::could_not_look("the probe broke off with an internal error"),
            Err(_) => Observation::could_not_look(format!("no result within {:.1} s", instance.timeout.as_secs_f64())),
        }
    }
}

/// What is known of an instance before it has an end.
fn unseen(instance: &Instance) -> CheckReport {
    CheckReport {
        id: instance.id.clone(),
        check: instance.check.clone(),
        layer: instance.layer,
        title: instance.title.clone(),
        outcome: Verdict::Unknown,
        vantage: instance.vantage.clone(),
        target: match &instance.work {
            Work::Skip(target) => target.clone(),
            Work::Probe { probe, .. } => probe.target(),
        },
        facts: serde_json::json!({}),
        expectations: Vec::new(),
        blocked_by: None,
        reason: None,
        attempts: 0,
        started_at: None,
        duration_ms: 0,
        evidence: Vec::new(),
        by_hand: instance.by_hand.clone(),
    }
}

fn report(instance: &Instance, end: End) -> CheckReport {
    let mut report = unseen(instance);
    match end {
        End::Seen { seen: Seen { observation, judgement, attempts }, at, took } => {
            report.outcome = judgement.verdict;
            report.reason = judgement.reason;
            report.expectations = judgement.expectations;
            report.facts = observation.facts.to_json();
            report.evidence = observation.evidence;
            report.attempts = attempts;
            report.started_at = Some(at);
            report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        }
        End::Blocked { root, by, verdict } => {
            report.outcome = Verdict::Blocked;
            report.reason = Some(format!("{by} is {verdict}"));
            report.blocked_by = Some(root);
            report.expectations = undecided(instance);
        }
        End::Skipped(reason) => {
            report.target = String::new();
            report.outcome = Verdict::Skip;
            report.reason = Some(reason);
        }
        End::CutOff(reason) => {
            report.reason = Some(reason);
            report.expectations = undecided(instance);
        }
    }
    report
}

fn undecided(instance: &Instance) -> Vec<ExpectationReport> {
    let scope = &instance.bindings;
    instance
        .expectations
        .iter()
        .map(|e| ExpectationReport {
            that: e.that.source().to_owned(),
            code: e.code.clone(),
            say: e.say.text_or_unknown(scope),
            grade: e.grade,
            held: None,
            values: Default::default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::Sources;
    use crate::run::Filter;
    use crate::vantage::{HostFiles, Net, Transport, VantageKind};

    const FORWARDS: &str = "ip-forward[calypso]";

    fn plan(catalog: &Catalog) -> Plan {
        let calypso = Vantage {
            id: "calypso".into(),
            kind: VantageKind::Node,
            transport: Transport::Local,
            why: String::new(),
            node: Some("calypso".into()),
            net: Net::Here,
            files: HostFiles::default(),
        };
        let filter = Filter { checks: vec!["ip-forward".into()], ..Filter::default() };
        Plan::make(catalog, &[Arc::new(calypso)], &filter).unwrap()
    }

    async fn follow(mut running: Running, run: &mut Run) {
        while let Some(event) = running.events.recv().await {
            run.apply(&event);
        }
    }

    /// The setting is read from `/proc`: no packet is sent.
    #[tokio::test]
    async fn a_second_look_that_is_cut_off_leaves_what_the_first_one_saw() {
        let catalog = Catalog::load(&Sources::default()).unwrap();
        let mut run = Run::new();
        follow(start(plan(&catalog), &catalog, Limits::default()), &mut run).await;
        let first = run.check(FORWARDS).unwrap().clone();
        assert!(first.started_at.is_some() && run.complete, "{first:?}");
        // One thread: nothing of the second run has begun yet when it is cancelled.
        let again = start_again(plan(&catalog).only(&[FORWARDS.to_owned()]), &run, "asked for".to_owned(), &catalog, Limits::default());
        again.cancel();
        follow(again, &mut run).await;
        let second = run.check(FORWARDS).unwrap();
        assert_eq!((second.outcome, second.started_at), (first.outcome, first.started_at), "{second:?}");
        assert!(!run.complete && run.interrupted && run.running.is_empty(), "the run still says that it was cut off");
        // What no look has seen yet is told as unknown, as before.
        let mut fresh = Run::new();
        let cut = start(plan(&catalog), &catalog, Limits::default());
        cut.cancel();
        follow(cut, &mut fresh).await;
        assert_eq!(fresh.check(FORWARDS).map(|c| c.outcome), Some(Verdict::Unknown));
    }
}
