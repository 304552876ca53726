//! The loop: waits for whatever comes first, folds it in, draws when something has changed.

use super::model::Model;
use super::update::{Effect, Msg, update};
use super::{Leave, Options, Outcome, RunSource, view};
use crate::run::RunEvent;
use crossterm::event::Event;
use futures::{Stream, StreamExt};
use ratatui::Terminal;
use ratatui::backend::Backend;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Least time between two drawings.
const FRAME: Duration = Duration::from_millis(33);
/// Time between two frames of the spinner.
const SPIN: Duration = Duration::from_millis(120);
/// Least time between two reports on a run that goes on.
const REPORT: Duration = Duration::from_millis(300);
/// Run events taken in at once, so that a burst of them costs one drawing.
const BURST: usize = 256;

/// Runs the terminal program until a person leaves, `stop` is done or the input ends. Generic over the terminal, the
/// input and the source of runs, so that tests can drive it.
///
/// # Errors
/// When the terminal can't be drawn to.
pub async fn run<B, S, I>(
    terminal: &mut Terminal<B>,
    source: &mut S,
    input: I,
    stop: impl Future<Output = ()>,
    options: Options,
) -> anyhow::Result<Outcome>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
    S: RunSource,
    I: Stream<Item = io::Result<Event>> + Unpin,
{
    let size = terminal.size()?;
    let model = Model::new(options.theme, (size.width, size.height), (options.clock)());
    let events = Some(source.start());
    let mut program = Program { terminal, source, options, model, events, dirty: true, stale: false };
    match program.turn(input, stop).await {
        Ok(leave) => Ok(program.end(leave)),
        Err(error) => {
            program.source.cancel();
            Err(error)
        }
    }
}

struct Program<'a, B: Backend, S> {
    terminal: &'a mut Terminal<B>,
    source: &'a mut S,
    options: Options,
    model: Model,
    events: Option<Receiver<RunEvent>>,
    /// Whether the screen shows something older than the model.
    dirty: bool,
    /// Whether the report is older than the run.
    stale: bool,
}

impl<B, S> Program<'_, B, S>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
    S: RunSource,
{
    async fn turn<I>(&mut self, mut input: I, stop: impl Future<Output = ()>) -> anyhow::Result<Leave>
    where
        I: Stream<Item = io::Result<Event>> + Unpin,
    {
        let (mut frame, mut spin, mut report) = (every(FRAME), every(SPIN), every(REPORT));
        let mut burst = Vec::with_capacity(BURST);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(Leave::Signal),
                event = input.next() => match event {
                    Some(Ok(event)) => if self.on_input(event) {
                        self.draw()?;
                        return Ok(Leave::Quit);
                    },
                    Some(Err(_)) | None => return Ok(Leave::InputClosed),
                },
                _ = next(&mut self.events, &mut burst) => self.on_run(&mut burst),
                _ = report.tick(), if self.stale => self.report(),
                _ = spin.tick(), if self.model.is_busy() => {
                    let now = (self.options.clock)();
                    self.tell(Msg::Tick(now));
                }
                _ = frame.tick(), if self.dirty => self.draw()?,
            }
        }
    }

    /// Takes a terminal event in; true means leave.
    fn on_input(&mut self, event: Event) -> bool {
        let msg = match event {
            Event::Key(key) if key.is_press() => Msg::Key(key),
            Event::Paste(text) => Msg::Paste(text),
            Event::Resize(columns, rows) => Msg::Resize(columns, rows),
            _ => return false,
        };
        self.tell(msg).into_iter().any(|effect| self.perform(effect))
    }

    fn perform(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Quit => return true,
            Effect::Cancel => self.source.cancel(),
            Effect::Rerun => self.events = Some(self.source.start()),
        }
        false
    }

    /// Takes a burst of run events in; an empty one means that no more will come.
    fn on_run(&mut self, burst: &mut Vec<RunEvent>) {
        if burst.is_empty() {
            self.events = None;
            self.tell(Msg::RunEnded);
        }
        let finished = burst.is_empty() || burst.iter().any(|e| matches!(e, RunEvent::Finished { .. }));
        for event in burst.drain(..) {
            self.stale |= matches!(event, RunEvent::Judged { .. } | RunEvent::Finished { .. });
            self.tell(Msg::Run(Box::new(event)));
        }
        if finished && self.model.run.started_at.is_some() {
            self.report();
        }
    }

    fn report(&mut self) {
        let report = self.source.report(&self.model.run);
        self.stale = false;
        self.tell(Msg::Report(Box::new(report)));
    }

    fn tell(&mut self, msg: Msg) -> Vec<Effect> {
        self.dirty = true;
        update(&mut self.model, msg)
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        self.dirty = false;
        let model = &self.model;
        self.terminal.draw(|frame| view::draw(model, frame))?;
        Ok(())
    }

    /// A run that still goes on is cancelled; the report is brought up to date.
    fn end(mut self, leave: Leave) -> Outcome {
        if self.model.is_busy() {
            self.source.cancel();
        }
        if self.stale {
            self.report();
        }
        Outcome { run: self.model.run, report: self.model.report, leave }
    }
}

/// The next run events; never, if no run is under way.
async fn next(events: &mut Option<Receiver<RunEvent>>, burst: &mut Vec<RunEvent>) -> usize {
    match events {
        Some(events) => events.recv_many(burst, BURST).await,
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
