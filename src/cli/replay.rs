//! `fathom replay FILE`: the report of a recorded run (`fathom check -o ndjson > FILE`), on any machine.

use super::session::load;
use super::{Common, Format, OutputArgs, output};
use crate::report::{build, human, json};
use crate::run::{Run, RunEvent};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line that is read: one check with all its evidence.
const LONGEST: u64 = 8 << 20;

pub(super) fn run(common: &Common, file: &Path, how: OutputArgs) -> Result<u8> {
    let catalog = load(common)?;
    let shown = file.display();
    let mut reader = BufReader::new(std::fs::File::open(file).with_context(|| format!("{shown} cannot be read"))?);
    let mut run = Run::new();
    for number in 1.. {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).with_context(|| format!("{shown} cannot be read"))?;
        if read == 0 {
            break;
        }
        let event: RunEvent = serde_json::from_slice(&line).with_context(|| format!("{shown}:{number}: not a run event"))?;
        run.apply(&event);
    }
    if run.started_at.is_none() {
        bail!("{shown} holds no run");
    }
    let report = build::build(&run, &catalog, how.fail_on);
    match how.format() {
        Format::Human => output::is_read(&human::render(&report, &output::style(common.ascii)))?,
        Format::Json => output::is_read(&json::render(&report))?,
        Format::Ndjson => bail!("a replay prints a report, not events: use -o json"),
    };
    Ok(report.run.exit_code)
}
