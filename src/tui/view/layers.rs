//! The overview's table of layers: the worst verdict of each, and how many checks came to what.

use super::paint;
use crate::check::Verdict;
use crate::report::LAYERS;
use crate::report::page::{Span, Tone};
use crate::tui::model::{Model, Panel};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Columns after the worst verdict, the first ones staying longest when the screen is narrow. `None` is what is open.
const COLUMNS: [(Option<Verdict>, &str, usize); 7] = [
    (Some(Verdict::Pass), "pass", 5),
    (Some(Verdict::Warn), "warn", 5),
    (Some(Verdict::Fail), "fail", 5),
    (Some(Verdict::Unknown), "unknown", 8),
    (Some(Verdict::Blocked), "blocked", 8),
    (Some(Verdict::Skip), "skip", 5),
    (None, "open", 5),
];

pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let has_keys = model.panel == Panel::Main;
    let mut inner = paint::panel(&model.theme, ("Layers", ""), has_keys, area, buffer);
    let room = usize::from(inner.width).saturating_sub(1 + 14 + 10);
    if usize::from(inner.height) > LAYERS.len() {
        paint::row(&model.theme, &titles(room), false, false, Rect { height: 1, ..inner }, buffer);
        inner = Rect { y: inner.y + 1, height: inner.height - 1, ..inner };
    }
    for (n, area) in inner.rows().take(LAYERS.len()).enumerate() {
        paint::row(&model.theme, &cells(model, n, room), n == model.layer_row, has_keys, area, buffer);
    }
}

fn columns(room: usize) -> impl Iterator<Item = (Option<Verdict>, &'static str, usize)> {
    let mut used = 0;
    COLUMNS.into_iter().take_while(move |(_, _, cells)| {
        used += cells;
        used <= room
    })
}

fn titles(room: usize) -> Vec<Span> {
    let mut spans = vec![Span::new(Tone::Dim, format!("{:14}{:10}", "", "worst"))];
    spans.extend(columns(room).map(|(_, title, cells)| Span::new(Tone::Dim, format!("{title:>cells$}"))));
    spans
}

fn cells(model: &Model, n: usize, room: usize) -> Vec<Span> {
    let (layer, name) = LAYERS[n];
    let worst = match model.worst(layer) {
        Some(verdict) => Span::verdict(verdict, 8),
        None => Span::new(Tone::Dim, format!("{:10}", "·")),
    };
    let mut spans = vec![Span::new(Tone::Strong, format!("{:14}", format!("{layer} {name}"))), worst];
    spans.extend(columns(room).map(|(verdict, _, cells)| count(model, layer, verdict, cells)));
    spans
}

fn count(model: &Model, layer: u8, verdict: Option<Verdict>, cells: usize) -> Span {
    let n = verdict.map_or_else(|| model.layer_open(layer), |v| model.layer_summary(layer).count(v));
    match n {
        0 => Span::new(Tone::Dim, format!("{:>cells$}", "·")),
        n => Span::new(verdict.map_or(Tone::Code, Tone::Verdict), format!("{n:>cells$}")),
    }
}
