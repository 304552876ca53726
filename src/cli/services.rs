//! `fathom services`: every service of the cluster, and which of them lead nowhere.

use super::session::Session;
use super::{Common, output};
use crate::probe::{Context, PortState, every_service};
use anyhow::{Context as _, Result, anyhow};
use std::fmt::Write;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

pub(super) fn run(common: &Common, json: bool) -> Result<u8> {
    let session = Session::open(common)?;
    let vantage = session.vantages.first().context("there is no vantage")?.clone();
    let patience = Duration::from_secs_f64(common.timeout);
    let found = session.runtime.block_on(async {
        let deadline = Instant::now() + patience;
        let cx = Context { vantage, witness: None, inventory: session.catalog.inventory.clone(), deadline };
        timeout_at(deadline, every_service(&cx)).await.unwrap_or_else(|_| Err("the API did not answer in time".to_owned()))
    });
    let states = found.map_err(|e| anyhow!(e))?;
    output::print(&if json { format!("{}\n", serde_json::to_string_pretty(&states)?) } else { table(&states)? })?;
    Ok(u8::from(states.iter().any(|s| !s.problem.is_empty())))
}

fn table(states: &[PortState]) -> Result<String, std::fmt::Error> {
    let name = |s: &PortState| format!("{}/{}:{}/{}", s.namespace, s.service, s.port, s.protocol);
    let width = states.iter().map(|s| name(s).len()).max().unwrap_or(0).max(7);
    let mut out = format!("{:<width$}  READY  NOT READY  PROBLEM\n", "SERVICE");
    for state in states {
        let line = format!("{:<width$}  {:>5}  {:>9}  {} {}", name(state), state.ready, state.not_ready, state.problem, state.detail);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out)
}
