//! What a person sees: the terminal program.
//!
//! One task owns the model and the terminal. Run events, keys and time become messages; [`update::update`] folds them into
//! the [`model::Model`]; [`view`] draws it when something has changed, at most 30 times a second. Nothing here waits for
//! the network, and everything but [`interactive`] is driven by tests.

pub mod ansi;
pub mod bench;
pub mod copy;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod keys;
pub mod live;
pub mod log;
mod looping;
pub mod model;
#[cfg(test)]
mod pty;
pub mod svg;
pub mod terminal;
#[cfg(test)]
pub(crate) mod tests;
pub mod theme;
pub mod update;
pub mod view;
pub mod writer;

pub use looping::run;
pub use terminal::{TerminalGuard, open_terminal, stop_signal};
pub use theme::Theme;

use crate::bench::drive::{Progress, Stop};
use crate::report::Report;
use crate::run::watch::Change;
use crate::run::{Again, Run, RunEvent};
use bench::Offer;
use chrono::{DateTime, Utc};
use crossterm::event::EventStream;
use ratatui::buffer::Buffer;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{oneshot, watch};

/// Where runs come from, and what they mean.
pub trait RunSource {
    /// Starts a run; its events end with `Finished`. Called again for a re-run, after the previous one has ended.
    fn start(&mut self) -> Receiver<RunEvent>;

    /// Asks the run to end early. Its remaining events still come, `Finished { interrupted: true, .. }` last.
    fn cancel(&mut self);

    /// The report on a run as far as it has come, diagnoses included. Called a few times a second at most, on the
    /// screen's own task: it must not wait for anything.
    fn report(&self, run: &Run) -> Report;

    /// Looks at some checks of a run again; the events begin with `Rechecking` and end with `Finished`. A source that
    /// cannot gives none.
    fn again(&mut self, _run: &Run, _what: &Again) -> Receiver<RunEvent> {
        channel(1).1
    }

    /// Changes of the network as they happen. The error says why they are not noticed.
    fn changes(&mut self) -> Result<Receiver<Change>, String> {
        Err("this source does not watch the network".to_owned())
    }

    /// The text that describes a check, by check id.
    fn describe(&self, _check: &str) -> Option<String> {
        None
    }

    /// Writes run and report into a new directory, one named after the run unless it is named. Returns at once; what came
    /// of it is told as a sentence.
    fn write(&self, _run: &Run, _report: &Report, _directory: Option<String>, tell: Sender<String>) {
        let _ = tell.try_send("this source cannot be written".to_owned());
    }

    /// What measuring a model server of the inventory (the first one, unless one is named) would send. Sends nothing.
    fn offer(&self, _server: Option<&str>) -> Result<Offer, String> {
        Err("there is no model server here".to_owned())
    }

    /// Begins to measure a server.
    fn measure(&mut self, _server: &str) -> Result<Measuring, String> {
        Err("there is no model server here".to_owned())
    }
}

/// A measurement under way.
pub struct Measuring {
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Its report as text, or why there is none.
    pub done: oneshot::Receiver<Result<String, String>>,
    /// Ends it early.
    pub stop: watch::Sender<Option<Stop>>,
}

/// What the terminal program needs to know from outside.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours and signs.
    pub theme: Theme,
    /// The clock, for the elapsed time that is shown.
    pub clock: fn() -> DateTime<Utc>,
}

/// Why the terminal program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// A person left.
    Quit,
    /// A person left and wants to keep the last screen.
    QuitKeeping,
    /// A signal asked for it.
    Signal,
    /// The terminal is gone.
    InputClosed,
}

/// What remains when the screen is gone.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The last run, as far as it came; [`Run::is_live`] tells whether it was left early.
    pub run: Run,
    /// The report on it; `None` if it had not begun.
    pub report: Option<Report>,
    /// Why it ended.
    pub leave: Leave,
    /// The last screen, for who wants to keep it.
    pub screen: Option<Buffer>,
}

/// Runs the program on the real terminal and restores the terminal afterwards, whatever happens.
///
/// # Errors
/// When the terminal can't be opened or written to.
pub async fn interactive(source: &mut impl RunSource, options: Options) -> anyhow::Result<Outcome> {
    let mut guard = open_terminal()?;
    let gate = guard.gate.clone();
    run(&mut guard.terminal, gate, source, EventStream::new(), stop_signal(), options).await
}
