//! The state of a run: a fold of its events. Pure, and without a clock: time comes with the events.

use super::event::{Planned, RunEvent};
use crate::check::Verdict;
use crate::report::{CheckReport, InventoryReport, Summary, VantageReport};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, HashMap};

/// What is known about a run after the events so far.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Identifier; empty before the first event.
    pub id: String,
    /// The inventory it goes by.
    pub inventory: Option<InventoryReport>,
    /// The places it looks from.
    pub vantages: Vec<VantageReport>,
    /// Every planned check, in report order.
    pub planned: Vec<Planned>,
    /// Probes under way, and when each began.
    pub running: BTreeMap<String, DateTime<Utc>>,
    /// When the run began.
    pub started_at: Option<DateTime<Utc>>,
    /// When checks were last begun to be looked at again, if they were.
    pub resumed_at: Option<DateTime<Utc>>,
    /// How many checks were looked at when it was last resumed, if that was only a part of them.
    pub resumed: Option<usize>,
    /// When it ended; `None` while it goes on.
    pub finished_at: Option<DateTime<Utc>>,
    /// Whether every planned check has a verdict of its own; false until the run has finished.
    pub complete: bool,
    /// Whether a person interrupted it.
    pub interrupted: bool,
    place: HashMap<String, usize>,
    judged: HashMap<String, CheckReport>,
    /// Whether the checks that are not looked at again had been left complete, and interrupted.
    rest: Option<(bool, bool)>,
}

/// A planned check and how far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The plan's entry.
    pub planned: &'a Planned,
    /// Its report, once it is judged.
    pub check: Option<&'a CheckReport>,
    /// When its probe began, while that is under way.
    pub running_since: Option<DateTime<Utc>>,
}

impl Row<'_> {
    /// The verdict, if there is one yet.
    pub fn verdict(&self) -> Option<Verdict> {
        self.check.map(|c| c.outcome).or(self.planned.decided)
    }
}

impl Run {
    /// A run of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after a whole stream of events.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RunEvent>) -> Self {
        let mut run = Self::new();
        events.into_iter().for_each(|event| run.apply(event));
        run
    }

    /// Takes one event in. A `Started` begins afresh, so one fold can follow re-runs.
    pub fn apply(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Started { run, at, inventory, vantages, planned } => {
                *self = Self {
                    id: run.clone(),
                    inventory: Some(inventory.clone()),
                    vantages: vantages.clone(),
                    planned: planned.clone(),
                    started_at: Some(*at),
                    place: planned.iter().enumerate().map(|(n, p)| (p.id.clone(), n)).collect(),
                    ..Self::default()
                };
            }
            RunEvent::Rechecking { at, ids, .. } => self.resume(*at, ids),
            RunEvent::Probing { id, at } => {
                self.running.insert(id.clone(), *at);
            }
            RunEvent::Judged { check } => self.judge(check),
            RunEvent::Finished { at, complete, interrupted } => {
                self.running.clear();
                self.finished_at = Some(*at);
                let (rest_complete, rest_interrupted) = self.rest.unwrap_or((true, false));
                self.complete = *complete && rest_complete;
                self.interrupted = *interrupted || rest_interrupted;
            }
        }
    }

    fn resume(&mut self, at: DateTime<Utc>, ids: &[String]) {
        let all = self.planned.iter().filter(|p| p.decided.is_none()).all(|p| ids.contains(&p.id));
        self.rest = (!all).then_some((self.complete, self.interrupted));
        self.resumed_at = Some(at);
        self.resumed = (!all).then_some(ids.len());
        self.finished_at = None;
        self.complete = false;
        self.interrupted = false;
    }

    fn judge(&mut self, check: &CheckReport) {
        self.running.remove(&check.id);
        if !self.place.contains_key(&check.id) {
            self.place.insert(check.id.clone(), self.planned.len());
            self.planned.push(plan_entry(check));
        }
        self.judged.insert(check.id.clone(), check.clone());
    }

    /// Events that fold to this run, probes under way aside.
    pub fn events(&self) -> Vec<RunEvent> {
        let (Some(at), Some(inventory)) = (self.started_at, self.inventory.clone()) else { return Vec::new() };
        let started =
            RunEvent::Started { run: self.id.clone(), at, inventory, vantages: self.vantages.clone(), planned: self.planned.clone() };
        let judged = self.checks_in_order().map(|check| RunEvent::Judged { check: Box::new(check.clone()) });
        let finished = self.finished_at.map(|at| RunEvent::Finished { at, complete: self.complete, interrupted: self.interrupted });
        std::iter::once(started).chain(judged).chain(finished).collect()
    }

    /// Whether probes may still be under way.
    pub fn is_live(&self) -> bool {
        self.started_at.is_some() && self.finished_at.is_none()
    }

    /// The report of a judged check.
    pub fn check(&self, id: &str) -> Option<&CheckReport> {
        self.judged.get(id)
    }

    /// One planned check.
    pub fn row(&self, id: &str) -> Option<Row<'_>> {
        self.place.get(id).and_then(|n| self.planned.get(*n)).map(|planned| self.row_of(planned))
    }

    /// Every planned check, in plan order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.planned.iter().map(|planned| self.row_of(planned))
    }

    fn row_of<'a>(&'a self, planned: &'a Planned) -> Row<'a> {
        Row { planned, check: self.check(&planned.id), running_since: self.running.get(&planned.id).copied() }
    }

    /// The judged checks, in plan order.
    pub fn checks_in_order(&self) -> impl Iterator<Item = &CheckReport> {
        self.planned.iter().filter_map(|planned| self.check(&planned.id))
    }

    /// A check's verdict: its own, or the one that the plan already decided.
    pub fn verdict_of(&self, id: &str) -> Option<Verdict> {
        self.row(id).and_then(|row| row.verdict())
    }

    /// Number of checks per verdict, so far.
    pub fn summary(&self) -> Summary {
        Summary::of(self.rows().filter_map(|row| row.verdict()))
    }

    /// How many planned checks have a verdict, and how many are planned.
    pub fn progress(&self) -> (usize, usize) {
        (self.rows().filter(|row| row.verdict().is_some()).count(), self.planned.len())
    }

    /// How long the run took, or has taken by `now`; since it was last resumed, if it was.
    pub fn elapsed(&self, now: DateTime<Utc>) -> TimeDelta {
        let Some(start) = self.resumed_at.or(self.started_at) else { return TimeDelta::zero() };
        (self.finished_at.unwrap_or(now) - start).max(TimeDelta::zero())
    }
}

