//! One check on a page: its verdict and reason, then everything it rests on.

use super::{Page, Span, Tone, held, values};
use crate::check::{Grade, Verdict};
use crate::report::{CheckReport, ExpectationReport, text};
use serde_json::Value;

/// A check in full: reason, where and when, expectations with their values, facts, evidence, the same by hand.
pub fn check(page: &mut Page, check: &CheckReport) {
    head(page, check);
    expectations(page, &check.expectations);
    facts(page, &check.facts);
    evidence(page, check);
    if let Some(command) = &check.by_hand {
        page.gap().heading("By hand");
        page.command(vec![Span::new(Tone::Dim, "$ ")], command);
    }
}

fn head(page: &mut Page, check: &CheckReport) {
    page.line(vec![Span::verdict(check.outcome, 0), Span::new(Tone::Strong, format!("  {}", check.id))]);
    page.text(Tone::Plain, &check.title);
    if let Some(reason) = &check.reason {
        page.gap().text(Tone::Verdict(check.outcome), reason);
    }
    page.gap();
    field(page, "blocked by", check.blocked_by.as_deref().unwrap_or_default());
    field(page, "vantage", &check.vantage);
    field(page, "target", &check.target);
    field(page, "timing", &timing(check));
}

fn field(page: &mut Page, name: &str, value: &str) {
    if !value.is_empty() {
        page.item(vec![Span::new(Tone::Dim, format!("{name:<12}"))], Tone::Plain, value);
    }
}

fn timing(check: &CheckReport) -> String {
    let Some(start) = check.started_at else { return "the probe did not run".to_owned() };
    let attempts = if check.attempts == 1 { String::new() } else { format!(" · {} attempts", check.attempts) };
    format!("{}{attempts} · began {} UTC", text::duration(check.duration_ms), start.format("%H:%M:%S%.3f"))
}

/// The broken ones first, then the undecided ones.
fn expectations(page: &mut Page, expectations: &[ExpectationReport]) {
    if expectations.is_empty() {
        return;
    }
    page.gap().heading("Expectations");
    let mut in_order: Vec<&ExpectationReport> = expectations.iter().collect();
    in_order.sort_by_key(|e| match e.held {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    });
    for expected in in_order {
        let grade = if expected.grade == Grade::Warn { "  warn grade" } else { "" };
        page.line(vec![mark(expected), Span::new(Tone::Strong, &expected.code), Span::new(Tone::Dim, grade)]);
        page.indented(2, |page| {
            page.raw(Vec::new(), Tone::Code, &expected.that);
            match expected.held {
                Some(false) => page.text(Tone::Plain, &expected.say),
                Some(true) => page,
                None => page.text(Tone::UNKNOWN, "could not be decided"),
            };
            if !expected.values.is_empty() {
                page.text(Tone::Dim, values(&expected.values));
            }
        });
    }
}

/// A broken expectation of warn grade is a warning, not a failure.
fn mark(expected: &ExpectationReport) -> Span {
    match (expected.held, expected.grade) {
        (Some(false), Grade::Warn) => Span::new(Tone::WARN, format!("{} ", Verdict::Warn.glyph(false))),
        (other, _) => held(other),
    }
}

fn facts(page: &mut Page, facts: &Value) {
    let mut leaves = Vec::new();
    flatten(facts, "", &mut leaves);
    if leaves.is_empty() {
        return;
    }
    let name_cells = leaves.iter().map(|(name, _)| text::width(name)).max().unwrap_or(0).min(32) + 2;
    page.gap().heading("Facts");
    for (name, value) in leaves {
        let tone = if text::unknown(value).is_some() { Tone::UNKNOWN } else { Tone::Plain };
        page.item(vec![Span::new(Tone::Dim, text::fit(&name, name_cells))], tone, text::value(value));
    }
}

/// Leaves of the fact tree by dotted path; an unknown one is a leaf.
fn flatten<'a>(tree: &'a Value, path: &str, leaves: &mut Vec<(String, &'a Value)>) {
    match tree {
        Value::Object(map) if text::unknown(tree).is_none() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, &path, leaves);
            }
        }
        leaf if !path.is_empty() => leaves.push((path.to_owned(), leaf)),
        _ => {}
    }
}

fn evidence(page: &mut Page, check: &CheckReport) {
    if check.evidence.is_empty() {
        return;
    }
    page.gap().heading("Evidence");
    for piece in &check.evidence {
        page.raw(vec![Span::new(Tone::Dim, format!("{:<9}", piece.kind)), Span::new(Tone::Dim, "│ ")], Tone::Plain, &piece.text);
    }
}
