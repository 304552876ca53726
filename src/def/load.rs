//! Loading definitions: the built-in ones, and what the user adds or overrides.

use super::check::CheckDef;
use super::document::{Document, Finding};
use super::inventory::Inventory;
use super::lint;
use super::note;
use super::playbook::Playbook;
use crate::report::InventoryReport;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The built-in inventory's text.
pub(crate) const OCEANID: &str = include_str!("../../assets/oceanid.toml");

/// Where definitions come from besides the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Replaces the built-in inventory.
    pub inventory: Option<PathBuf>,
    /// Folders of more checks; an id that is built in is overridden.
    pub checks: Vec<PathBuf>,
    /// Folders of more playbooks; an id that is built in is overridden.
    pub playbooks: Vec<PathBuf>,
}

/// Everything the files say.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The inventory.
    pub inventory: Arc<Inventory>,
    /// Its name, source and digest.
    pub inventory_report: InventoryReport,
    /// Checks, by layer and file.
    pub checks: Vec<CheckDef>,
    /// Playbooks.
    pub playbooks: Vec<Playbook>,
    /// What the inventory states that cannot do what it is there for; no fault of the files.
    pub notes: Vec<Finding>,
}

impl Catalog {
    /// Loads and lints everything. All findings are returned, not only the first.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Finding>> {
        let mut findings = Vec::new();
        let inventory_document = inventory_document(sources).map_err(|f| vec![f])?;
        let checks = decode_all(built_in(CHECKS), &sources.checks, CheckDef::decode, |c| &c.id, &mut findings);
        let playbooks = decode_all(built_in(PLAYBOOKS), &sources.playbooks, Playbook::decode, |p| &p.id, &mut findings);
        let inventory = match read_inventory(&inventory_document) {
            Ok(inventory) => inventory,
            Err(more) => {
                findings.extend(more);
                return Err(findings);
            }
        };
        let source = if sources.inventory.is_some() { inventory_document.path.clone() } else { "built-in".to_owned() };
        let catalog = Self {
            inventory_report: InventoryReport { name: inventory.name.clone(), source, sha256: sha256(&inventory_document.text) },
            notes: note::notes(&inventory, &inventory_document),
            inventory: Arc::new(inventory),
            checks,
            playbooks,
        };
        if findings.is_empty() {
            findings = lint::catalog(&catalog);
        }
        if findings.is_empty() { Ok(catalog) } else { Err(findings) }
    }

    /// The check of an id.
    pub fn check(&self, id: &str) -> Option<&CheckDef> {
        self.checks.iter().find(|c| c.id == id)
    }
}

/// Decodes an inventory and looks at what its fields say about each other.
pub fn read_inventory(document: &Document) -> Result<Inventory, Vec<Finding>> {
    let inventory: Inventory = document.decode().map_err(|f| vec![f])?;
    let findings = lint::inventory(&inventory, document);
    if findings.is_empty() { Ok(inventory) } else { Err(findings) }
}

fn inventory_document(sources: &Sources) -> Result<Document, Finding> {
    match &sources.inventory {
        Some(path) => Document::read(path),
        None => Ok(Document { path: "assets/oceanid.toml".to_owned(), text: OCEANID.to_owned() }),
    }
}

fn built_in(files: &[(&str, &str)]) -> Vec<Document> {
    files.iter().map(|(path, text)| Document { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}

fn decode_all<T>(
    built_in: Vec<Document>,
    folders: &[PathBuf],
    decode: impl Fn(&Document) -> Result<T, Vec<Finding>>,
    id: impl Fn(&T) -> &String,
    findings: &mut Vec<Finding>,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    let add = |documents: Vec<Document>, all: &mut Vec<T>, findings: &mut Vec<Finding>| {
        let mut seen: Vec<String> = Vec::new();
        for document in documents {
            match decode(&document) {
                Ok(item) if seen.contains(id(&item)) => {
                    findings.push(
                        document
                            .finding(document.line_of(&[super::document::Step::Key("id")]), format!("id `{}` is used twice", id(&item))),
                    );
                }
                Ok(item) => {
                    seen.push(id(&item).clone());
                    match all.iter().position(|old| id(old) == id(&item)) {
                        Some(at) => all[at] = item,
                        None => all.push(item),
                    }
                }
                Err(more) => findings.extend(more),
            }
        }
    };
    add(built_in, &mut all, findings);
    for folder in folders {
        match documents_in(folder) {
            Ok(documents) => add(documents, &mut all, findings),
            Err(finding) => findings.push(finding),
        }
    }
    all
}

/// Every `*.toml` below a folder, in path order.
pub fn documents_in(folder: &Path) -> Result<Vec<Document>, Finding> {
    let mut paths = Vec::new();
    collect(folder, &mut paths).map_err(|e| Finding {
        path: folder.display().to_string(),
        line: 1,
        message: format!("folder cannot be read: {e}"),
    })?;
    paths.sort();
    paths.iter().map(|p| Document::read(p)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), paths)?;
        } else if entry.path().extension().is_some_and(|e| e == "toml") {
            paths.push(entry.path());
        }
    }
    Ok(())
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}
