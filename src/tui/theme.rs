//! Colours and signs. Status is always glyph and word; colour only adds to it.

use crate::check::Verdict;
use crate::report::page::Tone;
use ratatui::style::{Color, Modifier, Style};

/// Which of the terminal's colours stand for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// The eight usual ones: readable on most backgrounds.
    #[default]
    Usual,
    /// The bright ones, nothing dim: for dark backgrounds and poor screens.
    Bright,
    /// No yellow, no cyan: for light backgrounds.
    Light,
}

/// How the screen looks. Uses the terminal's own 16 colours, so that it fits dark and light backgrounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours; off with `NO_COLOR`.
    pub color: bool,
    /// ASCII only.
    pub ascii: bool,
    /// Which colours.
    pub palette: Palette,
}

impl Theme {
    /// The theme for an environment: `NO_COLOR` (any value but empty, no-color.org) and what `--ascii` says.
    pub fn new(no_color: Option<&str>, ascii: bool) -> Self {
        Self { color: no_color.is_none_or(str::is_empty), ascii, palette: Palette::Usual }
    }

    /// The next theme: the palettes, then none. A key that a person presses outweighs `NO_COLOR`.
    pub fn next(self) -> Self {
        let (color, palette) = match (self.color, self.palette) {
            (false, _) => (true, Palette::Usual),
            (true, Palette::Usual) => (true, Palette::Bright),
            (true, Palette::Bright) => (true, Palette::Light),
            (true, Palette::Light) => (false, Palette::Usual),
        };
        Self { color, palette, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match (self.color, self.palette) {
            (false, _) => "no colours",
            (true, Palette::Usual) => "usual colours",
            (true, Palette::Bright) => "bright colours, for dark backgrounds",
            (true, Palette::Light) => "colours for light backgrounds",
        }
    }

    /// The style of a tone.
    pub fn style(&self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let style = match (tone, self.palette) {
            (Tone::Plain, _) => Style::new(),
            (Tone::Dim, Palette::Bright) => Style::new().fg(Color::Gray),
            (Tone::Dim, _) => Style::new().add_modifier(Modifier::DIM),
            (Tone::Strong, _) => bold,
            (Tone::Heading, palette) => bold.fg(accent(palette)),
            (Tone::Code, palette) => Style::new().fg(accent(palette)),
            (Tone::Verdict(verdict), palette) => verdict_style(verdict, palette),
        };
        if self.color { style } else { Style { fg: None, bg: None, ..style } }
    }

    /// The style of the chosen row: reversed, so that it shows without colours too, and in one piece.
    pub fn chosen(&self) -> Style {
        Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED).remove_modifier(Modifier::DIM)
    }

    /// One frame of the spinner.
    pub fn spinner(&self, frame: usize) -> &'static str {
        const BRAILLE: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const ASCII: [&str; 4] = ["|", "/", "-", "\\"];
        if self.ascii { ASCII[frame % ASCII.len()] } else { BRAILLE[frame % BRAILLE.len()] }
    }
}

fn accent(palette: Palette) -> Color {
    match palette {
        Palette::Usual => Color::Cyan,
        Palette::Bright => Color::LightCyan,
        Palette::Light => Color::Blue,
    }
}

fn verdict_style(verdict: Verdict, palette: Palette) -> Style {
    let [pass, warn, fail, unknown, blocked] = match palette {
        Palette::Usual => [Color::Green, Color::Yellow, Color::Red, Color::Magenta, Color::Blue],
        Palette::Bright => [Color::LightGreen, Color::LightYellow, Color::LightRed, Color::LightMagenta, Color::LightBlue],
        Palette::Light => [Color::Green, Color::Magenta, Color::Red, Color::Blue, Color::Blue],
    };
    match verdict {
        Verdict::Pass => Style::new().fg(pass),
        Verdict::Warn => Style::new().fg(warn),
        Verdict::Fail => Style::new().fg(fail).add_modifier(Modifier::BOLD),
        Verdict::Unknown => Style::new().fg(unknown),
        Verdict::Blocked => Style::new().fg(blocked),
        Verdict::Skip => Style::new().add_modifier(Modifier::DIM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_means_no_colour() {
        let theme = Theme::new(Some("1"), false);
        for tone in Verdict::ALL.map(Tone::Verdict).into_iter().chain([Tone::Dim, Tone::Heading, Tone::Code]) {
            assert_eq!(theme.style(tone).fg, None);
        }
        assert!(Theme::new(None, false).color && Theme::new(Some(""), false).color);
    }

    #[test]
    fn the_themes_come_round() {
        let first = Theme::new(None, false);
        let mut seen = vec![first];
        while seen.last().map(|t| t.next()) != Some(first) {
            seen.push(seen[seen.len() - 1].next());
            assert!(seen.len() < 10);
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(seen.iter().map(Theme::name).collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
