//! What was done, newest first: each probe with the command that does the same by hand.

use crate::report::page::{Page, Span, Tone};
use crate::report::text;
use crate::tui::log::Done;
use crate::tui::model::Model;

pub(super) fn page(model: &Model, width: usize) -> Page {
    let mut page = Page::new(width);
    for entry in model.log.newest_first() {
        let at = Span::new(Tone::Dim, entry.at.format("%H:%M:%S%.3f  ").to_string());
        match &entry.what {
            Done::Word(word) => {
                page.item(vec![at], Tone::Strong, word);
            }
            Done::Looked { id, verdict, vantage, duration_ms, by_hand } => {
                let took = format!("  from {vantage}, {}", text::duration(*duration_ms));
                page.line(vec![at, Span::verdict(*verdict, 7), Span::new(Tone::Plain, format!(" {id}")), Span::new(Tone::Dim, took)]);
                if let Some(command) = by_hand {
                    page.indented(14, |page| {
                        page.command(vec![Span::new(Tone::Dim, "$ ")], command);
                    });
                }
            }
        }
    }
    if page.lines.is_empty() {
        page.text(Tone::Dim, "nothing was done yet");
    }
    page
}
