//! What is copied: the line that one is at, or what is on screen as Markdown; and the escape sequence that hands a text to
//! the terminal's clipboard (OSC 52, xterm's "Manipulate Selection Data"), which also works over SSH.

use super::model::{Model, Panel, Screen};
use super::view;
use crate::check::{Verdict, clean};
use crate::encoding::base64;
use crate::report::{CauseState, CheckReport, Diagnosis, Fix, Report, text};
use std::fmt::Write;

/// Longest text that is handed over: terminals drop sequences that are much longer, without a word.
pub const LONGEST: usize = 70_000;

/// The sequence for a text; `None` if it is too long.
pub fn osc52(text: &str) -> Option<String> {
    (text.len() <= LONGEST).then(|| format!("\x1b]52;c;{}\x07", base64(text.as_bytes())))
}

/// The line that one is at; on a page the command that does by hand what the page is about.
pub fn line(model: &Model) -> Option<String> {
    let of_check = |id: &str| model.run.check(id).map(one_line);
    match (model.panel, model.screen()) {
        (Panel::Diagnosis, _) | (_, Screen::Explain) => shown(model).map(|d| format!("{}: {}", d.code, d.title)),
        (Panel::Findings, Screen::Overview) => model.findings().get(model.finding_row).and_then(|row| of_check(&row.planned.id)),
        (_, Screen::Overview) => Some(layer(model)),
        (_, Screen::Checks(_)) => {
            let listed = model.listed();
            listed.get(model.chosen_row(&listed)).and_then(|row| of_check(&row.planned.id))
        }
        (_, Screen::Check(id)) => of_check(id),
        _ => view::page(model).and_then(|page| page.lines.get(model.scroll()).map(|l| l.text().trim_end().to_owned())),
    }
}

/// What is on screen as Markdown.
pub fn markdown(model: &Model) -> Option<String> {
    let report = model.report.as_ref();
    match (model.panel, model.screen()) {
        (Panel::Diagnosis, _) => shown(model).map(diagnosis),
        (_, Screen::Overview | Screen::Explain) => report.map(whole),
        (_, Screen::Checks(_)) => Some(list(model)),
        (_, Screen::Check(id)) => model.run.check(id).map(check),
        _ => view::page(model).map(|page| fenced(&page.lines.iter().map(|l| l.text() + "\n").collect::<String>())),
    }
}

fn shown(model: &Model) -> Option<&Diagnosis> {
    model.report.as_ref()?.diagnoses.get(model.diagnosis)
}

fn layer(model: &Model) -> String {
    let summary = model.layer_summary(model.layer());
    let counts: Vec<String> =
        Verdict::ALL.into_iter().filter(|v| summary.count(*v) > 0).map(|v| format!("{} {}", summary.count(v), v.word())).collect();
    format!("layer {} {}: {}", model.layer(), crate::report::layer_name(model.layer()), counts.join(", "))
}

fn one_line(check: &CheckReport) -> String {
    let reason = check.reason.as_deref().unwrap_or(&check.title);
    tidy(&format!("{} {}: {reason}", check.outcome.word(), check.id))
}

/// The whole run: counts, causes, then what failed.
fn whole(report: &Report) -> String {
    let mut out = format!("# fathom: run {}\n\n", report.run.id);
    let counts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|v| report.summary.count(*v) > 0)
        .map(|v| format!("{} {}", report.summary.count(v), v.word()))
        .collect();
    let so_far = if report.run.complete { "" } else { " (not complete)" };
    let _ = writeln!(out, "{} · {}{so_far}\n", report.run.started_at.format("%Y-%m-%d %H:%M:%S UTC"), counts.join(", "));
    for d in &report.diagnoses {
        out.push_str(&diagnosis(d));
        out.push('\n');
    }
    let failing: Vec<&CheckReport> = report.checks.iter().filter(|c| c.outcome == Verdict::Fail).collect();
    if !failing.is_empty() {
        out.push_str("## Failing checks\n\n");
        failing.into_iter().for_each(|c| out.push_str(&row(c, report.unexplained.contains(&c.id))));
    }
    out
}

fn row(check: &CheckReport, unexplained: bool) -> String {
    let mark = if unexplained { " (unexplained)" } else { "" };
    let reason = check.reason.as_deref().unwrap_or(&check.title);
    format!("- {} `{}`{mark}: {}\n", check.outcome.word(), tidy(&check.id), prose(reason))
}

fn list(model: &Model) -> String {
    let rows = model.listed();
    rows.iter().filter_map(|row| row.check).map(|check| row(check, false)).collect()
}

