//! Colours and signs. Status is always glyph and word; colour only adds to it.

use crate::check::Verdict;
use crate::report::page::Tone;
use ratatui::style::{Color, Modifier, Style};

/// How the screen looks. Uses the terminal's own 16 colours, so that it fits dark and light backgrounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours; off with `NO_COLOR`.
    pub color: bool,
    /// ASCII only.
    pub ascii: bool,
}

impl Theme {
    /// The theme for an environment: `NO_COLOR` (any value but empty, no-color.org) and what `--ascii` says.
    pub fn new(no_color: Option<&str>, ascii: bool) -> Self {
        Self { color: no_color.is_none_or(str::is_empty), ascii }
    }

    /// The style of a tone.
    pub fn style(&self, tone: Tone) -> Style {
        let style = match tone {
            Tone::Plain => Style::new(),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Heading => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
            Tone::Code => Style::new().fg(Color::Cyan),
            Tone::Verdict(verdict) => verdict_style(verdict),
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

fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Pass => Style::new().fg(Color::Green),
        Verdict::Warn => Style::new().fg(Color::Yellow),
        Verdict::Fail => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Verdict::Unknown => Style::new().fg(Color::Magenta),
        Verdict::Blocked => Style::new().fg(Color::Blue),
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
}
