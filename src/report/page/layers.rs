//! All checks by layer, folded: what is not pass has its reason, what is blocked stands under its root, the rest is one line.

use super::{Page, Span, Tone};
use crate::check::Verdict;
use crate::report::{CheckReport, Report, Summary, layer_name, text};
use std::collections::{BTreeMap, BTreeSet};

const WORD: usize = 9;

/// The table of all checks.
pub fn layers(page: &mut Page, report: &Report) {
    let numbers: BTreeSet<u8> = report.checks.iter().map(|c| c.layer).collect();
    for number in numbers {
        let own: Vec<&CheckReport> = report.checks.iter().filter(|c| c.layer == number).collect();
        page.gap().heading(&format!("Layer {number} {}", layer_name(number)));
        page.indented(2, |page| {
            for verdict in [Verdict::Fail, Verdict::Warn, Verdict::Unknown] {
                findings(page, verdict, &own, report);
            }
            orphans(page, &own, report);
            folded(page, Verdict::Skip, &own);
            folded(page, Verdict::Pass, &own);
        });
    }
}

fn findings(page: &mut Page, verdict: Verdict, own: &[&CheckReport], report: &Report) {
    let id_cells = own.iter().filter(|c| needs_reason(c)).map(|c| text::width(&c.id)).max().unwrap_or(0).min(44);
    for check in own.iter().filter(|c| c.outcome == verdict) {
        let id = format!("{}{}", check.id, " ".repeat(id_cells.saturating_sub(text::width(&check.id))));
        page.line(vec![
            Span::verdict(verdict, WORD - 1),
            Span::new(Tone::Strong, id),
            Span::new(Tone::Dim, format!("  from {}", check.vantage)),
        ]);
        page.indented(WORD + 1, |page| {
            page.text(Tone::Plain, check.reason.as_deref().unwrap_or(&check.title));
            let blocked: Vec<&CheckReport> = report.checks.iter().filter(|c| root_of(report, c) == Some(check.id.as_str())).collect();
            if !blocked.is_empty() {
                let lead = format!("{} blocks {}: ", Verdict::Blocked.glyph(false), blocked.len());
                page.item(vec![Span::new(Tone::Verdict(Verdict::Blocked), lead)], Tone::Plain, by_check(&blocked));
            }
        });
    }
}

fn needs_reason(check: &CheckReport) -> bool {
    matches!(check.outcome, Verdict::Fail | Verdict::Warn | Verdict::Unknown)
}

/// What blocks a check in the end: `blocked_by` followed until it is no blocked check itself.
fn root_of<'a>(report: &'a Report, check: &'a CheckReport) -> Option<&'a str> {
    let mut root = check.blocked_by.as_deref().filter(|_| check.outcome == Verdict::Blocked)?;
    // As many steps as there are checks, so that a circle in a hostile report ends.
    for _ in 0..report.checks.len() {
        match report.checks.iter().find(|c| c.id == root && c.outcome == Verdict::Blocked).and_then(|c| c.blocked_by.as_deref()) {
            Some(next) => root = next,
            None => break,
        }
    }
    Some(root)
}

/// Blocked checks whose root has no line of its own to stand under.
fn orphans(page: &mut Page, own: &[&CheckReport], report: &Report) {
    for check in own.iter().filter(|c| c.outcome == Verdict::Blocked) {
        let root = root_of(report, check);
        if report.checks.iter().any(|c| Some(c.id.as_str()) == root && needs_reason(c)) {
            continue;
        }
        page.line(vec![Span::verdict(Verdict::Blocked, WORD - 1), Span::new(Tone::Strong, &check.id)]);
        page.indented(WORD + 1, |page| {
            page.text(Tone::Plain, check.reason.clone().unwrap_or_else(|| format!("needs {}", root.unwrap_or("something unnamed"))));
        });
    }
}

/// Checks of one verdict in as few lines as possible: one for each reason.
fn folded(page: &mut Page, verdict: Verdict, own: &[&CheckReport]) {
    let mut by_reason: BTreeMap<&str, Vec<&CheckReport>> = BTreeMap::new();
    for check in own.iter().filter(|c| c.outcome == verdict) {
        by_reason.entry(check.reason.as_deref().unwrap_or_default()).or_default().push(check);
    }
    for (reason, checks) in by_reason {
        let names = by_check(&checks);
        let prose = if reason.is_empty() { names } else { format!("{names}: {reason}") };
        page.item(vec![Span::verdict(verdict, WORD - 1), Span::new(Tone::Plain, format!("{:<3} ", checks.len()))], Tone::Dim, prose);
    }
}

/// Instances of the same check together: `tailscale-up[calypso, tethys] · mtu`.
fn by_check(checks: &[&CheckReport]) -> String {
    let mut order: Vec<(&str, Vec<&str>)> = Vec::new();
    for check in checks {
        let (name, instance) = check.id.split_once('[').map_or((check.id.as_str(), ""), |(a, b)| (a, b.trim_end_matches(']')));
        match order.iter_mut().find(|(known, _)| *known == name) {
            Some((_, instances)) => instances.push(instance),
            None => order.push((name, vec![instance])),
        }
    }
    let one = |(name, instances): (&str, Vec<&str>)| match instances.as_slice() {
        [""] => name.to_owned(),
        _ => format!("{name}[{}]", instances.join(", ")),
    };
    order.into_iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// `✓ 9 pass`, `! 1 warn`, ..., zeros left out.
pub fn counts(summary: &Summary) -> Vec<Span> {
    let some = Verdict::ALL.into_iter().filter(|v| summary.count(*v) > 0);
    some.map(|v| Span::new(Tone::Verdict(v), format!("{} {} {v}", v.glyph(false), summary.count(v)))).collect()
}
