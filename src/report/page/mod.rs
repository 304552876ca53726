//! A page: lines of toned text, wrapped to a width. The plain report prints it, the terminal program scrolls it, so both
//! say the same thing in the same words. Everything that enters a page is cleaned here, once.

mod check;
mod diagnosis;
mod layers;

pub use check::check;
pub use diagnosis::{diagnosis, diagnosis_head, no_diagnosis, unexplained};
pub use layers::{counts, layers};

use super::text;
use crate::check::{Verdict, clean};

/// What a piece of text means; a theme turns it into colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text.
    #[default]
    Plain,
    /// Less important.
    Dim,
    /// Important.
    Strong,
    /// A section's heading.
    Heading,
    /// Something to type.
    Code,
    /// Says what the verdict says.
    Verdict(Verdict),
}

impl Tone {
    /// Good news.
    pub const GOOD: Self = Self::Verdict(Verdict::Pass);
    /// Bad news.
    pub const BAD: Self = Self::Verdict(Verdict::Fail);
    /// Something to beware of.
    pub const WARN: Self = Self::Verdict(Verdict::Warn);
    /// Not known.
    pub const UNKNOWN: Self = Self::Verdict(Verdict::Unknown);
}

/// A piece of text with its tone; free of control characters and line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it means.
    pub tone: Tone,
    /// The text.
    pub text: String,
}

impl Span {
    /// A piece of text, cleaned; line breaks become spaces.
    pub fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { tone, text: tidy(text.as_ref()).replace('\n', " ") }
    }

    /// A verdict as glyph and word, `word` cells wide after the glyph.
    pub fn verdict(verdict: Verdict, word: usize) -> Self {
        Self::new(Tone::Verdict(verdict), format!("{} {:word$}", verdict.glyph(false), verdict.word()))
    }
}

/// One line of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Span>);

impl Line {
    /// Its text without tones.
    pub fn text(&self) -> String {
        self.0.iter().map(|s| s.text.as_str()).collect()
    }

    fn is_heading(&self, name: &str) -> bool {
        self.0.iter().any(|s| s.tone == Tone::Heading && s.text == name)
    }
}

/// Lines of toned text that all fit into a width.
#[derive(Clone, Debug)]
pub struct Page {
    /// The lines, top to bottom.
    pub lines: Vec<Line>,
    width: usize,
    indent: usize,
}

impl Page {
    /// An empty page of a width in cells; no narrower than 20.
    pub fn new(width: usize) -> Self {
        Self { lines: Vec::new(), width: width.max(20), indent: 0 }
    }

    /// An empty line, unless the page is empty or the last line is one already.
    pub fn gap(&mut self) -> &mut Self {
        if self.lines.last().is_some_and(|l| !l.0.is_empty()) {
            self.lines.push(Line::default());
        }
        self
    }

    /// A section's heading.
    pub fn heading(&mut self, name: &str) -> &mut Self {
        self.line(vec![Span::new(Tone::Heading, name)])
    }

    /// Number of the line that carries a heading.
    pub fn find_heading(&self, name: &str) -> Option<usize> {
        self.lines.iter().position(|l| l.is_heading(name))
    }

    /// One line of pieces, cut where the page ends.
    pub fn line(&mut self, spans: Vec<Span>) -> &mut Self {
        let mut line = self.margin();
        let mut room = self.room();
        for mut span in spans {
            span.text = text::cut(&span.text, room);
            room -= text::width(&span.text);
            if !span.text.is_empty() {
                line.push(span);
            }
        }
        self.lines.push(Line(line));
        self
    }

    /// Pieces one after the other, two spaces apart, each kept whole.
    pub fn flow(&mut self, pieces: Vec<Span>) -> &mut Self {
        let mut row: Vec<Span> = Vec::new();
        let mut used = 0;
        for piece in pieces {
            let cells = text::width(&piece.text);
            if used > 0 && used + 2 + cells > self.room() {
                self.line(std::mem::take(&mut row));
                used = 0;
            }
            if used > 0 {
                row.push(Span::new(Tone::Plain, "  "));
            }
            used += cells + if used > 0 { 2 } else { 0 };
            row.push(piece);
        }
        self.line(row)
    }

