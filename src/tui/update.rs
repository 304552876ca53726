//! `update`: one message in, a changed model and effects out. Pure: it reads no clock and touches no terminal.

use super::filter::is_failure;
use super::keys::{self, Action};
use super::model::{Model, Panel, Phase, Place, Screen};
use super::view;
use crate::report::{LAYERS, Report};
use crate::run::{Run, RunEvent};
use chrono::{DateTime, Utc};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has a new size: columns, rows.
    Resize(u16, u16),
    /// Something happened in the run.
    Run(Box<RunEvent>),
    /// No more events will come from this run.
    RunEnded,
    /// A new report on the run.
    Report(Box<Report>),
    /// Time has passed.
    Tick(DateTime<Utc>),
}

/// Something for the loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the run again.
    Rerun,
    /// Cancel the run.
    Cancel,
    /// Leave.
    Quit,
}

/// Takes one message in.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(event) => return on_key(model, event),
        Msg::Paste(text) if model.typing => model.filter.extend(text.chars().filter(|c| !c.is_control()).take(200)),
        Msg::Paste(_) => {}
        Msg::Resize(columns, rows) => model.size = (columns, rows),
        Msg::Run(event) => on_event(model, &event),
        Msg::RunEnded => model.lost = model.run.finished_at.is_none(),
        Msg::Report(report) => model.report = Some(*report),
        Msg::Tick(now) => {
            model.now = now;
            model.spin = model.spin.wrapping_add(1);
        }
    }
    settle(model);
    Vec::new()
}

fn on_event(model: &mut Model, event: &RunEvent) {
    match event {
        RunEvent::Started { .. } => forget(model),
        RunEvent::Finished { .. } => model.cancelling = false,
        _ => {}
    }
    model.run.apply(event);
}

/// Nothing of an older run may stay on screen beside a newer one.
fn forget(model: &mut Model) {
    model.run = Run::new();
    model.report = None;
    model.cancelling = false;
    model.lost = false;
}

/// Keeps everything that is chosen or scrolled inside of what there is.
fn settle(model: &mut Model) {
    model.diagnosis = model.diagnosis.min(model.diagnoses().saturating_sub(1));
    model.finding_row = model.finding_row.min(model.findings().len().saturating_sub(1));
    scroll_to(model, model.scroll());
}

fn on_key(model: &mut Model, event: KeyEvent) -> Vec<Effect> {
    model.notice = None;
    let action = keys::lookup(event);
    let effects = if model.typing && action != Some(Action::Interrupt) {
        type_filter(model, event);
        Vec::new()
    } else {
        action.map_or_else(Vec::new, |action| act(model, action))
    };
    settle(model);
    effects
}

fn type_filter(model: &mut Model, event: KeyEvent) {
    match event.code {
        KeyCode::Enter => model.typing = false,
        KeyCode::Esc => {
            model.typing = false;
            model.filter.clear();
        }
        KeyCode::Backspace => {
            model.filter.pop();
        }
        KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => model.filter.clear(),
        KeyCode::Char(c) if !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => model.filter.push(c),
        KeyCode::Down => step(model, 1),
        KeyCode::Up => step(model, -1),
        _ => {}
    }
}

fn act(model: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Interrupt => return interrupt(model),
        Action::Rerun => return rerun(model),
        Action::Down => step(model, 1),
        Action::Up => step(model, -1),
        Action::PageDown => step(model, page_step(model)),
        Action::PageUp => step(model, -page_step(model)),
        Action::First => step(model, isize::MIN),
        Action::Last => step(model, isize::MAX),
        Action::Open => open(model),
        Action::Back => back(model),
        Action::Layer(layer) => go_to_layer(model, layer),
        Action::Overview => model.places.truncate(1),
        Action::NextPanel => next_panel(model),
        Action::NextFailure => go_to_failure(model, true),
        Action::PreviousFailure => go_to_failure(model, false),
        Action::FailuresOnly => failures_only(model),
        Action::Filter => start_filter(model),
        Action::Explain => enter(model, Screen::Explain),
        Action::Evidence => evidence(model),
        Action::Help => enter(model, Screen::Help),
    }
    Vec::new()
}

fn interrupt(model: &mut Model) -> Vec<Effect> {
    match model.phase() {
        Phase::Planning | Phase::Running => {
            model.cancelling = true;
            model.notice = Some("cancelling the run; ctrl+c again leaves".to_owned());
            vec![Effect::Cancel]
        }
        _ => vec![Effect::Quit],
    }
}

fn rerun(model: &mut Model) -> Vec<Effect> {
    if model.is_busy() {
        model.notice = Some("the run is still going on; ctrl+c cancels it".to_owned());
        return Vec::new();
    }
    forget(model);
    vec![Effect::Rerun]
}

/// Moves by rows: the scrolled page, the chosen row, or the shown diagnosis.
fn step(model: &mut Model, by: isize) {
    let moved = |from: usize, last: usize| from.saturating_add_signed(by).min(last);
    match (model.panel, model.screen().clone()) {
        (Panel::Diagnosis, _) => model.diagnosis = moved(model.diagnosis, model.diagnoses().saturating_sub(1)),
        (Panel::Findings, Screen::Overview) => model.finding_row = moved(model.finding_row, model.findings().len().saturating_sub(1)),
        (_, Screen::Overview) => model.layer_row = moved(model.layer_row, LAYERS.len() - 1),
        (_, Screen::Checks(_)) => {
            let listed = model.listed();
            let row = moved(model.chosen_row(&listed), listed.len().saturating_sub(1));
            model.chosen = listed.get(row).map(|r| r.planned.id.clone());
        }
        (_, Screen::Check(_) | Screen::Explain | Screen::Help) => scroll_to(model, model.scroll().saturating_add_signed(by)),
    }
}

