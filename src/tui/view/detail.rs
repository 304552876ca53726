//! One check in full, or what is known of it before its verdict.

use super::paint;
use crate::report::page::{self, Page, Span, Tone};
use crate::tui::model::Model;

pub(super) fn page(model: &Model, id: &str, width: usize) -> Page {
    let mut page = Page::new(width);
    match (model.run.check(id), model.run.row(id)) {
        (Some(check), _) => page::check(&mut page, check),
        (None, Some(row)) => {
            page.line(vec![paint::status(model, &row), Span::new(Tone::Strong, format!(" {id}"))]);
            page.text(Tone::Plain, &row.planned.title);
            page.gap().text(Tone::Dim, format!("from {}", row.planned.vantage));
        }
        (None, None) => {
            page.line(vec![Span::new(Tone::Strong, id)]).text(Tone::Dim, "is not in this run");
        }
    }
    needs(&mut page, model, id);
    blocks(&mut page, model, id);
    page
}

/// What a check is, as its definition says it.
pub(super) fn described(model: &Model, id: &str, width: usize) -> Page {
    let mut page = Page::new(width);
    let text = model.described.as_ref().filter(|(of, _)| of == id).map(|(_, text)| text.as_str());
    for line in text.unwrap_or("nothing is known about it").lines() {
        // What stands at the margin and is no prose is a heading.
        let heading = !line.is_empty() && !line.starts_with(' ') && !line.contains([':', '.', '(']) && line.len() < 30;
        if heading {
            page.heading(line)
        } else {
            page.raw(Vec::new(), Tone::Plain, line)
        };
    }
    page
}

fn needs(page: &mut Page, model: &Model, id: &str) {
    let needs = model.run.row(id).map_or(&[][..], |row| &row.planned.needs);
    if needs.is_empty() {
        return;
    }
    page.gap().heading("Needs");
    for need in needs {
        let status = model.run.row(need).map_or_else(|| Span::new(Tone::Dim, "not in this run "), |row| paint::status(model, &row));
        page.line(vec![status, Span::new(Tone::Plain, format!(" {need}"))]);
    }
}

fn blocks(page: &mut Page, model: &Model, id: &str) {
    let blocked = model.blocks(id);
    if !blocked.is_empty() {
        page.gap().heading(&format!("Blocks {}", blocked.len())).text(Tone::Plain, blocked.join(" · "));
    }
}
