//! `fathom lint [FILE..]`: every fault of the definition files, with file and line.

use super::session::sources;
use super::{Common, USAGE, output};
use crate::def::load::read_inventory;
use crate::def::note::notes;
use crate::def::{Catalog, CheckDef, Document, Finding, Playbook};
use anyhow::Result;
use std::path::PathBuf;

pub(super) fn run(common: &Common, files: &[PathBuf]) -> Result<u8> {
    let (findings, notes) = if files.is_empty() {
        match Catalog::load(&sources(common)) {
            Ok(catalog) => (Vec::new(), catalog.notes),
            Err(findings) => (findings, Vec::new()),
        }
    } else {
        lint_files(files)
    };
    for finding in &findings {
        eprintln!("{}", crate::check::clean(&finding.to_string(), 1000));
    }
    for note in &notes {
        eprintln!("note: {}", crate::check::clean(&note.to_string(), 1000));
    }
    if findings.is_empty() {
        output::print("no faults found\n")?;
        return Ok(0);
    }
    Ok(USAGE)
}

/// Faults of the files, and notes on those that are inventories.
fn lint_files(files: &[PathBuf]) -> (Vec<Finding>, Vec<Finding>) {
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    for path in files {
        match Document::read(path).map_err(|f| vec![f]).and_then(|d| lint_one(&d)) {
            Ok(more) => notes.extend(more),
            Err(more) => findings.extend(more),
        }
    }
    (findings, notes)
}

/// Tells the kind of file by what only it has: an inventory names a document, a playbook has causes.
fn lint_one(document: &Document) -> Result<Vec<Finding>, Vec<Finding>> {
    let table: toml::Table = document.decode().map_err(|f| vec![f])?;
    let catalog = Catalog::load(&Default::default())?;
    let findings = if table.contains_key("cluster") || table.contains_key("document") {
        return read_inventory(document).map(|inventory| notes(&inventory, document));
    } else if table.contains_key("cause") || table.contains_key("symptoms") {
        let playbook = Playbook::decode(document)?;
        let mut with = catalog;
        with.playbooks = vec![playbook];
        crate::def::lint::catalog(&with)
    } else {
        let check = CheckDef::decode(document)?;
        let mut with = catalog;
        with.checks.retain(|c| c.id != check.id);
        with.checks.push(check);
        crate::def::lint::catalog(&with)
    };
    let own: Vec<Finding> = findings.into_iter().filter(|f| f.path == document.path).collect();
    if own.is_empty() { Ok(Vec::new()) } else { Err(own) }
}
