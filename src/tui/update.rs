//! `update`: one message in, a changed model and effects out. Pure: it reads no clock and touches no terminal.

use super::bench::News;
use super::copy;
use super::keys::{self, Action};
use super::live::Watching;
use super::model::{Model, Phase, Screen, Typing};
use crate::report::Report;
use crate::run::watch::Change;
use crate::run::{Again, Run, RunEvent};
use chrono::{DateTime, Utc};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

mod again;
pub mod command;
mod go;
mod measure;

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
    /// The network has changed, and when that was noticed.
    Changed(Change, DateTime<Utc>),
    /// Changes are not noticed, and why.
    Unwatched(String),
    /// Changes are noticed from now on.
    Watched,
    /// A wait that was asked for is over.
    Waited,
    /// The text that describes a check.
    Described(String, Option<String>),
    /// A word about something that was asked for.
    Said(String),
    /// News of the measurement.
    Bench(Box<News>),
}

/// Something for the loop to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the run again.
    Rerun,
    /// Look at some checks of the run again.
    Again(Again),
    /// Cancel the run.
    Cancel,
    /// Say when a wait is over; a new one replaces an old one.
    Wait(Wait),
    /// Find the text that describes a check, by check id.
    Describe(String),
    /// Send a text to the terminal's clipboard.
    Copy(String),
    /// Write run and report into a new directory; `None`: one named after the run.
    Write(Option<String>),
    /// Say what a measurement would send; `None`: of the first server.
    BenchOffer(Option<String>),
    /// Measure this server.
    Bench(String),
    /// Stop the measurement.
    BenchStop,
    /// Give the terminal back and stop, until the shell says to go on.
    Suspend,
    /// Leave.
    Quit,
    /// Leave, and keep the last screen.
    QuitKeeping,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A moment, for more changes that belong to the first one.
    Settle,
    /// Until nothing has changed for a while.
    Quiet,
}

/// Takes one message in.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    let effects = match msg {
        Msg::Key(event) => return on_key(model, event),
        Msg::Paste(text) => {
            typed(model).into_iter().for_each(|line| line.extend(text.chars().filter(|c| !c.is_control()).take(LONGEST)));
            Vec::new()
        }
        Msg::Resize(columns, rows) => {
            model.size = (columns, rows);
            Vec::new()
        }
        Msg::Run(event) => on_event(model, &event),
        Msg::RunEnded => {
            model.lost = model.run.finished_at.is_none();
            Vec::new()
        }
        Msg::Report(report) => {
            model.report = Some(*report);
            Vec::new()
        }
        Msg::Tick(now) => {
            model.now = now;
            model.spin = model.spin.wrapping_add(1);
            Vec::new()
        }
        Msg::Changed(change, at) => again::changed(model, change, at),
        Msg::Watched => {
            model.live.watching = Watching::On;
            Vec::new()
        }
        Msg::Unwatched(why) => {
            model.log.word(model.now, format!("changes are not noticed: {why}"));
            model.live.watching = Watching::Not(why);
            Vec::new()
        }
        Msg::Waited => again::waited(model),
        Msg::Described(id, Some(text)) => {
            model.described = Some((id, text));
            Vec::new()
        }
        Msg::Described(id, None) => {
            model.notice = Some(format!("nothing is known about {id}"));
            Vec::new()
        }
        Msg::Said(word) => {
            model.log.word(model.now, word.clone());
            model.notice = Some(word);
            Vec::new()
        }
        Msg::Bench(news) => {
            model.bench.take(*news);
            again::after(model)
        }
    };
    settle(model);
    effects
}

fn on_event(model: &mut Model, event: &RunEvent) -> Vec<Effect> {
    match event {
        RunEvent::Started { run, at, planned, .. } => {
            forget(model);
            model.log.word(*at, format!("run {run} began: {} checks", planned.len()));
        }
        RunEvent::Rechecking { at, because, ids } => {
            model.log.word(*at, format!("looking again at {} checks: {because}", ids.len()));
            model.live.begins(because, ids);
            model.lost = false;
        }
        RunEvent::Probing { .. } => {}
        RunEvent::Judged { check } => {
            model.log.looked(check);
            model.live.judged(&check.id);
        }
        RunEvent::Finished { at, complete, interrupted } => {
            let how = if *interrupted { "was interrupted" } else { "ended" };
            model.log.word(*at, format!("the run {how}"));
            model.cancelling = false;
            // Who cancels wants quiet: the watch goes on when it is told to.
            model.live.paused |= *interrupted && model.live.again.is_some();
            model.live.ends(*complete);
        }
    }
    model.run.apply(event);
    if matches!(event, RunEvent::Finished { .. }) { again::after(model) } else { Vec::new() }
}

/// Nothing of an older run may stay on screen beside a newer one.
fn forget(model: &mut Model) {
    model.run = Run::new();
    model.report = None;
    model.cancelling = false;
    model.lost = false;
    model.live.forget();
}

