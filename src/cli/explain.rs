//! `fathom explain ID`: what a check, a playbook, a cause or a probe kind is.

use super::session::load;
use super::{Common, output};
use crate::check::Grade;
use crate::def::playbook::{Cause, Claim};
use crate::def::{Catalog, CheckDef, Playbook, near};
use crate::probe::{KINDS, Kind};
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
        let hint = near::hint(id, names(&catalog));
        bail!("there is no check, playbook, cause or probe kind `{id}`{hint}; `fathom list` names them all");
    }
    output::print(&out)?;
    Ok(0)
}

fn names(catalog: &Catalog) -> impl Iterator<Item = &str> {
    let causes = catalog.playbooks.iter().flat_map(|p| p.causes.iter().map(|c| c.code.as_str()));
    let playbooks = catalog.playbooks.iter().map(|p| p.id.as_str());
    catalog.checks.iter().map(|c| c.id.as_str()).chain(playbooks).chain(causes).chain(KINDS.iter().map(|k| k.name))
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
    if !c.needs.is_empty() {
        writeln!(out, "\nIt can be told only where")?;
        c.needs.iter().try_for_each(|n| writeln!(out, "  {}\n      else: {}", n.that.source(), n.say.as_written()))?;
    }
    writeln!(out, "\nAll of these must hold")?;
    c.supports.iter().try_for_each(|s| claim(out, s))?;
    if !c.refutes.is_empty() {
        writeln!(out, "\nAny of these rules it out")?;
        c.refutes.iter().try_for_each(|s| claim(out, s))?;
    }
    writeln!(out, "\nThe facts come from")?;
    for (alias, target) in &c.facts {
        writeln!(out, "  {alias:<10} {}", target.as_written())?;
    }
    fixes(out, c)
}

/// The expression, and below it what it means where it holds.
fn claim(out: &mut String, claim: &Claim) -> std::fmt::Result {
    writeln!(out, "  {}\n      {}", claim.that.source(), claim.say.as_written())
}

fn fixes(out: &mut String, c: &Cause) -> Result<()> {
    writeln!(out, "\nWhat mends it (nothing of it is run)")?;
    for step in &c.fix {
        writeln!(out, "  {}", step.say.as_written())?;
        let more = [("run", &step.run), ("at", &step.at), ("risk", &step.risk)];
        for (name, text) in more.iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
            writeln!(out, "      {:<5} {}", format!("{name}:"), text.as_written())?;
        }
    }
    if !c.verify.is_empty() {
        let checks: Vec<String> = c.verify.iter().map(|v| v.as_written()).collect();
        writeln!(out, "\nAfterwards these must pass\n  {}", checks.join(", "))?;
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
