//! The report as text for a person: the diagnosis first, then what it leaves open, then every check by layer.

use super::page::{self, Page, Span, Tone};
use super::{Report, RunReport, Summary, text};
use crate::check::Verdict;

/// How the text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours (16 of them); off in a pipe and with `NO_COLOR`.
    pub color: bool,
    /// ASCII only.
    pub ascii: bool,
    /// Columns to wrap at.
    pub width: u16,
}

/// The whole report. Ends with a newline; holds no control characters but newlines and, with colour, SGR sequences.
pub fn render(report: &Report, style: &Style) -> String {
    let mut page = Page::new(usize::from(style.width));
    head(&mut page, report);
    diagnoses(&mut page, report);
    page::unexplained(&mut page, report.checks.iter().filter(|c| report.unexplained.contains(&c.id)));
    page::layers(&mut page, report);
    foot(&mut page, report);
    print(&page, style)
}

fn head(page: &mut Page, report: &Report) {
    let run = &report.run;
    page.text(
        Tone::Dim,
        format!(
            "{} {} · {} ({}) · {} UTC · {} · run {}",
            report.tool.name,
            report.tool.version,
            report.inventory.name,
            report.inventory.source,
            run.started_at.format("%Y-%m-%d %H:%M:%S"),
            text::duration(run.duration_ms),
            run.id,
        ),
    );
    for vantage in &report.vantages {
        page.text(Tone::Dim, format!("from {}: {}", vantage.id, vantage.why));
    }
    page.gap();
}

fn diagnoses(page: &mut Page, report: &Report) {
    if let Some(span) = page::no_diagnosis(report) {
        page.line(vec![span]);
    }
    for diagnosis in &report.diagnoses {
        page.gap();
        page::diagnosis(page, diagnosis);
    }
}

fn foot(page: &mut Page, report: &Report) {
    page.gap();
    let all: usize = Verdict::ALL.iter().map(|v| report.summary.count(*v)).sum();
    let mut line = vec![Span::new(Tone::Strong, format!("{all} checks"))];
    line.extend(page::counts(&report.summary));
    page.flow(line);
    if !report.run.complete {
        page.text(Tone::UNKNOWN, "? The run is not complete: some planned checks have no verdict of their own.");
    }
    page.text(Tone::Dim, format!("exit {}: {}", report.run.exit_code, exit_meaning(&report.run, &report.summary)));
}

/// What an exit code says, given what was counted (`--fail-on` moves the line).
fn exit_meaning(run: &RunReport, summary: &Summary) -> &'static str {
    match run.exit_code {
        0 if summary.fail > 0 => "failures do not count here (--fail-on)",
        0 => "nothing failed",
        1 if summary.fail > 0 => "at least one check failed",
        1 => "a warning or an unknown counts as a failure here (--fail-on)",
        3 => "nothing failed, but something that was asked for is unknown",
        130 => "interrupted; this report is partial",
        _ => "see the messages above",
    }
}

fn print(page: &Page, style: &Style) -> String {
    let mut out = String::new();
    for line in &page.lines {
        for span in &line.0 {
            let text = if style.ascii { text::to_ascii(&span.text) } else { span.text.clone() };
            match sgr(span.tone).filter(|_| style.color) {
                Some(code) => out.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                None => out.push_str(&text),
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

/// Select Graphic Rendition parameters (ECMA-48), 16 colours.
fn sgr(tone: Tone) -> Option<&'static str> {
    Some(match tone {
        Tone::Plain => return None,
        Tone::Dim => "2",
        Tone::Strong => "1",
        Tone::Heading => "1;36",
        Tone::Code => "36",
        Tone::Verdict(Verdict::Pass) => "32",
        Tone::Verdict(Verdict::Warn) => "33",
        Tone::Verdict(Verdict::Fail) => "1;31",
        Tone::Verdict(Verdict::Unknown) => "35",
        Tone::Verdict(Verdict::Blocked) => "34",
        Tone::Verdict(Verdict::Skip) => "2",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Evidence;
    use crate::run::Run;
    use crate::tui::fixture;

    const PLAIN: Style = Style { color: false, ascii: false, width: 80 };

    #[test]
    fn a_failing_run() {
        insta::assert_snapshot!(render(&fixture::failing_report(), &PLAIN));
    }

    #[test]
    fn a_failing_run_in_ascii_and_wide() {
        let text = render(&fixture::failing_report(), &Style { ascii: true, width: 120, ..PLAIN });
        assert!(text.is_ascii());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_healthy_run() {
        insta::assert_snapshot!(render(&fixture::report(&Run::fold(&fixture::healthy())), &PLAIN));
    }

    #[test]
    fn an_interrupted_run() {
        let events = fixture::blocked_vxlan();
        let mut report = fixture::report(&Run::fold(&events[..8]));
        report.run.exit_code = 130;
        insta::assert_snapshot!(render(&report, &PLAIN));
    }

    #[test]
    fn colour_adds_sequences_and_nothing_else() {
        let report = fixture::failing_report();
        let coloured = render(&report, &Style { color: true, ..PLAIN });
        let mut parser = vt100::Parser::new(400.try_into().unwrap(), 80.try_into().unwrap(), 0);
        parser.process(coloured.replace('\n', "\r\n").as_bytes());
        let seen: Vec<_> = parser.screen().rows(0, 80).map(|r| r.trim_end().to_owned()).collect();
        let plain: Vec<_> = render(&report, &PLAIN).lines().map(|l| l.trim_end().to_owned()).collect();
        assert_eq!(seen[..plain.len()], plain);
    }

    #[test]
    fn hostile_text_in_any_place_stays_text() {
        let mut report = fixture::failing_report();
        let bad = "\u{1b}]0;owned\u{7}\u{202e}\r\n";
        report.diagnoses[0].title = bad.into();
        report.diagnoses[0].code = bad.into();
        report.diagnoses[0].rivals[0].because = bad.into();
        report.checks[2].id = bad.into();
        report.checks[5].reason = Some(bad.into());
        report.checks[5].evidence.push(Evidence { kind: bad.into(), text: bad.into() });
        report.vantages[0].why = bad.into();
        for width in [0, 1, 30, 80, 500] {
            let text = render(&report, &Style { width, ..PLAIN });
            assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')));
        }
    }
}
