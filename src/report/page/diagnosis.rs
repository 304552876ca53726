//! A diagnosis on a page: the cause, its proof, the way out, its rivals.

use super::{Page, Span, Tone, held, values};
use crate::check::Verdict;
use crate::report::{CauseState, CheckReport, Diagnosis, Fix, Report, Rival, RivalState, Summary, Support};

/// The first line of a diagnosis: code, state and where it comes from.
pub fn diagnosis_head(d: &Diagnosis) -> Vec<Span> {
    let (verdict, state) = match d.state {
        CauseState::Supported => (Verdict::Fail, "supported"),
        CauseState::Possible => (Verdict::Unknown, "possible, not proven"),
    };
    vec![
        Span::new(Tone::Verdict(verdict), format!("{} {}", verdict.glyph(false), d.code)),
        Span::new(Tone::Plain, format!("  {state}")),
        Span::new(Tone::Dim, format!("  layer {} · playbook {}", d.layer, d.playbook)),
    ]
}

/// One diagnosis in full; a possible one says what speaks for it and what would decide it.
pub fn diagnosis(page: &mut Page, d: &Diagnosis) {
    page.line(diagnosis_head(d));
    page.indented(2, |page| {
        page.text(Tone::Strong, &d.title);
        if !d.instance.is_empty() {
            page.text(Tone::Dim, d.instance.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(" · "));
        }
        evidence(page, &d.supports);
        // The rivals fill a screen or two: what to do next comes before them.
        fixes(page, &d.fix);
        list(page, "Verify: must pass afterwards", &d.verify);
        list(page, "Explains", &d.explains);
        rivals(page, "Ruled out", RivalState::Refuted, &d.rivals);
        rivals(page, "Not tested", RivalState::Untested, &d.rivals);
    });
}

fn evidence(page: &mut Page, supports: &[Support]) {
    if supports.is_empty() {
        return;
    }
    page.gap().heading("Evidence");
    for support in supports {
        page.item(vec![held(support.held)], Tone::Plain, if support.say.is_empty() { &support.that } else { &support.say });
        page.indented(4, |page| match support.held {
            None => {
                page.text(Tone::UNKNOWN, format!("could not be decided: {}", support.that));
            }
            Some(_) if !support.values.is_empty() => {
                page.text(Tone::Dim, values(&support.values));
            }
            Some(_) => {}
        });
    }
}

fn rivals(page: &mut Page, heading: &str, state: RivalState, rivals: &[Rival]) {
    let mut chosen = rivals.iter().filter(|r| r.state == state).peekable();
    if chosen.peek().is_none() {
        return;
    }
    let verdict = if state == RivalState::Refuted { Verdict::Fail } else { Verdict::Unknown };
    page.gap().heading(heading);
    for rival in chosen {
        let tone = if state == RivalState::Refuted { Tone::Dim } else { Tone::UNKNOWN };
        page.item(vec![Span::new(tone, format!("{} ", verdict.glyph(false)))], Tone::Plain, format!("{}: {}", rival.code, rival.because));
    }
}

fn fixes(page: &mut Page, fixes: &[Fix]) {
    if fixes.is_empty() {
        return;
    }
    page.gap().heading("Fix");
    for (n, fix) in fixes.iter().enumerate() {
        page.item(vec![Span::new(Tone::Strong, format!("{}. ", n + 1))], Tone::Plain, &fix.say);
        page.indented(3, |page| {
            let place = fix.at.as_deref().unwrap_or_default();
            match &fix.run {
                Some(run) => {
                    page.command(vec![Span::new(Tone::Dim, format!("{place} $ ").trim_start())], run);
                }
                None if !place.is_empty() => {
                    page.text(Tone::Dim, format!("at {place}"));
                }
                None => {}
            }
            if let Some(risk) = &fix.risk {
                page.item(vec![Span::new(Tone::WARN, "! risk: ")], Tone::Plain, risk);
            }
        });
    }
}

fn list(page: &mut Page, heading: &str, ids: &[String]) {
    if !ids.is_empty() {
        page.gap().heading(heading);
        page.text(Tone::Plain, ids.join(" · "));
    }
}

/// What to say when no cause is proven; silent when one is.
pub fn no_diagnosis(report: &Report) -> Option<Span> {
    if report.diagnoses.iter().any(|d| d.state == CauseState::Supported) {
        return None;
    }
    Some(no_cause(&report.summary, report.run.complete))
}

fn no_cause(summary: &Summary, complete: bool) -> Span {
    match (summary.fail, summary.unknown) {
        (0, _) if !complete => Span::new(Tone::UNKNOWN, "? Nothing failed so far, but the run is not complete."),
        (0, 0) if summary.pass + summary.warn == 0 => Span::new(Tone::UNKNOWN, "? Nothing was looked at."),
        (0, 0) => Span::new(Tone::GOOD, "✓ Nothing failed."),
        (0, n) => Span::new(Tone::UNKNOWN, format!("? Nothing failed, but {} could not look.", checks(n))),
        (n, _) => Span::new(Tone::BAD, format!("✗ {} failed and no known cause fits the evidence.", checks(n))),
    }
}

fn checks(n: usize) -> String {
    if n == 1 { "1 check".to_owned() } else { format!("{n} checks") }
}

/// Failing checks that no cause explains, with the reason of each.
pub fn unexplained<'a>(page: &mut Page, failing: impl IntoIterator<Item = &'a CheckReport>) {
    let mut failing = failing.into_iter().peekable();
    if failing.peek().is_none() {
        return;
    }
    page.gap().heading("Unexplained");
    for check in failing {
        page.line(vec![Span::new(Tone::BAD, format!("{} {}", check.outcome.glyph(false), check.id))]);
        page.indented(4, |page| {
            page.text(Tone::Plain, check.reason.as_deref().unwrap_or(&check.title));
        });
    }
}
