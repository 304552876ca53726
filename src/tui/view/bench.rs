//! The measurement of a model server: what would be sent, how far it is, what came of it.

use crate::report::page::{Page, Span, Tone};
use crate::report::text;
use crate::tui::bench::{Bench, Offer, Reading};
use crate::tui::model::Model;

/// Cells of the bar.
const BAR: usize = 30;

pub(super) fn page(model: &Model, width: usize) -> Page {
    let mut page = Page::new(width);
    match &model.bench {
        Bench::None => {
            page.text(Tone::Dim, "looking for a model server");
        }
        Bench::Refused(why) => {
            page.text(Tone::WARN, why).gap().text(Tone::Dim, "Nothing is measured. Enter asks again; Esc goes back.");
        }
        Bench::Offered(offer) => offered(&mut page, offer),
        Bench::Running { offer, began, reading, stopping } => {
            head(&mut page, offer);
            let seconds = (model.now - *began).num_milliseconds().max(1) as f64 / 1000.0;
            running(&mut page, offer, reading, seconds, model.theme.spinner(model.spin));
            let word =
                if *stopping { "stopping: the numbers so far are about to come" } else { "Esc or ctrl+c stops with the numbers so far" };
            page.gap().text(Tone::Dim, word);
        }
        Bench::Done { text, .. } => {
            text.lines().for_each(|line| {
                page.raw(Vec::new(), if line.contains("invalid") { Tone::WARN } else { Tone::Plain }, line);
            });
            page.gap().text(Tone::Dim, "Enter asks to measure again; Esc goes back.");
        }
    }
    page
}

fn head(page: &mut Page, offer: &Offer) {
    page.line(vec![
        Span::new(Tone::Strong, &offer.server),
        Span::new(Tone::Plain, format!("  {}", offer.target)),
        Span::new(Tone::Dim, format!("  from {}", offer.from)),
    ]);
    page.text(Tone::Plain, &offer.statement);
}

fn offered(page: &mut Page, offer: &Offer) {
    head(page, offer);
    page.gap().text(Tone::WARN, "This loads the server: answers of its users may become slower while it runs.");
    page.text(
        Tone::Plain,
        "It does not begin if requests are waiting there, and stops when requests of others begin to wait. Changes of the network are not looked at meanwhile.",
    );
    page.gap().line(vec![
        Span::new(Tone::Strong, "Enter"),
        Span::new(Tone::Plain, " sends it   "),
        Span::new(Tone::Strong, "Esc"),
        Span::new(Tone::Plain, " does not"),
    ]);
}

fn running(page: &mut Page, offer: &Offer, r: &Reading, seconds: f64, spinner: &str) {
    let all = u64::from(offer.requests);
    let filled = usize::try_from(r.done.min(all) * BAR as u64 / all.max(1)).unwrap_or(0);
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled));
    page.gap().line(vec![Span::new(Tone::Code, format!("{spinner} {bar} ")), Span::new(Tone::Plain, format!("{} of {all}", r.done))]);
    page.gap();
    let failed = r.done.saturating_sub(r.complete);
    let ttft = if r.complete > 0 { format!("{:.0} ms", r.ttft_ms / r.complete as f64) } else { "none yet".to_owned() };
    let rows = [
        ("in flight", r.in_flight.to_string()),
        ("complete", r.complete.to_string()),
        ("failed", failed.to_string()),
        ("mean TTFT", ttft),
        ("output", format!("{:.0} tokens/s", r.tokens as f64 / seconds)),
        ("elapsed", text::duration((seconds * 1000.0) as u64)),
    ];
    for (name, value) in rows {
        let tone = if name == "failed" && failed > 0 { Tone::BAD } else { Tone::Plain };
        page.item(vec![Span::new(Tone::Dim, text::fit(name, 12))], tone, value);
    }
    page.text(Tone::Dim, "Not judged yet: the client may be too slow, or the server busy with others.");
}
