//! The loop: waits for whatever comes first, folds it in, draws when something has changed.

use super::bench::{News, Reading};
use super::model::Model;
use super::update::{Effect, Msg, Wait, update};
use super::writer::Gate;
use super::{Leave, Measuring, Options, Outcome, RunSource, copy, terminal, view};
use crate::bench::drive::Stop;
use crate::run::watch::Change;
use crate::run::{Again, RunEvent};
use crossterm::event::Event;
use futures::{Stream, StreamExt};
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::buffer::Buffer;
use std::future::{Future, pending};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

/// Least time between two drawings.
const FRAME: Duration = Duration::from_millis(33);
/// Time between two frames of the spinner.
const SPIN: Duration = Duration::from_millis(120);
/// Least time between two reports on a run that goes on.
const REPORT: Duration = Duration::from_millis(300);
/// Run events taken in at once, so that a burst of them costs one drawing.
const BURST: usize = 256;
/// From a change to the look at it: what belongs together comes within this time.
const SETTLE: Duration = Duration::from_millis(150);
/// From the last look to the renewal of everything older, if nothing changes meanwhile.
const QUIET: Duration = Duration::from_secs(1);
/// Least time between two renewals of everything: an unsteady network must not be probed without end.
const RENEWAL: Duration = Duration::from_secs(10);

/// Runs the terminal program until a person leaves, `stop` is done or the input ends. Generic over the terminal, the
/// input and the source of runs, so that tests can drive it. It draws only while `gate` says that the last drawing is out.
///
/// # Errors
/// When the terminal can't be drawn to.
pub async fn run<B, S, I>(
    terminal: &mut Terminal<B>,
    gate: Gate,
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
    // Watched from before the first probe: no change falls between.
    let changes = source.changes();
    let events = Some(source.start());
    let (tell, told) = channel(8);
    let mut program = Program {
        terminal,
        gate,
        source,
        options,
        model,
        events,
        changes: None,
        told,
        tell,
        measuring: None,
        wait: None,
        renewed: None,
        leave: None,
        screen: None,
        dirty: true,
        stale: false,
    };
    match changes {
        Ok(changes) => {
            program.changes = Some(changes);
            program.take(Msg::Watched);
        }
        Err(why) => program.take(Msg::Unwatched(why)),
    }
    match program.turn(input, stop).await {
        Ok(leave) => Ok(program.end(leave)),
        Err(error) => {
            program.stop_all();
            Err(error)
        }
    }
}