    /// Prose, wrapped.
    pub fn text(&mut self, tone: Tone, prose: impl AsRef<str>) -> &mut Self {
        self.item(Vec::new(), tone, prose)
    }

    /// Prose that hangs behind a lead such as a glyph or a name.
    pub fn item(&mut self, lead: Vec<Span>, tone: Tone, prose: impl AsRef<str>) -> &mut Self {
        let hang = lead.iter().map(|s| text::width(&s.text)).sum::<usize>();
        let rows = text::wrap(&tidy(prose.as_ref()), self.room().saturating_sub(hang));
        self.hang(lead, tone, rows)
    }

    /// Raw text behind a lead: its spaces and line breaks stay.
    pub fn raw(&mut self, lead: Vec<Span>, tone: Tone, raw: impl AsRef<str>) -> &mut Self {
        let hang = lead.iter().map(|s| text::width(&s.text)).sum::<usize>();
        let rows = text::fold(&tidy(raw.as_ref()), self.room().saturating_sub(hang));
        self.hang(lead, tone, rows)
    }

    /// A shell command behind a lead. A long one goes on in the next line after a backslash, so that it can be copied.
    pub fn command(&mut self, lead: Vec<Span>, command: impl AsRef<str>) -> &mut Self {
        let hang = lead.iter().map(|s| text::width(&s.text)).sum::<usize>();
        let rows = text::wrap_command(&tidy(command.as_ref()), self.room().saturating_sub(hang));
        self.hang(lead, Tone::Code, rows)
    }

    fn hang(&mut self, lead: Vec<Span>, tone: Tone, rows: Vec<String>) -> &mut Self {
        let hang = lead.iter().map(|s| text::width(&s.text)).sum::<usize>();
        for (n, row) in rows.into_iter().enumerate() {
            let mut spans = if n == 0 { lead.clone() } else { vec![Span::new(Tone::Plain, " ".repeat(hang))] };
            spans.push(Span { tone, text: row });
            self.line(spans);
        }
        self
    }

    /// Whatever `write` adds, moved to the right.
    pub fn indented(&mut self, cells: usize, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.indent += cells;
        write(self);
        self.indent -= cells;
        self
    }

    fn room(&self) -> usize {
        self.width.saturating_sub(self.indent)
    }

    fn margin(&self) -> Vec<Span> {
        if self.indent == 0 { Vec::new() } else { vec![Span::new(Tone::Plain, " ".repeat(self.indent))] }
    }
}

fn tidy(raw: &str) -> String {
    clean(raw, 4000)
}

/// `name = value` of every fact that a sentence rests on, in one line of prose.
fn values<'a>(values: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> String {
    values.into_iter().map(|(name, value)| format!("{name} = {}", text::cut(&text::value(value), 120))).collect::<Vec<_>>().join(" · ")
}

/// The glyph for whether something holds.
fn held(held: Option<bool>) -> Span {
    let verdict = match held {
        Some(true) => Verdict::Pass,
        Some(false) => Verdict::Fail,
        None => Verdict::Unknown,
    };
    Span::new(Tone::Verdict(verdict), format!("{} ", verdict.glyph(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_enters_a_page_can_steer_a_terminal() {
        let mut page = Page::new(40);
        page.line(vec![Span::new(Tone::Plain, "a\u{1b}[31m\nb")]).text(Tone::Plain, "\u{9b}2J \u{202e}x").raw(
            vec![],
            Tone::Plain,
            "\rq\n\u{7f}",
        );
        assert!(page.lines.iter().all(|l| !l.text().chars().any(char::is_control)));
    }

    #[test]
    fn lines_never_leave_the_page() {
        let mut page = Page::new(24);
        page.indented(4, |page| {
            page.item(vec![Span::verdict(Verdict::Fail, 7)], Tone::Plain, "日本語 and a rather long sentence after it");
        });
        assert!(page.lines.len() > 2);
        assert!(page.lines.iter().all(|l| text::width(&l.text()) <= 24), "{page:?}");
    }
}
