//! Lists of checks: the overview's findings, and the checks of a layer.

use super::{detail, paint};
use crate::report::page::{Span, Tone};
use crate::report::{layer_name, text};
use crate::run::Planned;
use crate::run::state::Row;
use crate::tui::model::{Model, Panel, Screen};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// What is not as it should be, on the overview.
pub(super) fn draw_findings(model: &Model, area: Rect, buffer: &mut Buffer) {
    let findings = model.findings();
    let has_keys = model.panel == Panel::Findings;
    let position = if findings.is_empty() { String::new() } else { format!("{} of {}", model.finding_row + 1, findings.len()) };
    let area = with_preview(model, &findings, model.finding_row, area, buffer);
    let inner = paint::panel(&model.theme, ("Findings", &position), has_keys, area, buffer);
    let chosen = has_keys.then_some(model.finding_row);
    rows(model, &findings, chosen, has_keys, if model.is_busy() { "none so far" } else { "none" }, inner, buffer);
}

/// The checks of a layer, or of all.
pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let listed = model.listed();
    let chosen = model.chosen_row(&listed);
    let title = match model.screen() {
        Screen::Checks(Some(layer)) => format!("Layer {layer} {}", layer_name(*layer)),
        _ => "All checks".to_owned(),
    };
    let position = if listed.is_empty() { "0".to_owned() } else { format!("{} of {}", chosen + 1, listed.len()) };
    let has_keys = model.panel == Panel::Main;
    let area = with_preview(model, &listed, chosen, area, buffer);
    let inner = paint::panel(&model.theme, (&title, &position), has_keys, area, buffer);
    rows(model, &listed, Some(chosen), has_keys, nothing(model), inner, buffer);
}

/// Draws the chosen check below its list where the list leaves room; gives back what remains for the list.
fn with_preview(model: &Model, list: &[Row<'_>], chosen: usize, area: Rect, buffer: &mut Buffer) -> Rect {
    const LEAST: u16 = 6;
    let list_rows = u16::try_from(list.len() + 2).unwrap_or(u16::MAX);
    let (Some(row), true) = (list.get(chosen), area.height >= list_rows.saturating_add(LEAST)) else { return area };
    let below = Rect { y: area.y + list_rows, height: area.height - list_rows, ..area };
    let inner = paint::panel(&model.theme, ("Chosen", ""), false, below, buffer);
    let page = detail::page(model, &row.planned.id, usize::from(inner.width.saturating_sub(2)));
    paint::lines(&model.theme, &page.lines, inner, buffer);
    Rect { height: list_rows, ..area }
}

fn nothing(model: &Model) -> &'static str {
    match (model.failures_only, model.filter.is_empty()) {
        (true, true) => "nothing has failed here; f shows all checks",
        (_, false) => "nothing matches the filter; Esc clears it",
        (false, true) => "nothing is planned here",
    }
}

fn rows(model: &Model, list: &[Row<'_>], chosen: Option<usize>, has_keys: bool, empty: &str, area: Rect, buffer: &mut Buffer) {
    if list.is_empty() {
        paint::row(&model.theme, &[Span::new(Tone::Dim, empty)], false, false, Rect { height: 1, ..area }, buffer);
        return;
    }
    let columns = Columns::new(list, usize::from(area.width).saturating_sub(2));
    let window = paint::window(chosen.unwrap_or(model.finding_row), list.len(), usize::from(area.height));
    for (n, area) in window.zip(area.rows()) {
        paint::row(&model.theme, &columns.cells(model, &list[n]), chosen == Some(n), has_keys, area, buffer);
    }
}

/// Widths of the columns. Vantage and time are there when the screen is wide enough for them.
struct Columns {
    id: usize,
    vantage: usize,
    time: usize,
    remark: usize,
}

const STATUS: usize = 10;

impl Columns {
    fn new(list: &[Row<'_>], width: usize) -> Self {
        let longest = |of: fn(&Planned) -> &str| list.iter().map(|row| text::width(of(row.planned))).max().unwrap_or(0);
        let id = longest(|p| &p.id).min(width * 45 / 100) + 2;
        let vantage = if width >= 100 { longest(|p| &p.vantage).min(24) + 2 } else { 0 };
        let time = if width >= 90 { 9 } else { 0 };
        Self { id, vantage, time, remark: width.saturating_sub(STATUS + id + vantage + time) }
    }

    fn cells(&self, model: &Model, row: &Row<'_>) -> Vec<Span> {
        let column = |text: &str, cells: usize| format!("{}  ", text::fit(text, cells.saturating_sub(2)));
        let remark = paint::remark(row);
        let mut spans =
            vec![paint::status(model, row), Span::new(Tone::Plain, " "), Span::new(Tone::Plain, column(&row.planned.id, self.id))];
        if self.vantage > 0 {
            spans.push(Span::new(Tone::Dim, column(&row.planned.vantage, self.vantage)));
        }
        spans.push(Span { tone: remark.tone, text: text::fit(&remark.text, self.remark) });
        if self.time > 0 {
            spans.push(Span::new(Tone::Dim, format!("{:>9}", took(row))));
        }
        spans
    }
}

fn took(row: &Row<'_>) -> String {
    row.check.filter(|c| c.attempts > 0).map_or_else(String::new, |c| text::duration(c.duration_ms))
}
