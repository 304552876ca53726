//! The README's tables are made from the program: `UPDATE_README=1 cargo test --test docs` writes them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use fathom::probe::KINDS;
use fathom::report::layer_name;
use fathom::twin::fault::FAULTS;
use std::fmt::Write;

#[test]
fn the_readmes_tables_are_the_programs() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let made = section(&section(&readme, "faults", &faults()), "kinds", &kinds());
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write("README.md", &made).unwrap();
    } else {
        assert_eq!(readme, made, "run: UPDATE_README=1 cargo test --test docs");
    }
}

#[test]
fn every_built_in_file_is_loaded() {
    let catalog = fathom::def::Catalog::load(&fathom::def::Sources::default()).unwrap_or_else(|f| panic!("{f:#?}"));
    let count = |folder: &str| {
        let mut files = Vec::new();
        walk(std::path::Path::new(folder), &mut files);
        files.len()
    };
    assert_eq!(catalog.checks.len(), count("checks"));
    assert_eq!(catalog.playbooks.len(), count("playbooks"));
}

fn walk(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { walk(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

fn section(text: &str, name: &str, body: &str) -> String {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).unwrap_or_else(|| panic!("README has no {open}")) + open.len();
    let end = text[start..].find(&close).unwrap_or_else(|| panic!("README has no {close}")) + start;
    format!("{}{body}{}", &text[..start], &text[end..])
}

fn faults() -> String {
    let mut table = format!("{} faults:\n\n| layer | fault | what is broken | decided from |\n|---|---|---|---|\n", FAULTS.len());
    for layer in 1..=4 {
        for fault in FAULTS.iter().filter(|f| f.layer == layer) {
            let name = match fault.cause() {
                Some(cause) if cause == fault.id => format!("`{}`", fault.id),
                Some(cause) => format!("`{}` (diagnosed as `{cause}`)", fault.id),
                None => format!("`{}` (no fault: nothing may be claimed)", fault.id),
            };
            writeln!(table, "| {layer} | {name} | {} | {} |", fault.title, fault.decided_from.join("; ")).unwrap();
        }
    }
    table
}

fn kinds() -> String {
    let catalog = fathom::def::Catalog::load(&fathom::def::Sources::default()).unwrap_or_else(|f| panic!("{f:#?}"));
    let mut table = String::from("| layer | checks |\n|---|---|\n");
    for layer in 1..=4 {
        let ids: Vec<String> = catalog.checks.iter().filter(|c| c.layer == layer).map(|c| format!("`{}`", c.id)).collect();
        writeln!(table, "| {layer} {} | {} |", layer_name(layer), ids.join(", ")).unwrap();
    }
    table.push_str("\n| probe kind | what it observes |\n|---|---|\n");
    for kind in KINDS {
        writeln!(table, "| `{}` | {} |", kind.name, kind.about).unwrap();
    }
    table
}