/// Keeps everything that is chosen or scrolled inside of what there is.
fn settle(model: &mut Model) {
    model.diagnosis = model.diagnosis.min(model.diagnoses().saturating_sub(1));
    model.finding_row = model.finding_row.min(model.findings().len().saturating_sub(1));
    go::scroll_to(model, model.scroll());
}

/// Characters that a typed line may have.
const LONGEST: usize = 200;

/// The line that characters go into.
fn typed(model: &mut Model) -> Option<&mut String> {
    match model.typing? {
        Typing::Filter => Some(&mut model.filter),
        Typing::Command => Some(&mut model.command),
    }
}

fn on_key(model: &mut Model, event: KeyEvent) -> Vec<Effect> {
    model.notice = None;
    if !model.live.is_due() && model.live.again.is_none() {
        model.live.last = None;
    }
    let action = keys::lookup(event);
    let effects = if model.typing.is_some() && !matches!(action, Some(Action::Interrupt | Action::Suspend)) {
        type_into(model, event)
    } else {
        action.map_or_else(Vec::new, |action| act(model, action))
    };
    settle(model);
    effects
}

fn type_into(model: &mut Model, event: KeyEvent) -> Vec<Effect> {
    let plain = !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    match event.code {
        KeyCode::Enter if model.typing == Some(Typing::Command) => {
            model.typing = None;
            let command = std::mem::take(&mut model.command);
            return command::perform(model, &command);
        }
        KeyCode::Enter => model.typing = None,
        KeyCode::Esc => {
            typed(model).into_iter().for_each(String::clear);
            model.typing = None;
        }
        KeyCode::Tab if model.typing == Some(Typing::Command) => model.command = command::complete(&model.command),
        KeyCode::Down => go::step(model, 1),
        KeyCode::Up => go::step(model, -1),
        code => typed(model).into_iter().for_each(|line| match code {
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => line.clear(),
            KeyCode::Char(c) if plain && line.chars().count() < LONGEST => line.push(c),
            _ => {}
        }),
    }
    Vec::new()
}

fn act(model: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::QuitKeeping => return vec![Effect::QuitKeeping],
        Action::Interrupt => return interrupt(model),
        Action::Suspend => return vec![Effect::Suspend],
        Action::Rerun => return again::rerun(model),
        Action::Again => return again::one(model),
        Action::Verify => return again::verify(model),
        Action::Pause => return again::pause(model),
        Action::Describe => return go::describe(model),
        Action::Bench => return measure::ask(model, None),
        Action::Open if *model.screen() == Screen::Bench => return measure::agree(model),
        Action::Back if *model.screen() == Screen::Bench && model.bench.is_running() => return measure::stop(model).unwrap_or_default(),
        Action::CopyLine => return copied(model, copy::line(model)),
        Action::CopyMarkdown => return copied(model, copy::markdown(model)),
        Action::Write => return vec![Effect::Write(None)],
        Action::Down => go::step(model, 1),
        Action::Up => go::step(model, -1),
        Action::PageDown => go::step(model, go::page_step(model)),
        Action::PageUp => go::step(model, -go::page_step(model)),
        Action::First => go::step(model, isize::MIN),
        Action::Last => go::step(model, isize::MAX),
        Action::Open => go::open(model),
        Action::Back => go::back(model),
        Action::Layer(layer) => go::go_to_layer(model, layer),
        Action::Overview => model.places.truncate(1),
        Action::NextPanel => go::next_panel(model),
        Action::NextFailure => go::go_to_failure(model, true),
        Action::PreviousFailure => go::go_to_failure(model, false),
        Action::FailuresOnly => go::failures_only(model),
        Action::Filter => go::start_filter(model),
        Action::Explain => go::enter(model, Screen::Explain),
        Action::Evidence => go::evidence(model),
        Action::Matrix => go::enter(model, Screen::Matrix),
        Action::Log => go::enter(model, Screen::Log),
        Action::Help => go::enter(model, Screen::Help),
        Action::Zoom => model.zoom = !model.zoom,
        Action::Theme => {
            model.theme = model.theme.next();
            model.notice = Some(model.theme.name().to_owned());
        }
        Action::Command => {
            model.typing = Some(Typing::Command);
            model.command.clear();
        }
    }
    Vec::new()
}

fn copied(model: &mut Model, text: Option<String>) -> Vec<Effect> {
    if text.is_none() {
        model.notice = Some("there is nothing to copy here".to_owned());
    }
    text.map(Effect::Copy).into_iter().collect()
}

fn interrupt(model: &mut Model) -> Vec<Effect> {
    if let Some(stop) = measure::stop(model) {
        return stop;
    }
    match model.phase() {
        Phase::Planning | Phase::Running => {
            model.cancelling = true;
            model.notice = Some("cancelling the run; ctrl+c again leaves".to_owned());
            vec![Effect::Cancel]
        }
        _ => vec![Effect::Quit],
    }
}

#[cfg(test)]
mod tests;
