//! From the state of a run to its report.

use super::{Report, RunReport, SCHEMA, Tool};
use crate::check::Verdict;
use crate::def::Catalog;
use crate::diagnose::diagnose;
use crate::run::Run;
use chrono::Utc;

/// What moves the exit code to 1 (`--fail-on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    /// Warnings and failures.
    Warn,
    /// Failures.
    #[default]
    Fail,
    /// Failures and what could not be looked at.
    Unknown,
    /// Nothing: the exit code is 0 unless the run was interrupted or could not begin.
    Never,
}

/// The report of a run, as far as it has come.
pub fn build(run: &Run, catalog: &Catalog, fail_on: FailOn) -> Report {
    let findings = diagnose(run, catalog);
    let started_at = run.started_at.unwrap_or(chrono::DateTime::<Utc>::UNIX_EPOCH);
    let last = run.finished_at.or_else(|| run.checks_in_order().filter_map(|c| c.started_at).max());
    let duration = last.map_or(0, |end| (end - started_at).num_milliseconds());
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "fathom".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        run: RunReport {
            id: run.id.clone(),
            started_at,
            duration_ms: u64::try_from(duration).unwrap_or_default(),
            complete: run.complete,
            exit_code: exit_code(run, fail_on),
        },
        inventory: catalog.inventory_report.clone(),
        vantages: run.vantages.clone(),
        summary: run.summary(),
        diagnoses: findings.diagnoses,
        unexplained: findings.unexplained,
        checks: run.checks_in_order().cloned().collect(),
    }
}

/// DESIGN section 6: 0 nothing failed, 1 a failure, 3 something that was asked for is unknown, 130 interrupted.
pub fn exit_code(run: &Run, fail_on: FailOn) -> u8 {
    let any = |verdict| run.checks_in_order().any(|c| c.outcome == verdict);
    if run.interrupted {
        return 130;
    }
    match fail_on {
        FailOn::Never => 0,
        FailOn::Warn if any(Verdict::Fail) || any(Verdict::Warn) => 1,
        FailOn::Unknown if any(Verdict::Fail) || any(Verdict::Unknown) => 1,
        _ if any(Verdict::Fail) => 1,
        _ if any(Verdict::Unknown) || any(Verdict::Blocked) => 3,
        _ => 0,
    }
}
