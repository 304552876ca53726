//! Small brushes that the regions share.

use crate::check::Verdict;
use crate::report::page::{self, Page, Span, Tone};
use crate::report::text;
use crate::run::state::Row;
use crate::tui::filter::state_word;
use crate::tui::model::{Model, Screen};
use crate::tui::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::{Margin, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Block, Borders, Paragraph, Widget};

/// A ruled region with a title and something at the right of the rule; gives back the room inside.
pub(super) fn panel(theme: &Theme, (title, right): (&str, &str), has_keys: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let block = ruled(theme, (title, right), has_keys, Borders::TOP);
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

/// The same with a line at the left, for a column beside another region.
pub(super) fn column(theme: &Theme, titles: (&str, &str), has_keys: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let block = ruled(theme, titles, has_keys, Borders::TOP | Borders::LEFT);
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

fn ruled<'a>(theme: &Theme, (title, right): (&'a str, &'a str), has_keys: bool, borders: Borders) -> Block<'a> {
    let title_style = if has_keys { theme.style(Tone::Heading) } else { theme.style(Tone::Strong) };
    // A title is drawn over the rule and would keep its dimness.
    let title_style = title_style.remove_modifier(Modifier::DIM);
    let mark = if has_keys { "▸" } else { " " };
    let mut block = Block::new()
        .borders(borders)
        .border_style(theme.style(Tone::Dim))
        .title(Line::from(Piece::styled(format!("{mark}{title} "), title_style)));
    if !right.is_empty() {
        block = block.title(Line::from(Piece::styled(format!(" {right} "), theme.style(Tone::Dim))).right_aligned());
    }
    block
}

/// Toned pieces as a line of the terminal.
pub(super) fn line(theme: &Theme, spans: &[Span]) -> Line<'static> {
    Line::from(spans.iter().map(|s| Piece::styled(s.text.clone(), theme.style(s.tone))).collect::<Vec<_>>())
}

/// Lines with a margin of one cell at both sides.
pub(super) fn lines(theme: &Theme, lines: &[page::Line], area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'_>> = lines.iter().map(|l| line(theme, &l.0)).collect();
    Paragraph::new(lines).render(area.inner(Margin::new(1, 0)), buffer);
}

/// A scrolled page, with what is visible of it at the right of its rule.
pub(super) fn page(model: &Model, page: &Page, area: Rect, buffer: &mut Buffer) {
    let rows = usize::from(area.height.saturating_sub(1));
    let first = model.scroll().min(page.lines.len().saturating_sub(rows));
    let last = (first + rows).min(page.lines.len());
    let position = if rows < page.lines.len() { format!("{}-{last} of {} lines", first + 1, page.lines.len()) } else { String::new() };
    let title = match model.screen() {
        Screen::Check(_) => "Check",
        Screen::Describe(_) => "Definition",
        Screen::Matrix => "Checks by vantage",
        Screen::Log => "Log, newest first",
        Screen::Bench => "Bench",
        Screen::Explain => "Diagnosis",
        _ => "Keys",
    };
    let has_keys = model.panel == crate::tui::model::Panel::Main;
    let inner = panel(&model.theme, (title, &position), has_keys, area, buffer);
    lines(&model.theme, &page.lines[first..last], inner, buffer);
}

/// One row of a list: the chosen one is marked, and reversed where the keys are.
pub(super) fn row(theme: &Theme, spans: &[Span], chosen: bool, has_keys: bool, area: Rect, buffer: &mut Buffer) {
    let mark = Span::new(Tone::Strong, if chosen { "▸" } else { " " });
    let spans = [&[mark], spans].concat();
    line(theme, &spans).render(area, buffer);
    if chosen && has_keys {
        buffer.set_style(area, theme.chosen());
    }
}

/// The rows of a list that are visible when `chosen` shall be among them, as near to the middle as the ends allow.
pub(super) fn window(chosen: usize, count: usize, rows: usize) -> std::ops::Range<usize> {
    let first = chosen.saturating_sub(rows / 2).min(count.saturating_sub(rows));
    first..(first + rows).min(count)
}

/// Glyph and word for how far a check has come, 9 cells wide.
pub(super) fn status(model: &Model, row: &Row<'_>) -> Span {
    match (row.verdict(), row.running_since) {
        (_, Some(_)) => Span::new(Tone::Code, format!("{} {:7}", model.theme.spinner(model.spin), state_word(row))),
        (Some(verdict), None) => Span::verdict(verdict, 7),
        (None, None) => Span::new(Tone::Dim, format!("· {:7}", state_word(row))),
    }
}

/// What there is to say about a check in one line: the reason if it has one, else its title.
pub(super) fn remark(row: &Row<'_>) -> Span {
    let reason = row.check.and_then(|c| c.reason.as_deref());
    match (row.verdict(), reason) {
        (Some(Verdict::Skip | Verdict::Blocked), Some(reason)) => Span::new(Tone::Dim, reason),
        (_, Some(reason)) => Span::new(Tone::Plain, reason),
        (_, None) => Span::new(Tone::Dim, &row.planned.title),
    }
}

/// Left and right text on one row; the right one stays whole, the left one is cut.
pub(super) fn two_sided(theme: &Theme, left: &[Span], right: &[Span], area: Rect, buffer: &mut Buffer) {
    let cells = |spans: &[Span]| spans.iter().map(|s| text::width(&s.text)).sum::<usize>();
    let width = usize::from(area.width);
    let right_cells = cells(right).min(width);
    let mut room = width.saturating_sub(right_cells + usize::from(right_cells > 0));
    let mut shown = Vec::new();
    for span in left {
        let span = Span { tone: span.tone, text: text::cut(&span.text, room) };
        room -= text::width(&span.text);
        shown.push(span);
    }
    line(theme, &shown).render(area, buffer);
    line(theme, right).right_aligned().render(area, buffer);
}

/// The whole screen in ASCII, cell by cell.
pub(super) fn in_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if let Some(c) = cell.symbol().chars().next().filter(|_| !cell.symbol().is_ascii()) {
            cell.set_char(frame_ascii(c));
        }
    }
}

fn frame_ascii(c: char) -> char {
    match c {
        '┌' | '┬' | '└' | '├' => '+',
        '█' => '#',
        '░' => '.',
        c => text::ascii(c),
    }
}

/// A style for text that is only there to be seen, such as the cursor of the filter.
pub(super) fn cursor(theme: &Theme) -> Style {
    theme.chosen()
}
