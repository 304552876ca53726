//! `fathom check`: run, report, exit code.

use super::session::{Interrupts, Session};
use super::{CheckArgs, Common, Format, OutputArgs, output};
use crate::report::{build, human, json};
use crate::run::{Filter, Plan, Run, RunEvent, Running, start};
use anyhow::{Result, anyhow};

pub(super) fn run(common: &Common, args: &CheckArgs) -> Result<u8> {
    let filter = Filter { checks: args.ids.clone(), layers: args.layer.clone(), playbooks: args.playbook.clone() };
    run_filtered(common, filter, args.output)
}

/// Runs what the filter asks for and prints it.
pub(super) fn run_filtered(common: &Common, filter: Filter, how: OutputArgs) -> Result<u8> {
    let mut session = Session::open(common)?;
    let plan = Plan::make(&session.catalog, &session.vantages, &filter).map_err(|e| anyhow!(e))?;
    let format = how.format();
    let run = {
        let Session { catalog, runtime, interrupts, .. } = &mut session;
        let running = {
            let _entered = runtime.enter();
            start(plan, catalog, Session::limits(common))
        };
        runtime.block_on(follow(running, interrupts, format))?
    };
    let report = build::build(&run, &session.catalog, how.fail_on);
    let _twin = session.end_of_probing();
    match format {
        Format::Human => output::is_read(&human::render(&report, &output::style(common.ascii)))?,
        Format::Json => output::is_read(&json::render(&report))?,
        Format::Ndjson => true,
    };
    Ok(report.run.exit_code)
}

/// Follows a run to its end, also when nobody reads its events any more: the exit code must be true. A first interrupt asks for a partial report; the run ends soon after.
async fn follow(mut running: Running, interrupts: &mut Interrupts, format: Format) -> Result<Run> {
    let mut run = Run::new();
    let mut is_read = format == Format::Ndjson;
    loop {
        tokio::select! {
            event = running.events.recv() => {
                let Some(event) = event else { break };
                if is_read {
                    is_read = print_event(&event)?;
                }
                run.apply(&event);
            }
            () = interrupts.next() => running.cancel(),
        }
    }
    Ok(run)
}

fn print_event(event: &RunEvent) -> Result<bool> {
    output::is_read(&format!("{}\n", serde_json::to_string(event)?))
}
