//! What `w` writes: a run and its report in a new directory, to be looked at elsewhere.
//!
//! `run.ndjson` is what `fathom replay` reads, `report.json` the document of `--json`, `report.txt` the report for people.

use crate::report::{Report, human, json};
use crate::run::Run;
use anyhow::{Context, Result};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes all of it; the sentence says where. Nothing that is there already is touched.
pub(super) fn write(run: &Run, report: &Report, directory: Option<&str>) -> Result<String> {
    let directory = directory.map_or_else(|| PathBuf::from(format!("fathom-{}", run.id)), PathBuf::from);
    let shown = directory.display();
    // For the user's own eyes: a report names the addresses of a network.
    DirBuilder::new().mode(0o700).create(&directory).with_context(|| format!("{shown} cannot be made"))?;
    let mut events = String::new();
    for event in run.events() {
        events.push_str(&serde_json::to_string(&event)?);
        events.push('\n');
    }
    let style = human::Style { color: false, ascii: false, width: 100 };
    file(&directory, "run.ndjson", &events)?;
    file(&directory, "report.json", &json::render(report))?;
    file(&directory, "report.txt", &human::render(report, &style))?;
    Ok(format!("written: {shown} (run.ndjson, report.json, report.txt)"))
}

fn file(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    let said = || format!("{} cannot be written", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(said)?;
    file.write_all(text.as_bytes()).with_context(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunEvent;
    use crate::tui::fixture;

    #[test]
    fn a_bundle_can_be_replayed_and_is_never_written_over() {
        let run = Run::fold(&fixture::blocked_vxlan());
        let report = fixture::report(&run);
        let directory = std::env::temp_dir().join(format!("fathom-bundle-{}", std::process::id()));
        let named = directory.to_str().unwrap();
        assert!(write(&run, &report, Some(named)).unwrap().contains("report.txt"));
        let text = std::fs::read_to_string(directory.join("run.ndjson")).unwrap();
        let events: Vec<RunEvent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let again = Run::fold(&events);
        assert_eq!((again.id.as_str(), again.summary(), again.complete), (run.id.as_str(), run.summary(), run.complete));
        assert_eq!(std::fs::read_to_string(directory.join("report.json")).unwrap(), json::render(&report));
        let refused = write(&run, &report, Some(named)).unwrap_err();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(format!("{refused:#}").contains("cannot be made"), "{refused:#}");
    }
}
