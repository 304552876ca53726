//! Help: the key table, and how to read the screen.

use crate::check::Verdict;
use crate::report::page::{Page, Span, Tone};
use crate::report::text;
use crate::tui::keys::KEYS;
use crate::tui::update::command::COMMANDS;

pub(super) fn page(width: usize) -> Page {
    let mut page = Page::new(width);
    for key in KEYS {
        page.item(vec![Span::new(Tone::Code, text::fit(key.label, 8))], Tone::Plain, key.long);
    }
    page.gap().heading("Commands, after :");
    for (name, word, about) in COMMANDS {
        page.item(vec![Span::new(Tone::Code, text::fit(&format!("{name} {word}"), 17))], Tone::Plain, about);
    }
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    page.text(Tone::Plain, format!("Or what a key does, by name: {}.", names.join(", ")));
    page.gap().heading("Verdicts");
    for verdict in Verdict::ALL {
        page.item(vec![Span::verdict(verdict, 8)], Tone::Plain, meaning(verdict));
    }
    page.gap().heading("Filter");
    page.text(Tone::Plain, "Words narrow the list together: layer:2 · state:fail,unknown · node:calypso · any other text is searched for.");
    page
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "looked, and all is as it must be",
        Verdict::Warn => "looked, and it works, but not as it should",
        Verdict::Fail => "looked, and it is not as it must be",
        Verdict::Unknown => "could not look; says nothing about the network",
        Verdict::Blocked => "did not look, because something it needs is not there",
        Verdict::Skip => "not meaningful here",
    }
}
