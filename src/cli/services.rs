//! `fathom services`: every service of the cluster, and which of them lead nowhere.

use super::session::Session;
use super::{Common, output};
use crate::probe::{Context, Objects, PortState, Services, every_service};
use anyhow::{Context as _, Result};
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
    let all = found.unwrap_or_else(|reason| Services { unknown: vec![reason], ..Services::default() });
    output::print(&if json { format!("{}\n", serde_json::to_string_pretty(&all)?) } else { table(&all)? })?;
    Ok(exit_code(&all))
}

/// A service that leads nowhere is a failure; what could not be read is unknown.
fn exit_code(all: &Services) -> u8 {
    match (all.ports.iter().any(|s| !s.problem.is_empty()), all.unknown.is_empty()) {
        (true, _) => 1,
        (false, false) => 3,
        (false, true) => 0,
    }
}

fn table(all: &Services) -> Result<String, std::fmt::Error> {
    let name = |s: &PortState| format!("{}/{}:{}/{}", s.namespace, s.service, s.port, s.protocol);
    let width = all.ports.iter().map(|s| name(s).len()).max().unwrap_or(0).max(7);
    let mut out = format!("{:<width$}  READY  NOT READY  PROBLEM\n", "SERVICE");
    for state in &all.ports {
        let line = format!("{:<width$}  {:>5}  {:>9}  {} {}", name(state), state.ready, state.not_ready, state.problem, state.detail);
        writeln!(out, "{}", line.trim_end())?;
    }
    let Objects { services, endpoint_slices, pods } = all.objects;
    writeln!(out, "\n{services} services, {endpoint_slices} slices, {pods} pods; {} requests", all.requests)?;
    for reason in &all.unknown {
        writeln!(out, "unknown: {reason}")?;
    }
    Ok(out)
}
