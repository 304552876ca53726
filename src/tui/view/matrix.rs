//! Checks against vantages: what holds from one place and not from another is seen at a glance.

use super::paint;
use crate::check::Verdict;
use crate::report::page::{Page, Span, Tone};
use crate::report::{LAYERS, text};
use crate::run::Run;
use crate::run::state::Row;
use crate::tui::model::Model;
use std::collections::BTreeMap;

/// Cells of a column: glyph, word and how many of how many.
const CELL: usize = 15;

pub(super) fn page(model: &Model, width: usize) -> Page {
    let mut page = Page::new(width);
    let names = (width * 2 / 5).min(30);
    let columns = columns(&model.run);
    let fitting = columns.len().min(width.saturating_sub(names) / CELL).max(1);
    let (shown, hidden) = columns.split_at(fitting.min(columns.len()));
    let mut titles = vec![Span::new(Tone::Plain, " ".repeat(names))];
    titles.extend(shown.iter().map(|v| Span::new(Tone::Strong, text::fit(v, CELL))));
    page.line(titles);
    for (layer, name) in LAYERS {
        let rows: Vec<Row<'_>> = model.run.rows().filter(|r| r.planned.layer == layer).collect();
        if rows.is_empty() {
            continue;
        }
        page.heading(&format!("{layer} {name}"));
        for check in in_order(&rows) {
            let mut line = vec![Span::new(Tone::Plain, format!("{} ", text::fit(check, names - 1)))];
            line.extend(shown.iter().map(|vantage| {
                let here: Vec<&Row<'_>> = rows.iter().filter(|r| r.planned.check == check && r.planned.vantage == *vantage).collect();
                cell(model, &here)
            }));
            page.line(line);
        }
    }
    if !hidden.is_empty() {
        page.gap().text(Tone::Dim, format!("not shown: {}; + and a wider screen show more", hidden.join(", ")));
    }
    page
}

/// The run's vantages, then places that nothing looks from although a check wants to.
fn columns(run: &Run) -> Vec<&str> {
    let mut columns: Vec<&str> = run.vantages.iter().map(|v| v.id.as_str()).collect();
    for planned in run.planned.iter().filter(|p| p.decided.is_none()) {
        if !columns.contains(&planned.vantage.as_str()) {
            columns.push(&planned.vantage);
        }
    }
    columns
}

/// Check ids in plan order, each once.
fn in_order<'a>(rows: &[Row<'a>]) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        if !seen.contains(&row.planned.check.as_str()) {
            seen.push(&row.planned.check);
        }
    }
    seen
}

/// The worst verdict, and how many of how many where there are several.
fn cell(model: &Model, rows: &[&Row<'_>]) -> Span {
    let Some(first) = rows.first() else { return Span::new(Tone::Dim, text::fit("·", CELL)) };
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    rows.iter().filter_map(|r| r.verdict()).for_each(|v| *counts.entry(rank(v)).or_default() += 1);
    let worst = rows.iter().filter_map(|r| r.verdict()).min_by_key(|v| rank(*v));
    let Some(worst) = worst else {
        let open = paint::status(model, first);
        return Span { tone: open.tone, text: text::fit(&open.text, CELL) };
    };
    let share = if rows.len() > 1 { format!(" {}/{}", counts.get(&rank(worst)).copied().unwrap_or(0), rows.len()) } else { String::new() };
    let verdict = Span::verdict(worst, 0);
    Span { tone: verdict.tone, text: text::fit(&format!("{}{share}", verdict.text.trim_end()), CELL) }
}

/// What says most comes first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fail => 0,
        Verdict::Blocked => 1,
        Verdict::Unknown => 2,
        Verdict::Warn => 3,
        Verdict::Pass => 4,
        Verdict::Skip => 5,
    }
}
