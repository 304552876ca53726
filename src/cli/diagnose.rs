//! `fathom diagnose SYMPTOM`: the playbooks whose symptoms match, and their checks.

use super::session::load;
use super::{Common, DiagnoseArgs, check};
use crate::def::Playbook;
use crate::run::Filter;
use anyhow::{Result, bail};

pub(super) fn run(common: &Common, args: &DiagnoseArgs) -> Result<u8> {
    let catalog = load(common)?;
    let matching: Vec<&Playbook> = catalog.playbooks.iter().filter(|p| fits(p, &args.symptom)).collect();
    if matching.is_empty() {
        bail!("no playbook knows this symptom; `fathom list` names the playbooks, and `fathom check` runs every check");
    }
    for playbook in &matching {
        eprintln!("fathom: playbook {}: {}", playbook.id, playbook.title);
        for correction in &playbook.corrections {
            eprintln!("fathom:   note: {correction}");
        }
    }
    let playbooks = matching.iter().map(|p| p.id.clone()).collect();
    check::run_filtered(common, Filter { playbooks, ..Filter::default() }, args.output)
}

/// A symptom fits when all its words, `*` aside, stand in the text in their order.
fn fits(playbook: &Playbook, seen: &str) -> bool {
    let seen = seen.to_lowercase();
    playbook.symptoms.iter().any(|symptom| {
        let mut rest = seen.as_str();
        symptom.to_lowercase().split('*').map(str::trim).filter(|part| !part.is_empty()).all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    })
}
