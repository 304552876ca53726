//! `fathom` without a command: the terminal interface on the same events.

use super::session::Session;
use super::{Common, output};
use crate::def::Catalog;
use crate::report::build::{self, FailOn};
use crate::report::{Report, human};
use crate::run::{Filter, Limits, Plan, Run, RunEvent, start};
use crate::tui::{Leave, Options, RunSource, Theme, interactive};
use crate::vantage::Vantage;
use anyhow::{Result, anyhow, bail};
use std::io::IsTerminal;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

pub(super) fn run(common: &Common) -> Result<u8> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("the terminal interface needs a terminal; use `fathom check` in a pipe or a script");
    }
    let session = Session::open(common)?;
    // Asked for once before the screen opens, so that a plan that cannot be made is an ordinary error.
    Plan::make(&session.catalog, &session.vantages, &Filter::default()).map_err(|e| anyhow!(e))?;
    let mut source =
        Engine { catalog: session.catalog.clone(), vantages: session.vantages.clone(), limits: Session::limits(common), cancel: None };
    let no_color = std::env::var("NO_COLOR").ok();
    let options = Options { theme: Theme::new(no_color.as_deref(), common.ascii), clock: chrono::Utc::now };
    let outcome = session.runtime.block_on(interactive(&mut source, options))?;
    let report = outcome.report.unwrap_or_else(|| source.report(&outcome.run));
    if outcome.leave == Leave::Quit && outcome.run.finished_at.is_some() {
        output::print(&human::render(&report, &output::style(common.ascii)))?;
    }
    Ok(report.run.exit_code)
}

/// The engine as the terminal interface sees it: something that can start, cancel and be asked for a report.
struct Engine {
    catalog: Arc<Catalog>,
    vantages: Vec<Arc<Vantage>>,
    limits: Limits,
    cancel: Option<watch::Sender<bool>>,
}

impl RunSource for Engine {
    fn start(&mut self) -> mpsc::Receiver<RunEvent> {
        match Plan::make(&self.catalog, &self.vantages, &Filter::default()) {
            Ok(plan) => {
                let (events, cancel) = start(plan, &self.catalog, self.limits).split();
                self.cancel = Some(cancel);
                events
            }
            // A closed channel: the screen says that the events broke off.
            Err(_) => mpsc::channel(1).1,
        }
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
