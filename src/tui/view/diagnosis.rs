//! The diagnosis: always in sight, a few lines above the contents or a column beside them, and in full on its own page.

use super::paint;
use crate::check::Verdict;
use crate::report::page::{self, Line, Page, Span, Tone, diagnosis_head};
use crate::report::{CheckReport, Diagnosis, Report, Support, text};
use crate::tui::model::{Model, Panel};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub(super) fn draw(model: &Model, area: Rect, wide: bool, buffer: &mut Buffer) {
    let has_keys = model.panel == Panel::Diagnosis;
    let titles = ("Diagnosis", &*position(model));
    let inner = if wide {
        paint::column(&model.theme, titles, has_keys, area, buffer)
    } else {
        paint::panel(&model.theme, titles, has_keys, area, buffer)
    };
    let (width, rows) = (usize::from(inner.width.saturating_sub(2)), usize::from(inner.height));
    let lines = if wide { full(model, width, rows) } else { brief(model, width, rows) };
    paint::lines(&model.theme, &lines, inner, buffer);
}

/// `1 of 2 · 1 unexplained`, and how far the facts can be trusted to belong together.
fn position(model: &Model) -> String {
    let Some(report) = &model.report else { return String::new() };
    let mut parts = Vec::new();
    if report.diagnoses.len() > 1 {
        parts.push(format!("{} of {}", model.diagnosis + 1, report.diagnoses.len()));
    }
    if !report.unexplained.is_empty() {
        parts.push(format!("{} unexplained", report.unexplained.len()));
    }
    if model.is_busy() {
        parts.push("so far".to_owned());
    } else if model.live.mixed {
        parts.push("checks of different times: R renews all".to_owned());
    }
    parts.join(" · ")
}

fn shown(model: &Model) -> Option<&Diagnosis> {
    model.report.as_ref()?.diagnoses.get(model.diagnosis)
}

/// Code, title, as much evidence as fits, and the first step of the fix.
fn brief(model: &Model, width: usize, rows: usize) -> Vec<Line> {
    let Some(d) = shown(model) else { return none(model, width, rows).lines };
    let mut page = Page::new(width);
    page.line(diagnosis_head(d));
    page.line(vec![Span::new(Tone::Strong, &d.title)]);
    let fix = d.fix.first().map(|fix| vec![Span::new(Tone::Code, "→ "), Span::new(Tone::Plain, &fix.say)]);
    let room = rows.saturating_sub(2 + usize::from(fix.is_some()));
    let (first, rest) = d.supports.split_at(room.min(d.supports.len()));
    for (n, support) in first.iter().enumerate() {
        let more = if n + 1 == first.len() && !rest.is_empty() { format!("  (+{} with x)", rest.len()) } else { String::new() };
        page.line(proof(support, &more, width));
    }
    if let Some(fix) = fix.filter(|_| rows > 2) {
        page.line(fix);
    }
    page.lines
}

fn proof(support: &Support, more: &str, width: usize) -> Vec<Span> {
    let verdict = match support.held {
        Some(true) => Verdict::Pass,
        Some(false) => Verdict::Fail,
        None => Verdict::Unknown,
    };
    let room = width.saturating_sub(2 + text::width(more));
    vec![
        Span::new(Tone::Verdict(verdict), format!("{} ", verdict.glyph(false))),
        Span::new(Tone::Plain, text::cut(&support.say, room)),
        Span::new(Tone::Dim, more),
    ]
}

/// The whole diagnosis, as far as it fits.
fn full(model: &Model, width: usize, rows: usize) -> Vec<Line> {
    let Some(d) = shown(model) else { return none(model, width, rows).lines };
    let mut page = Page::new(width);
    page::diagnosis(&mut page, d);
    let mut lines = page.lines;
    if lines.len() > rows {
        let hidden = lines.len() - rows.saturating_sub(1);
        lines.truncate(rows.saturating_sub(1));
        lines.push(Line(vec![Span::new(Tone::Dim, format!("… {hidden} more lines: x"))]));
    }
    lines
}

/// What to say without a diagnosis; never a cause that is not proven.
fn none(model: &Model, width: usize, rows: usize) -> Page {
    let mut page = Page::new(width);
    let summary = model.run.summary();
    if model.is_busy() {
        let failing = if summary.fail == 0 { "nothing has failed so far".to_owned() } else { format!("{} failing so far", summary.fail) };
        page.line(vec![Span::new(Tone::Code, format!("{} looking: {failing}", model.theme.spinner(model.spin)))]);
    } else if let Some(span) = model.report.as_ref().and_then(page::no_diagnosis) {
        page.item(Vec::new(), span.tone, &span.text);
    } else {
        page.text(Tone::UNKNOWN, "? There is no report on this run.");
    }
    let room = rows.saturating_sub(page.lines.len());
    for check in left_open(model).into_iter().take(room) {
        let reason = check.reason.as_deref().unwrap_or(&check.title);
        page.line(vec![
            Span::verdict(check.outcome, 0),
            Span::new(Tone::Strong, format!("  {}", check.id)),
            Span::new(Tone::Plain, format!("  {reason}")),
        ]);
    }
    page
}

/// The checks behind "no cause fits" and "could not look".
fn left_open(model: &Model) -> Vec<&CheckReport> {
    let of = |verdict| model.run.checks_in_order().filter(move |c| c.outcome == verdict);
    of(Verdict::Fail).chain(of(Verdict::Unknown)).collect()
}

/// Every diagnosis in full, then what none of them explains.
pub(super) fn explain(model: &Model, width: usize) -> Page {
    let mut page = Page::new(width);
    let Some(report) = &model.report else { return none(model, width, 100) };
    if let Some(span) = page::no_diagnosis(report).filter(|_| !model.is_busy()) {
        page.text(span.tone, &span.text);
    }
    for diagnosis in in_order(model, report) {
        page.gap();
        page::diagnosis(&mut page, diagnosis);
    }
    page::unexplained(&mut page, report.checks.iter().filter(|c| report.unexplained.contains(&c.id)));
    if page.lines.is_empty() { none(model, width, 100) } else { page }
}

/// The one that the panel shows comes first.
fn in_order<'a>(model: &Model, report: &'a Report) -> impl Iterator<Item = &'a Diagnosis> {
    let (before, from) = report.diagnoses.split_at(model.diagnosis.min(report.diagnoses.len()));
    let (chosen, after) = from.split_at(from.len().min(1));
    chosen.iter().chain(before).chain(after)
}