/// A plan entry for a check that the plan did not announce, so that no verdict is ever dropped.
fn plan_entry(check: &CheckReport) -> Planned {
    Planned {
        id: check.id.clone(),
        check: check.check.clone(),
        layer: check.layer,
        title: check.title.clone(),
        vantage: check.vantage.clone(),
        needs: Vec::new(),
        decided: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    #[test]
    fn every_prefix_of_a_run_adds_up() {
        let events = fixture::blocked_vxlan();
        for n in 1..=events.len() {
            let run = Run::fold(&events[..n]);
            let (done, all) = run.progress();
            let judged = events[..n].iter().filter(|e| matches!(e, RunEvent::Judged { .. })).count();
            assert!(done >= judged && done <= all);
            assert_eq!(Verdict::ALL.iter().map(|v| run.summary().count(*v)).sum::<usize>(), done);
        }
    }

    #[test]
    fn plan_order_holds_whatever_order_the_verdicts_come_in() {
        let mut events = fixture::blocked_vxlan();
        let last = events.len() - 1;
        events[1..last].reverse();
        let run = Run::fold(&events);
        let planned: Vec<_> = run.planned.iter().filter(|p| run.check(&p.id).is_some()).map(|p| &p.id).collect();
        assert_eq!(run.checks_in_order().map(|c| &c.id).collect::<Vec<_>>(), planned);
        assert!(run.complete && !run.interrupted && !run.is_live() && run.running.is_empty());
    }

    #[test]
    fn a_verdict_that_was_not_planned_is_kept_and_a_new_start_forgets() {
        let mut run = Run::fold(&fixture::blocked_vxlan());
        let mut stray = run.checks_in_order().next().unwrap().clone();
        stray.id = "stray".into();
        run.apply(&RunEvent::Judged { check: Box::new(stray) });
        assert_eq!(run.checks_in_order().last().unwrap().id, "stray");
        run.apply(&fixture::blocked_vxlan()[0]);
        assert_eq!(run.checks_in_order().count(), 0);
        assert!(run.is_live());
        assert_eq!(run.verdict_of("tailscale-up[styx]"), Some(Verdict::Skip));
    }

    #[test]
    fn a_resumed_run_keeps_what_is_not_looked_at_again() {
        let events = fixture::blocked_vxlan();
        let mut run = Run::fold(&events);
        let (all, ids) = (run.progress(), vec!["flannel-device[calypso]".to_owned()]);
        run.apply(&RunEvent::Rechecking { at: fixture::at(9000), because: "a test".into(), ids: ids.clone() });
        assert!(run.is_live() && !run.complete && run.progress() == all);
        run.apply(&RunEvent::Finished { at: fixture::at(9500), complete: true, interrupted: false });
        assert!(run.complete && run.elapsed(fixture::at(0)) == TimeDelta::milliseconds(500));
        assert_eq!(run.resumed, Some(1), "that time is of one check");
        // What was never seen does not become complete because something else was seen.
        let mut cut = Run::fold(&events[..9]);
        cut.apply(&RunEvent::Finished { at: fixture::at(900), complete: false, interrupted: true });
        cut.apply(&RunEvent::Rechecking { at: fixture::at(9000), because: "a test".into(), ids });
        cut.apply(&RunEvent::Finished { at: fixture::at(9500), complete: true, interrupted: false });
        assert!(!cut.complete && cut.interrupted);
    }

    #[test]
    fn a_running_probe_is_seen_until_it_is_judged() {
        let mut run = Run::new();
        let events = fixture::blocked_vxlan();
        run.apply(&events[0]);
        let RunEvent::Probing { id, .. } = &events[1] else { panic!("the fixture begins with a probe") };
        run.apply(&events[1]);
        assert!(run.row(id).unwrap().running_since.is_some());
        assert_eq!(run.verdict_of(id), None);
    }
}
