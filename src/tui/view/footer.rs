//! The footer: the filter while it is typed, a word to the person, or the keys.

use super::paint;
use crate::report::page::{Span, Tone};
use crate::report::text;
use crate::tui::keys::{self, Action};
use crate::tui::model::{Model, Typing};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::Widget;

pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    if let Some(typing) = model.typing {
        draw_typed(model, typing, area, buffer);
    } else if let Some(notice) = &model.notice {
        paint::two_sided(&model.theme, &[Span::new(Tone::WARN, notice)], &[], area, buffer);
    } else if let Some(word) = model.live.says() {
        paint::two_sided(&model.theme, &[Span::new(Tone::WARN, word)], &[], area, buffer);
    } else {
        paint::line(&model.theme, &offer(model, usize::from(area.width))).render(area, buffer);
    }
}

fn draw_typed(model: &Model, typing: Typing, area: Rect, buffer: &mut Buffer) {
    let (sign, line, hint) = match typing {
        Typing::Filter => ("/", &model.filter, "Enter keep  Esc clear"),
        Typing::Command => (":", &model.command, "Tab complete  Esc no"),
    };
    let hint = [Span::new(Tone::Dim, hint)];
    let room = usize::from(area.width).saturating_sub(25);
    paint::two_sided(&model.theme, &[], &hint, area, buffer);
    let line = Line::from(vec![
        Piece::styled(sign, model.theme.style(Tone::Code)),
        Piece::raw(tail(line, room)),
        Piece::styled(" ", paint::cursor(&model.theme)),
    ]);
    line.render(area, buffer);
}

/// The end of what was typed, where the cursor is.
fn tail(typed: &str, cells: usize) -> String {
    let mut rest = typed;
    while text::width(rest) > cells {
        rest = text::split_at(rest, 1).1;
    }
    rest.to_owned()
}

/// As many keys as fit whole; help and quit always do, and come last.
fn offer(model: &Model, width: usize) -> Vec<Span> {
    let mut room = width;
    let mut fitting: Vec<Action> = Vec::new();
    for action in keys::offered(model.screen(), model.is_busy()) {
        let cells = cells(action);
        if cells <= room {
            fitting.push(action);
            room = room.saturating_sub(cells + 2);
        }
    }
    let last = fitting.len().min(2);
    fitting.rotate_left(last);
    fitting.into_iter().flat_map(spans).collect()
}

fn cells(action: Action) -> usize {
    keys::row(action).map_or(0, |key| text::width(key.label) + 1 + text::width(key.short))
}

fn spans(action: Action) -> Vec<Span> {
    keys::row(action)
        .map_or_else(Vec::new, |key| vec![Span::new(Tone::Strong, key.label), Span::new(Tone::Dim, format!(" {}  ", key.short))])
}