fn page_step(model: &Model) -> isize {
    isize::try_from(view::page_rows(model).saturating_sub(1).max(1)).unwrap_or(1)
}

fn scroll_to(model: &mut Model, line: usize) {
    let last = view::last_scroll(model);
    if let Some(place) = model.places.last_mut() {
        place.scroll = line.min(last);
    }
}

/// Goes into a screen; going where one already is changes nothing, and no screen is on the way twice.
fn enter(model: &mut Model, screen: Screen) {
    if *model.screen() == screen {
        return;
    }
    if let Some(at) = model.places.iter().position(|p| p.screen == screen) {
        model.places.truncate(at + 1);
    } else {
        model.places.push(Place::top(screen));
    }
    model.panel = Panel::Main;
}

fn open(model: &mut Model) {
    let screen = match (model.panel, model.screen()) {
        (Panel::Diagnosis, _) => Some(Screen::Explain),
        (Panel::Findings, Screen::Overview) => model.findings().get(model.finding_row).map(|r| Screen::Check(r.planned.id.clone())),
        (_, Screen::Overview) => Some(Screen::Checks(Some(model.layer()))),
        (_, Screen::Checks(_)) => {
            let listed = model.listed();
            listed.get(model.chosen_row(&listed)).map(|r| Screen::Check(r.planned.id.clone()))
        }
        _ => None,
    };
    if let Some(screen) = screen {
        if let Screen::Check(id) = &screen {
            model.chosen = Some(id.clone());
        }
        enter(model, screen);
    }
}

fn back(model: &mut Model) {
    let narrowed = !model.filter.is_empty() || model.failures_only;
    if model.panel != Panel::Main {
        model.panel = Panel::Main;
    } else if narrowed && matches!(model.screen(), Screen::Checks(_)) {
        model.filter.clear();
        model.failures_only = false;
    } else if model.places.len() > 1 {
        model.places.pop();
    }
}

fn go_to_layer(model: &mut Model, layer: u8) {
    model.layer_row = LAYERS.iter().position(|(number, _)| *number == layer).unwrap_or(0);
    model.places.truncate(1);
    enter(model, Screen::Checks(Some(layer)));
}

fn next_panel(model: &mut Model) {
    let panels: &[Panel] = match model.screen() {
        Screen::Overview => &[Panel::Main, Panel::Findings, Panel::Diagnosis],
        Screen::Explain => &[Panel::Main],
        _ => &[Panel::Main, Panel::Diagnosis],
    };
    let at = panels.iter().position(|p| *p == model.panel).unwrap_or(0);
    model.panel = panels[(at + 1) % panels.len()];
}

/// To the next or previous failing check in plan order, round the end.
fn go_to_failure(model: &mut Model, forward: bool) {
    let current = match model.screen() {
        Screen::Check(id) => Some(id.clone()),
        Screen::Checks(_) => {
            let listed = model.listed();
            listed.get(model.chosen_row(&listed)).map(|row| row.planned.id.clone())
        }
        _ => None,
    };
    let Some((id, layer)) = failure_beside(model, current.as_deref(), forward) else {
        model.notice = Some("nothing has failed".to_owned());
        return;
    };
    model.chosen = Some(id.clone());
    model.panel = Panel::Main;
    match model.screen() {
        Screen::Checks(_) => show_in_list(model, &id, layer),
        Screen::Check(_) => {
            model.places.pop();
            enter(model, Screen::Check(id));
        }
        _ => enter(model, Screen::Check(id)),
    }
}

fn failure_beside(model: &Model, current: Option<&str>, forward: bool) -> Option<(String, u8)> {
    let at = current.and_then(|id| model.run.planned.iter().position(|p| p.id == id));
    let failing: Vec<(usize, _)> = model.run.rows().enumerate().filter(|(_, row)| is_failure(row)).collect();
    let found = match (at, forward) {
        (Some(at), true) => failing.iter().find(|(n, _)| *n > at).or(failing.first()),
        (Some(at), false) => failing.iter().rev().find(|(n, _)| *n < at).or(failing.last()),
        (None, true) => failing.first(),
        (None, false) => failing.last(),
    };
    found.map(|(_, row)| (row.planned.id.clone(), row.planned.layer))
}

/// Makes a check visible in the list: another layer or a filter must not hide it.
fn show_in_list(model: &mut Model, id: &str, layer: u8) {
    let listed = |model: &Model| model.listed().iter().any(|row| row.planned.id == id);
    if listed(model) {
        return;
    }
    if let Some(place) = model.places.last_mut()
        && matches!(place.screen, Screen::Checks(Some(_)))
    {
        place.screen = Screen::Checks(Some(layer));
    }
    if !listed(model) {
        model.filter.clear();
        model.notice = Some("the filter hid it and is cleared".to_owned());
    }
}

fn failures_only(model: &mut Model) {
    if matches!(model.screen(), Screen::Checks(_)) {
        model.failures_only = !model.failures_only;
    } else {
        model.failures_only = true;
        model.places.truncate(1);
        enter(model, Screen::Checks(None));
    }
}

fn start_filter(model: &mut Model) {
    if !matches!(model.screen(), Screen::Checks(_)) {
        model.places.truncate(1);
        enter(model, Screen::Checks(None));
    }
    model.panel = Panel::Main;
    model.typing = true;
}

fn evidence(model: &mut Model) {
    if matches!(model.screen(), Screen::Overview | Screen::Checks(_)) {
        open(model);
    }
    let line = view::page(model).and_then(|page| page.find_heading("Evidence"));
    match line {
        Some(line) => scroll_to(model, line),
        None => model.notice = Some("there is no raw evidence here".to_owned()),
    }
}

#[cfg(test)]
mod tests;
