//! `fathom` without a command: the terminal interface on the same events.

use super::session::Session;
use super::{Common, bundle, explain, measure, output};
use crate::def::Catalog;
use crate::report::build::{self, FailOn};
use crate::report::{Report, human};
use crate::run::watch::{self, Change};
use crate::run::{Again, Filter, Limits, Plan, Run, RunEvent, Running, start, start_again};
use crate::tui::bench::Offer;
use crate::tui::{Leave, Measuring, Options, RunSource, Theme, ansi, interactive, terminal};
use crate::vantage::Vantage;
use anyhow::{Result, anyhow, bail};
use std::io::IsTerminal;
use std::sync::Arc;
use tokio::sync::mpsc;

pub(super) fn run(common: &Common) -> Result<u8> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("the terminal interface needs a terminal; use `fathom check` in a pipe or a script");
    }
    let session = Session::open(common)?;
    // Asked for once before the screen opens, so that a plan that cannot be made is an ordinary error.
    Plan::make(&session.catalog, &session.vantages, &Filter::default()).map_err(|e| anyhow!(e))?;
    let mut source = Engine {
        catalog: session.catalog.clone(),
        vantages: session.vantages.clone(),
        limits: Session::limits(common),
        filter: Filter::default(),
        cancel: None,
    };
    let no_color = std::env::var("NO_COLOR").ok();
    let options = Options { theme: Theme::new(no_color.as_deref(), common.ascii), clock: chrono::Utc::now };
    let outcome = session.runtime.block_on(interactive(&mut source, options))?;
    let report = outcome.report.unwrap_or_else(|| source.report(&outcome.run));
    if let Some(screen) = &outcome.screen
        && !terminal::is_stalled()
    {
        output::print(&ansi::to_ansi(screen))?;
    } else if outcome.leave == Leave::Quit && outcome.run.finished_at.is_some() && !terminal::is_stalled() {
        output::print(&human::render(&report, &output::style(common.ascii)))?;
    }
    Ok(report.run.exit_code)
}

/// The engine as the terminal interface sees it: something that can start, cancel and be asked for a report.
struct Engine {
    catalog: Arc<Catalog>,
    vantages: Vec<Arc<Vantage>>,
    limits: Limits,
    filter: Filter,
    cancel: Option<tokio::sync::watch::Sender<bool>>,
}

impl Engine {
    fn plan(&self) -> Option<Plan> {
        Plan::make(&self.catalog, &self.vantages, &self.filter).ok()
    }

    fn follow(&mut self, running: Running) -> mpsc::Receiver<RunEvent> {
        let (events, cancel) = running.split();
        self.cancel = Some(cancel);
        events
    }
}

impl RunSource for Engine {
    fn start(&mut self) -> mpsc::Receiver<RunEvent> {
        match self.plan() {
            Some(plan) => {
                let running = start(plan, &self.catalog, self.limits);
                self.follow(running)
            }
            // A closed channel: the screen says that the events broke off.
            None => mpsc::channel(1).1,
        }
    }

    fn again(&mut self, run: &Run, what: &Again) -> mpsc::Receiver<RunEvent> {
        match self.plan() {
            Some(plan) => {
                let plan = plan.only(&what.ids(&self.catalog, run));
                let running = start_again(plan, run, what.because(), &self.catalog, self.limits);
                self.follow(running)
            }
            None => mpsc::channel(1).1,
        }
    }

    fn changes(&mut self) -> Result<mpsc::Receiver<Change>, String> {
        watch::changes(&self.vantages, &self.catalog.inventory.overlay.device)
    }

    fn describe(&self, check: &str) -> Option<String> {
        explain::describe(&self.catalog, check)
    }

    fn write(&self, run: &Run, report: &Report, directory: Option<String>, tell: mpsc::Sender<String>) {
        let (run, report) = (run.clone(), report.clone());
        // A disk may be as slow as it likes: the screen goes on.
        tokio::task::spawn_blocking(move || {
            let word = bundle::write(&run, &report, directory.as_deref()).unwrap_or_else(|e| format!("not written: {e:#}"));
            let _ = tell.try_send(word);
        });
    }

    fn offer(&self, server: Option<&str>) -> Result<Offer, String> {
        measure::offer(&self.catalog.inventory, &self.vantages, server)
    }

    fn measure(&mut self, server: &str) -> Result<Measuring, String> {
        measure::begin(&self.catalog.inventory, &self.vantages, server)
    }

    fn cancel(&mut self) {
        if let Some(cancel) = &self.cancel {
            cancel.send_replace(true);
        }
    }

    fn report(&self, run: &Run) -> Report {
        build::build(run, &self.catalog, FailOn::default())
    }
}

#[cfg(test)]
mod tests;
