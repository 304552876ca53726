//! `fathom explain ID`: what a check, a playbook, a cause or a probe kind is.

use super::session::load;
use super::{Common, output};
use crate::check::Grade;
use crate::def::playbook::{Cause, Claim};
use crate::def::{Catalog, CheckDef, Playbook};
use crate::probe::Kind;
use anyhow::{Result, bail};
use std::fmt::Write;

pub(super) fn run(common: &Common, id: &str) -> Result<u8> {
    let catalog = load(common)?;
    let mut out = String::new();
    if let Some(c) = catalog.check(id) {
        check(&mut out, c)?;
    }
    for p in catalog.playbooks.iter().filter(|p| p.id == id) {
        playbook(&mut out, p)?;
    }
    for p in &catalog.playbooks {
        for c in p.causes.iter().filter(|c| c.code == id) {
            cause(&mut out, c, p)?;
        }
    }
    if let Some(k) = Kind::find(id) {
        kind(&mut out, k)?;
    }
    if out.is_empty() {
        bail!("there is no check, playbook, cause or probe kind `{id}`; `fathom list` names them all");
    }
    output::print(&out)?;
    Ok(0)
}

/// A check and the facts of its kind, as text; `None` if there is no such check.
pub(super) fn describe(catalog: &Catalog, id: &str) -> Option<String> {
    let c = catalog.check(id)?;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = check(&mut out, c);
    out.push('\n');
    let _ = kind(&mut out, c.kind);
    Some(out)
}

fn check(out: &mut String, c: &CheckDef) -> Result<()> {
    writeln!(out, "check {}  (layer {}, probe {}, {})\n{}\n", c.id, c.layer, c.kind.name, c.document.path, c.title_text)?;
    writeln!(out, "Why: {}", c.why)?;
    if let Some(source) = &c.source {
        writeln!(out, "Source: {source}")?;
    }
    writeln!(out, "\nExpects")?;
    for e in &c.expects {
        let grade = if e.grade == Grade::Warn { "warn" } else { "fail" };
        writeln!(out, "  {}  ({grade}, {})", e.that.source(), e.code)?;
    }
    Ok(())
}

fn playbook(out: &mut String, p: &Playbook) -> Result<()> {
    writeln!(out, "playbook {}  ({})\n{}\nSource: {}\n\nSymptoms", p.id, p.document.path, p.title, p.source)?;
    p.symptoms.iter().try_for_each(|s| writeln!(out, "  {s}"))?;
    writeln!(out, "\nChecks, in order\n  {}", p.checks.join(", "))?;
    if !p.corrections.is_empty() {
        writeln!(out, "\nWhere the document is wrong")?;
        p.corrections.iter().try_for_each(|s| writeln!(out, "  {s}"))?;
    }
    writeln!(out, "\nCauses")?;
    p.causes.iter().try_for_each(|c| writeln!(out, "  {:<32} {}", c.code, c.title_text))?;
    Ok(())
}

fn cause(out: &mut String, c: &Cause, p: &Playbook) -> Result<()> {
    writeln!(out, "cause {}  (layer {}, playbook {})\n{}", c.code, c.layer, p.id, c.title_text)?;
    let claims = |out: &mut String, claims: &[Claim]| claims.iter().try_for_each(|s| writeln!(out, "  {}", s.that.source()));
    if !c.needs.is_empty() {
        writeln!(out, "\nIt can be told only where")?;
        claims(out, &c.needs)?;
    }
    writeln!(out, "\nAll of these must hold")?;
    claims(out, &c.supports)?;
    if !c.refutes.is_empty() {
        writeln!(out, "\nAny of these rules it out")?;
        claims(out, &c.refutes)?;
    }
    writeln!(out, "\nThe facts come from")?;
    for (alias, target) in &c.facts {
        writeln!(out, "  {alias:<10} {}", target.as_written())?;
    }
    Ok(())
}

fn kind(out: &mut String, k: &Kind) -> Result<()> {
    writeln!(out, "probe kind {}\n{}", k.name, k.about)?;
    if let Some(privilege) = k.privilege {
        writeln!(out, "Needs: {privilege}")?;
    }
    writeln!(out, "\nArguments")?;
    k.args.iter().try_for_each(|(name, about)| writeln!(out, "  {name:<16} {about}"))?;
    writeln!(out, "\nFacts")?;
    k.facts.iter().try_for_each(|f| writeln!(out, "  {:<28} {:<14} {}", format!("{}.{}", k.root, f.path), f.unit, f.about))?;
    Ok(())
}