struct Program<'a, B: Backend, S> {
    terminal: &'a mut Terminal<B>,
    gate: Gate,
    source: &'a mut S,
    options: Options,
    model: Model,
    events: Option<Receiver<RunEvent>>,
    changes: Option<Receiver<Change>>,
    /// Words about what was begun and goes on elsewhere.
    told: Receiver<String>,
    tell: Sender<String>,
    measuring: Option<Measuring>,
    /// When a wait is over.
    wait: Option<Instant>,
    /// When everything was last renewed after a change.
    renewed: Option<Instant>,
    leave: Option<Leave>,
    screen: Option<Buffer>,
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
        let gate = self.gate.clone();
        tokio::pin!(stop);
        loop {
            let out = gate.is_idle();
            tokio::select! {
                () = &mut stop => return Ok(Leave::Signal),
                event = input.next() => match event {
                    Some(Ok(event)) => self.on_input(event),
                    Some(Err(_)) | None => return Ok(Leave::InputClosed),
                },
                _ = next(&mut self.events, &mut burst) => self.on_run(&mut burst),
                change = next_change(&mut self.changes) => self.on_change(change),
                () = over(self.wait) => {
                    self.wait = None;
                    self.take(Msg::Waited);
                }
                Some(word) = self.told.recv() => self.take(Msg::Said(word)),
                done = measured(&mut self.measuring) => {
                    self.measuring = None;
                    self.take(Msg::Bench(Box::new(News::Done(done))));
                }
                _ = report.tick(), if self.stale => self.report(),
                _ = spin.tick(), if self.model.moves() => self.on_spin(),
                () = gate.idle(), if self.dirty && !out => {}
                _ = frame.tick(), if self.dirty && out => self.draw()?,
            }
            if let Some(leave) = self.leave {
                self.draw()?;
                return Ok(leave);
            }
        }
    }

    fn on_input(&mut self, event: Event) {
        match event {
            Event::Key(key) if key.is_press() => self.take(Msg::Key(key)),
            Event::Paste(text) => self.take(Msg::Paste(text)),
            Event::Resize(columns, rows) => self.take(Msg::Resize(columns, rows)),
            _ => {}
        }
    }

    fn on_change(&mut self, change: Option<Change>) {
        match change {
            Some(change) => self.take(Msg::Changed(change, (self.options.clock)())),
            None => {
                self.changes = None;
                self.take(Msg::Unwatched("the kernel's announcements ended".to_owned()));
            }
        }
    }

    fn on_spin(&mut self) {
        self.take(Msg::Tick((self.options.clock)()));
        if let Some(Measuring { progress: p, .. }) = &self.measuring {
            let reading = Reading {
                done: p.done.load(Relaxed),
                complete: p.complete.load(Relaxed),
                in_flight: p.in_flight.load(Relaxed),
                tokens: p.tokens.load(Relaxed),
                ttft_ms: p.ttft_us.load(Relaxed) as f64 / 1000.0,
            };
            self.take(Msg::Bench(Box::new(News::Reading(reading))));
        }
    }

    /// Folds a message in and does what follows from it.
    fn take(&mut self, msg: Msg) {
        self.dirty = true;
        self.model.now = (self.options.clock)();
        for effect in update(&mut self.model, msg) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Quit => self.leave = Some(Leave::Quit),
            Effect::QuitKeeping => self.leave = Some(Leave::QuitKeeping),
            Effect::Cancel => self.source.cancel(),
            Effect::Rerun => self.events = Some(self.source.start()),
            Effect::Again(again) => {
                if matches!(again, Again::Older(_)) {
                    self.renewed = Some(Instant::now());
                }
                self.events = Some(self.source.again(&self.model.run, &again));
            }
            Effect::Wait(wait) => self.wait = Some(self.until(wait)),
            Effect::Describe(id) => {
                let text = self.source.describe(&id);
                self.take(Msg::Described(id, text));
            }
            Effect::Copy(text) => self.copy(&text),
            Effect::Write(directory) => match &self.model.report {
                Some(report) => self.source.write(&self.model.run, report, directory, self.tell.clone()),
                None => self.take(Msg::Said("there is nothing to write yet".to_owned())),
            },
            Effect::BenchOffer(server) => {
                let offer = self.source.offer(server.as_deref());
                self.take(Msg::Bench(Box::new(News::Offer(offer))));
            }
            Effect::Bench(server) => match self.source.measure(&server) {
                Ok(measuring) => self.measuring = Some(measuring),
                Err(why) => self.take(Msg::Bench(Box::new(News::Done(Err(why))))),
            },
            Effect::BenchStop => self.stop_measuring(),
            Effect::Suspend => self.suspend(),
        }
    }

    /// Stops the whole program; when it goes on, the shell has written over the screen, and may have another size.
    fn suspend(&mut self) {
        if let Err(why) = terminal::suspend(&self.gate) {
            self.take(Msg::Said(format!("cannot give the terminal back: {why}")));
            return;
        }
        // Drawn against an empty screen. `Terminal::clear` would ask the terminal for its cursor and wait for the answer.
        self.terminal.swap_buffers();
        if let Ok(size) = self.terminal.size() {
            self.take(Msg::Resize(size.width, size.height));
        }
    }

    fn until(&self, wait: Wait) -> Instant {
        let now = Instant::now();
        match wait {
            Wait::Settle => now + SETTLE,
            Wait::Quiet => self.renewed.map_or(now, |at| at + RENEWAL).max(now + QUIET),
        }
    }

    fn copy(&mut self, text: &str) {
        let word = match copy::osc52(text) {
            Some(sequence) => {
                self.gate.push(sequence.as_bytes());
                format!("{} bytes sent to the terminal's clipboard", text.len())
            }
            None => format!("{} bytes are too many for a terminal's clipboard; w writes files", text.len()),
        };
        self.take(Msg::Said(word));
    }

    fn stop_measuring(&self) {
        if let Some(measuring) = &self.measuring {
            measuring.stop.send_replace(Some(Stop::Interrupted));
        }
    }

    /// Takes a burst of run events in; an empty one means that no more will come.
    fn on_run(&mut self, burst: &mut Vec<RunEvent>) {
        if burst.is_empty() {
            self.events = None;
            self.take(Msg::RunEnded);
        }
        let finished = burst.is_empty() || burst.iter().any(|e| matches!(e, RunEvent::Finished { .. }));
        for event in burst.drain(..) {
            self.stale |= matches!(event, RunEvent::Judged { .. } | RunEvent::Finished { .. });
            self.take(Msg::Run(Box::new(event)));
        }
        if finished && self.model.run.started_at.is_some() {
            self.report();
        }
    }

    fn report(&mut self) {
        let report = self.source.report(&self.model.run);
        self.stale = false;
        self.take(Msg::Report(Box::new(report)));
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        self.dirty = false;
        let model = &self.model;
        let drawn = self.terminal.draw(|frame| view::draw(model, frame))?;
        if self.leave == Some(Leave::QuitKeeping) {
            self.screen = Some(drawn.buffer.clone());
        }
        Ok(())
    }

    fn stop_all(&mut self) {
        self.source.cancel();
        self.stop_measuring();
    }

    /// A run that still goes on is cancelled; the report is brought up to date.
    fn end(mut self, leave: Leave) -> Outcome {
        if self.model.is_busy() {
            self.source.cancel();
        }
        self.stop_measuring();
        if self.stale {
            self.report();
        }
        Outcome { run: self.model.run, report: self.model.report, leave, screen: self.screen }
    }
}

/// The next change; never, if they are not watched.
async fn next_change(changes: &mut Option<Receiver<Change>>) -> Option<Change> {
    match changes {
        Some(changes) => changes.recv().await,
        None => pending().await,
    }
}

/// Done when a wait is over; never, if there is none.
async fn over(wait: Option<Instant>) {
    match wait {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

/// The end of the measurement; never, if there is none.
async fn measured(measuring: &mut Option<Measuring>) -> Result<String, String> {
    match measuring {
        Some(measuring) => (&mut measuring.done).await.unwrap_or_else(|_| Err("the measurement broke off".to_owned())),
        None => pending().await,
    }
}

/// The next run events; never, if no run is under way.
async fn next(events: &mut Option<Receiver<RunEvent>>, burst: &mut Vec<RunEvent>) -> usize {
    match events {
        Some(events) => events.recv_many(burst, BURST).await,
        None => pending().await,
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
