//! A screen as an SVG picture, colours included: for the README, and for looking at screens without a terminal.

use crate::report::text;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use std::fmt::Write;

const CELL: (f32, f32) = (8.4, 18.0);
const MARGIN: f32 = 12.0;
const PAPER: &str = "#11151c";
const INK: &str = "#d5dbe3";

/// The picture. Each run of cells with one style is one text element with a fixed length, so that columns stay aligned
/// whatever monospaced font draws it.
pub fn to_svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let (width, height) = (f32::from(area.width) * CELL.0 + 2.0 * MARGIN, f32::from(area.height) * CELL.1 + 2.0 * MARGIN);
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1} {height:.1}" width="{width:.0}" height="{height:.0}" font-family="ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">
<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>"#
    );
    for y in area.top()..area.bottom() {
        for run in runs(buffer, y) {
            draw_run(&mut svg, &run, f32::from(y - area.y));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Neighbouring cells of one style.
pub(super) struct Run<'a> {
    column: u16,
    cells: u16,
    pub(super) text: String,
    pub(super) style: &'a Cell,
}

pub(super) fn runs(buffer: &Buffer, y: u16) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut x = buffer.area.left();
    while x < buffer.area.right() {
        let cell = &buffer[(x, y)];
        // The cell behind a wide character is empty and belongs to it.
        let cells = u16::try_from(text::width(cell.symbol())).unwrap_or(1).max(1);
        match runs.last_mut() {
            Some(run) if same_style(run.style, cell) => {
                run.text.push_str(cell.symbol());
                run.cells += cells;
            }
            _ => runs.push(Run { column: x - buffer.area.x, cells, text: cell.symbol().to_owned(), style: cell }),
        }
        x += cells;
    }
    runs
}

fn same_style(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.bg, a.modifier) == (b.fg, b.bg, b.modifier)
}

fn draw_run(svg: &mut String, run: &Run<'_>, row: f32) {
    let (x, y) = (MARGIN + f32::from(run.column) * CELL.0, MARGIN + row * CELL.1);
    let width = f32::from(run.cells) * CELL.0;
    let (ink, paper) = colours(run.style);
    if paper != PAPER {
        let _ = writeln!(svg, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{paper}"/>"#, CELL.1);
    }
    let text = run.text.trim_matches(' ');
    if text.is_empty() {
        return;
    }
    // Blanks at the ends are not drawn: renderers disagree on whether they count for the length.
    let indent = text::width(&run.text[..run.text.len() - run.text.trim_start_matches(' ').len()]);
    let (x, length) = (x + indent as f32 * CELL.0, text::width(text) as f32 * CELL.0);
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{:.1}" textLength="{length:.1}" lengthAdjust="spacingAndGlyphs" xml:space="preserve" fill="{ink}"{}>{}</text>"#,
        y + 13.5,
        attributes(run.style.modifier),
        escape(text)
    );
}

fn colours(cell: &Cell) -> (String, String) {
    let (ink, paper) = (colour(cell.fg).unwrap_or(INK.to_owned()), colour(cell.bg).unwrap_or(PAPER.to_owned()));
    if cell.modifier.contains(Modifier::REVERSED) { (paper, ink) } else { (ink, paper) }
}

fn attributes(modifier: Modifier) -> String {
    let mut attributes = String::new();
    if modifier.contains(Modifier::BOLD) {
        attributes.push_str(r#" font-weight="bold""#);
    }
    if modifier.contains(Modifier::DIM) {
        attributes.push_str(r#" opacity="0.6""#);
    }
    attributes
}

/// The 16 colours as a dark theme shows them; `None` is the terminal's own.
fn colour(colour: Color) -> Option<String> {
    let hex = match colour {
        Color::Reset => return None,
        Color::Rgb(r, g, b) => return Some(format!("#{r:02x}{g:02x}{b:02x}")),
        Color::Black => "#1c2128",
        Color::Red => "#ff6b6b",
        Color::Green => "#6bcb77",
        Color::Yellow => "#f5c451",
        Color::Blue => "#6ea8fe",
        Color::Magenta => "#d291e4",
        Color::Cyan => "#5ad1d8",
        Color::Gray => "#aab2bd",
        Color::DarkGray => "#6b7380",
        Color::LightRed => "#ff9a9a",
        Color::LightGreen => "#98e2a1",
        Color::LightYellow => "#ffe08a",
        Color::LightBlue => "#a3c8ff",
        Color::LightMagenta => "#e6bdf2",
        Color::LightCyan => "#96e6ea",
        Color::White | Color::Indexed(_) => "#ffffff",
    };
    Some(hex.to_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;
    use crate::tui::tests::{model, screen};
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn a_small_picture() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 2));
        buffer.set_string(0, 0, "a<日>", Style::new().fg(Color::Red));
        buffer.set_string(0, 1, "chosen", Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD));
        insta::assert_snapshot!(to_svg(&buffer));
    }

    #[test]
    fn a_screen_keeps_its_words_and_colours() {
        let terminal = screen(&model(&fixture::blocked_vxlan(), (120, 40), "2jj"));
        let svg = to_svg(terminal.backend().buffer());
        assert!(svg.contains("udp8472-blocked") && svg.contains("#ff6b6b"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        if let Some(path) = std::env::var_os("FATHOM_SVG") {
            std::fs::write(path, svg).unwrap();
        }
    }
}
