//! The header: where one is, how the run goes, and the counts.
//!
//! ```text
//!  fathom › overview › 2 Kubernetes                  ⠹ 14/21 · 1.2 s
//!  ✓ 9 pass  ✗ 2 fail                        oceanid · failures only
//! ```

use super::paint;
use crate::report::page::{Span, Tone, counts};
use crate::report::{layer_name, text};
use crate::tui::live::Watching;
use crate::tui::model::{Model, Phase, Place, Screen};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub(super) fn draw(model: &Model, area: Rect, buffer: &mut Buffer) {
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let first = Rect { height: 1, ..area };
    paint::two_sided(&model.theme, &breadcrumb(model), &status(model), first, buffer);
    if area.height > 1 {
        let second = Rect { y: area.y + 1, height: 1, ..area };
        paint::two_sided(&model.theme, &tally(model), &sight(model), second, buffer);
    }
}

fn breadcrumb(model: &Model) -> Vec<Span> {
    let mut spans = vec![Span::new(Tone::Heading, "fathom")];
    for (n, place) in model.places.iter().enumerate() {
        let tone = if n + 1 == model.places.len() { Tone::Strong } else { Tone::Dim };
        spans.push(Span::new(Tone::Dim, " › "));
        spans.push(Span::new(tone, name(place)));
    }
    spans
}

fn name(place: &Place) -> String {
    match &place.screen {
        Screen::Overview => "overview".to_owned(),
        Screen::Checks(None) => "all checks".to_owned(),
        Screen::Checks(Some(layer)) => format!("{layer} {}", layer_name(*layer)),
        Screen::Check(id) => id.clone(),
        Screen::Describe(id) => format!("describe {id}"),
        Screen::Matrix => "matrix".to_owned(),
        Screen::Log => "log".to_owned(),
        Screen::Bench => "bench".to_owned(),
        Screen::Explain => "explain".to_owned(),
        Screen::Help => "help".to_owned(),
    }
}

fn status(model: &Model) -> Vec<Span> {
    if model.bench.is_running() {
        return vec![Span::new(Tone::Code, format!("{} measuring", model.theme.spinner(model.spin)))];
    }
    let (done, all) = model.run.progress();
    let took = text::duration(u64::try_from(model.elapsed().num_milliseconds()).unwrap_or(0));
    let spin = model.theme.spinner(model.spin);
    let (tone, text) = match model.phase() {
        Phase::Planning => (Tone::Code, format!("{spin} planning")),
        Phase::Running => match &model.live.again {
            Some((_, left)) => (Tone::Code, format!("{spin} re-checking {} · {took}", left.len())),
            None => (Tone::Code, format!("{spin} {done}/{all} · {took}")),
        },
        Phase::Cancelling => (Tone::WARN, format!("{spin} cancelling · {done}/{all}")),
        Phase::Done if model.run.interrupted => (Tone::WARN, format!("interrupted · {done}/{all} · {took}")),
        Phase::Done if !model.run.complete => (Tone::WARN, format!("not complete · {done}/{all} · {took}")),
        Phase::Done => match model.run.resumed {
            Some(again) => (Tone::Plain, format!("done · {all} checks · {again} again in {took}")),
            None => (Tone::Plain, format!("done · {all} checks · {took}")),
        },
        Phase::Lost => (Tone::BAD, format!("the run broke off · {done}/{all}")),
    };
    vec![Span::new(tone, text)]
}

fn tally(model: &Model) -> Vec<Span> {
    let mut spans = Vec::new();
    for count in counts(&model.run.summary()) {
        spans.push(count);
        spans.push(Span::new(Tone::Plain, "  "));
    }
    spans
}

/// Whether changes of the network are noticed.
fn watching(model: &Model) -> (Tone, &'static str) {
    match (&model.live.watching, model.live.paused) {
        (Watching::Off, _) => (Tone::Dim, ""),
        (Watching::On, false) => (Tone::GOOD, " · live"),
        (Watching::On, true) => (Tone::WARN, " · paused"),
        (Watching::Not(_), _) => (Tone::Dim, " · not live"),
    }
}

/// What narrows the list; where nothing does, the inventory's name.
fn sight(model: &Model) -> Vec<Span> {
    if !matches!(model.screen(), Screen::Checks(_)) || (model.filter.is_empty() && !model.failures_only) {
        let name = model.run.inventory.as_ref().map_or("", |i| i.name.as_str());
        let (tone, live) = watching(model);
        return vec![Span::new(Tone::Dim, text::cut(name, 20)), Span::new(tone, live)];
    }
    let mut parts = Vec::new();
    if model.failures_only {
        parts.push("failures only".to_owned());
    }
    if !model.filter.is_empty() {
        parts.push(format!("/{}", text::cut(&model.filter, 30)));
    }
    vec![Span::new(Tone::WARN, parts.join(" "))]
}