fn diagnosis(d: &Diagnosis) -> String {
    let state = if d.state == CauseState::Supported { "supported" } else { "possible, not proven" };
    let mut out = format!("## `{}` ({state})\n\n{}\n\n", d.code, prose(&d.title));
    for support in &d.supports {
        let held = match support.held {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "could not be decided",
        };
        let _ = writeln!(out, "- {held}: {}", prose(&support.say));
    }
    if !d.fix.is_empty() {
        out.push_str("\nFix:\n\n");
        d.fix.iter().enumerate().for_each(|(n, fix)| step(&mut out, n + 1, fix));
    }
    if !d.verify.is_empty() {
        let _ = writeln!(out, "\nVerify: {}", d.verify.iter().map(|id| format!("`{}`", tidy(id))).collect::<Vec<_>>().join(", "));
    }
    out
}

fn step(out: &mut String, n: usize, fix: &Fix) {
    let at = fix.at.as_deref().map(|at| format!(" ({})", prose(at))).unwrap_or_default();
    let _ = writeln!(out, "{n}. {}{at}", prose(&fix.say));
    if let Some(run) = &fix.run {
        out.push_str(&fenced(&format!("{run}\n")));
    }
    if let Some(risk) = &fix.risk {
        let _ = writeln!(out, "   Risk: {}", prose(risk));
    }
}

fn check(check: &CheckReport) -> String {
    let mut out = format!("## `{}`: {}\n\n{}\n\n", tidy(&check.id), check.outcome.word(), prose(&check.title));
    if let Some(reason) = &check.reason {
        let _ = writeln!(out, "{}\n", prose(reason));
    }
    let _ = writeln!(out, "From {} · {} · {}\n", prose(&check.vantage), prose(&check.target), text::duration(check.duration_ms));
    for e in &check.expectations {
        let held = match e.held {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "could not be decided",
        };
        let _ = writeln!(out, "- {held}: `{}` ({})", tidy(&e.that), e.code);
    }
    for piece in &check.evidence {
        let _ = write!(out, "\n{}:\n\n{}", prose(&piece.kind), fenced(&piece.text));
    }
    if let Some(by_hand) = &check.by_hand {
        let _ = write!(out, "\nBy hand:\n\n{}", fenced(by_hand));
    }
    out
}

/// A block that no line of the text can end.
fn fenced(raw: &str) -> String {
    let text = clean(raw, 60_000);
    let longest = text.lines().map(|l| l.trim_start().chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}\n", text.trim_end())
}

/// Text in one line in which nothing is markup.
fn prose(raw: &str) -> String {
    let mut out = String::new();
    for c in tidy(raw).chars() {
        if matches!(c, '*' | '_' | '`' | '[' | ']' | '<' | '\\' | '#' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn tidy(raw: &str) -> String {
    clean(raw, 4000).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;
    use crate::tui::tests::model;

    #[test]
    fn lines_and_markdown_say_what_is_on_screen() {
        let of = |keys: &str| model(&fixture::blocked_vxlan(), (80, 24), keys);
        for (keys, wanted) in [
            ("", "layer 1 Physical:"),
            ("\tj", "fail vxlan-wire[tethys>calypso]:"),
            ("\t\t", "udp8472-blocked: "),
            ("2", "pass flannel-device[calypso]:"),
            ("]", "fail vxlan-wire[calypso>tethys]:"),
            ("x", "udp8472-blocked: "),
        ] {
            let line = line(&of(keys)).unwrap();
            assert!(line.starts_with(wanted) && !line.contains('\n'), "{keys:?}: {line}");
        }
        let report = markdown(&of("")).unwrap();
        for wanted in ["## `udp8472-blocked` (supported)", "- holds: ", "nft list ruleset", "## Failing checks", "(unexplained)"] {
            assert!(report.contains(wanted), "{wanted} is not in\n{report}");
        }
        assert!(markdown(&of("]")).unwrap().contains("## `vxlan-wire[calypso>tethys]`: fail"));
        assert!(markdown(&model(&[], (80, 24), "")).is_none());
    }

    #[test]
    fn hostile_text_stays_inside_of_its_block() {
        let block = fenced("a\n```\n# not a heading\u{1b}]52;c;x\u{7}");
        assert!(block.starts_with("````\n") && block.ends_with("\n````\n") && !block.contains('\u{1b}'));
        assert_eq!(prose("a*b\n`c`"), "a\\*b \\`c\\`");
    }

    #[test]
    fn the_sequence_holds_base64_only_and_has_an_end() {
        assert_eq!(osc52("fathom\n").unwrap(), "\x1b]52;c;ZmF0aG9tCg==\x07");
        assert!(osc52(&"x".repeat(LONGEST + 1)).is_none());
    }
}
