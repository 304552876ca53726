//! Looking again: because a person asks, or because the network has changed.

use super::go::current_check;
use super::{Effect, Wait, forget};
use crate::run::Again;
use crate::run::watch::Change;
use crate::tui::live::Watching;
use crate::tui::model::{Model, Phase};
use chrono::{DateTime, Utc};

/// Whether nothing may be started now; says why.
fn is_held(model: &mut Model) -> bool {
    let why = match (model.is_busy(), model.bench.is_running()) {
        (true, _) => "the run is still going on; ctrl+c cancels it",
        (_, true) => "a measurement is going on: looking now would disturb it",
        _ => return false,
    };
    model.notice = Some(why.to_owned());
    true
}

/// Everything, from the start.
pub(super) fn rerun(model: &mut Model) -> Vec<Effect> {
    if is_held(model) {
        return Vec::new();
    }
    forget(model);
    vec![Effect::Rerun]
}

/// The check that one is at.
pub(super) fn one(model: &mut Model) -> Vec<Effect> {
    if is_held(model) {
        return Vec::new();
    }
    match current_check(model) {
        Some(id) if model.run.row(&id).is_some_and(|row| row.planned.decided.is_none()) => {
            look(model, vec![id], "asked for by a person".to_owned())
        }
        Some(id) => say(model, format!("{id} does not run here: it is skipped")),
        None => say(model, "choose a check first; R runs everything again".to_owned()),
    }
}

/// What must pass once the fix of the shown diagnosis has worked.
pub(super) fn verify(model: &mut Model) -> Vec<Effect> {
    if is_held(model) {
        return Vec::new();
    }
    let shown = model.report.as_ref().and_then(|r| r.diagnoses.get(model.diagnosis));
    let Some(d) = shown else { return say(model, "there is no diagnosis to verify a fix of".to_owned()) };
    let (ids, because) = (d.verify.iter().chain(&d.explains).cloned().collect(), format!("whether the fix of {} has worked", d.code));
    look(model, ids, because)
}

fn look(model: &mut Model, ids: Vec<String>, because: String) -> Vec<Effect> {
    if model.run.started_at.is_none() || model.phase() == Phase::Lost {
        return say(model, "there is no run to look again at; R runs everything".to_owned());
    }
    vec![Effect::Again(Again::Checks { ids, because })]
}

fn say(model: &mut Model, word: String) -> Vec<Effect> {
    model.notice = Some(word);
    Vec::new()
}

/// Holds what the watch would start, or lets it go on.
pub(super) fn pause(model: &mut Model) -> Vec<Effect> {
    if let Watching::Not(why) = &model.live.watching {
        let word = format!("nothing to hold: {why}");
        return say(model, word);
    }
    model.live.paused = !model.live.paused;
    let word = if model.live.paused { "paused: changes are noticed, nothing is re-checked until space" } else { "live again" };
    model.notice = Some(word.to_owned());
    after(model)
}

/// A change was noticed.
pub(super) fn changed(model: &mut Model, change: Change, at: DateTime<Utc>) -> Vec<Effect> {
    model.log.word(at, format!("changed: {change}"));
    // What was said before must not hide it.
    model.notice = None;
    let first = model.live.note(change, at);
    if first { after(model) } else { Vec::new() }
}

/// What to wait for, now that something may be due.
pub(super) fn after(model: &Model) -> Vec<Effect> {
    if !model.live.is_due() || model.live.paused || model.moves() || model.phase() == Phase::Lost {
        return Vec::new();
    }
    vec![Effect::Wait(if model.live.pending.is_empty() { Wait::Quiet } else { Wait::Settle })]
}

/// The wait is over.
pub(super) fn waited(model: &mut Model) -> Vec<Effect> {
    if model.moves() || model.phase() == Phase::Lost {
        return Vec::new();
    }
    model.live.next_again().map(Effect::Again).into_iter().collect()
}
