//! A screen as lines with colours, for the terminal that stays when the program has left.

use super::svg::runs;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// The lines, without blanks at their ends and without empty lines at the end.
pub fn to_ansi(buffer: &Buffer) -> String {
    let mut lines: Vec<String> = (buffer.area.top()..buffer.area.bottom()).map(|y| line(buffer, y)).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.into_iter().map(|l| l + "\n").collect()
}

fn line(buffer: &Buffer, y: u16) -> String {
    let runs = runs(buffer, y);
    let blank = |run: &super::svg::Run<'_>| run.text.trim().is_empty() && !run.style.modifier.contains(Modifier::REVERSED);
    let used = runs.iter().rposition(|run| !blank(run)).map_or(0, |n| n + 1);
    let mut line = String::new();
    for (n, run) in runs[..used].iter().enumerate() {
        let text = if n + 1 == used && !run.style.modifier.contains(Modifier::REVERSED) { run.text.trim_end() } else { &run.text };
        let codes = codes(run.style);
        if codes.is_empty() {
            line.push_str(text);
        } else {
            line.push_str(&format!("\x1b[{codes}m{text}\x1b[0m"));
        }
    }
    line
}

/// Parameters of SGR (ECMA-48, 8.3.117).
fn codes(cell: &Cell) -> String {
    let modifiers = [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::UNDERLINED, 4), (Modifier::REVERSED, 7)];
    let modifiers = modifiers.into_iter().filter(|(m, _)| cell.modifier.contains(*m)).map(|(_, code)| code);
    let codes: Vec<String> = modifiers.chain(color(cell.fg)).map(|code: u8| code.to_string()).collect();
    codes.join(";")
}

fn color(color: Color) -> Option<u8> {
    let order = [
        Color::Black,
        Color::Red,
        Color::Green,
        Color::Yellow,
        Color::Blue,
        Color::Magenta,
        Color::Cyan,
        Color::Gray,
        Color::DarkGray,
        Color::LightRed,
        Color::LightGreen,
        Color::LightYellow,
        Color::LightBlue,
        Color::LightMagenta,
        Color::LightCyan,
        Color::White,
    ];
    let at = u8::try_from(order.iter().position(|c| *c == color)?).ok()?;
    Some(if at < 8 { 30 + at } else { 90 + at - 8 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::{model, screen};
    use crate::tui::{Theme, fixture};

    #[test]
    fn the_lines_show_the_same_screen() {
        let terminal = screen(&model(&fixture::blocked_vxlan(), (80, 24), "2jj"));
        let text = to_ansi(terminal.backend().buffer());
        let mut again = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        again.process(text.replace('\n', "\r\n").trim_end().as_bytes());
        let plain: String = terminal.backend().to_string();
        for (shown, drawn) in again.screen().contents().lines().zip(plain.lines()) {
            assert_eq!(shown.trim_end(), drawn.trim_matches('"').trim_end());
        }
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut model = model(&fixture::blocked_vxlan(), (80, 24), "");
        model.theme = Theme::new(Some("1"), false);
        let text = to_ansi(screen(&model).backend().buffer());
        assert!(!text.contains("[3") && !text.contains(";3"), "{text:?}");
    }
}
