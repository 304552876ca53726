//! What a person sees: the terminal program.
//!
//! One task owns the model and the terminal. Run events, keys and time become messages; [`update::update`] folds them into
//! the [`model::Model`]; [`view`] draws it when something has changed, at most 30 times a second. Nothing here waits for
//! the network, and everything but [`interactive`] is driven by tests.

pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod keys;
mod looping;
pub mod model;
#[cfg(test)]
mod pty;
pub mod svg;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod view;

pub use looping::run;
pub use terminal::{TerminalGuard, open_terminal, stop_signal};
pub use theme::Theme;

use crate::report::Report;
use crate::run::{Run, RunEvent};
use chrono::{DateTime, Utc};
use crossterm::event::EventStream;
use tokio::sync::mpsc::Receiver;

/// Where runs come from, and what they mean.
pub trait RunSource {
    /// Starts a run; its events end with `Finished`. Called again for a re-run, after the previous one has ended.
    fn start(&mut self) -> Receiver<RunEvent>;

    /// Asks the run to end early. Its remaining events still come, `Finished { interrupted: true, .. }` last.
    fn cancel(&mut self);

    /// The report on a run as far as it has come, diagnoses included. Called a few times a second at most, on the
    /// screen's own task: it must not wait for anything.
    fn report(&self, run: &Run) -> Report;
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
}

/// Runs the program on the real terminal and restores the terminal afterwards, whatever happens.
///
/// # Errors
/// When the terminal can't be opened or written to.
pub async fn interactive(source: &mut impl RunSource, options: Options) -> anyhow::Result<Outcome> {
    let mut guard = open_terminal()?;
    run(&mut guard.terminal, source, EventStream::new(), stop_signal(), options).await
}
