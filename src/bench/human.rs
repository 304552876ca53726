//! The report as text for a person.

use super::baseline::{Comparison, Verdict};
use super::report::Report;
use super::stats::{Figure, Summary};
use crate::check::clean;
use std::fmt::Write;

/// The whole report; `ascii` leaves out signs beyond ASCII.
pub fn render(report: &Report, ascii: bool) -> String {
    let mut text = String::new();
    head(&mut text, report);
    figures(&mut text, report);
    rates(&mut text, report);
    server(&mut text, report);
    limit(&mut text, report);
    if let Some(baseline) = &report.baseline {
        compared(&mut text, baseline);
    }
    ladder(&mut text, report);
    let _ = writeln!(text, "\nexit {}: {}", report.exit_code, meaning(report));
    if ascii { text.replace('·', "-").replace('…', "...") } else { text }
}

fn head(text: &mut String, r: &Report) {
    let _ = writeln!(
        text,
        "{} · {} · from {} · {}",
        clean(&r.target, 200),
        clean(&r.plan.model, 100),
        r.from,
        r.started_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    let _ = writeln!(text, "{}; warm-up: {} complete, in no figure", r.plan.statement(), r.warmup_complete);
    if let Some(why) = &r.stopped {
        let _ = writeln!(text, "stopped early: {why}; the figures are about what was done until then");
    }
    let _ = writeln!(text, "{}", r.validity.word());
    for reason in &r.validity.reasons {
        let _ = writeln!(text, "  {}", clean(reason, 300));
    }
    text.push('\n');
}

fn figures(text: &mut String, r: &Report) {
    let f = &r.figures;
    // An invalid number must not be read without its mark, line by line.
    let mark = if r.validity.valid { "" } else { "   (invalid)" };
    let _ = writeln!(text, "{:<26} {:>6} {:>10} {:>10} {:>10} {:>10} {:>10}{mark}", "ms", "n", "mean", "p50", "p90", "p99", "max");
    let chunk = if f.chunks_are_tokens { "ITL (between tokens)" } else { "between chunks" };
    let rows: [(&str, &Summary); 9] = [
        ("TTFT (first token)", &f.ttft_ms),
        ("  connect", &f.connect_ms),
        ("  TLS", &f.tls_ms),
        ("  upload", &f.upload_ms),
        ("  admit, preprocess", &f.headers_ms),
        ("  queue, vision, prefill", &f.first_ms),
        ("TPOT (per output token)", &f.tpot_ms),
        (chunk, &f.inter_chunk_ms),
        ("E2E (whole answer)", &f.e2e_ms),
    ];
    for (name, s) in rows.into_iter().filter(|(_, s)| s.n > 0) {
        let cells: Vec<String> = [&s.mean, &s.p50, &s.p90, &s.p99, &s.max].into_iter().map(|v| format!("{:>10}", cell(v))).collect();
        let _ = writeln!(text, "{name:<26} {:>6} {}{mark}", s.n, cells.join(" "));
    }
}

fn cell(figure: &Figure) -> String {
    match figure {
        Figure::Number(n) if n.abs() >= 1000.0 => format!("{n:.0}"),
        Figure::Number(n) if n.abs() >= 10.0 => format!("{n:.1}"),
        Figure::Number(n) => format!("{n:.2}"),
        Figure::Infinite(_) => "inf".to_owned(),
        Figure::Unknown { .. } => "?".to_owned(),
    }
}

fn rates(text: &mut String, r: &Report) {
    let f = &r.figures;
    let mark = if r.validity.valid { "" } else { "   (invalid)" };
    let mut counts = format!("{} complete", f.complete);
    for (n, word) in
        [(f.failed, "failed"), (f.unsent, "unsent"), (f.cut, "cut off by the end"), (f.truncated, "truncated"), (f.looping, "looping")]
    {
        if n > 0 {
            counts += &format!(", {n} {word}");
        }
    }
    let _ = writeln!(text, "\nrequests    {counts}");
    for (error, n) in &f.errors {
        let _ = writeln!(text, "            {n} x {}", clean(error, 200));
    }
    let _ = writeln!(text, "throughput  {} output tokens/s, {} requests/s{mark}", cell(&f.output_tokens_per_s), cell(&f.requests_per_s));
    if f.pages_per_s.number().is_some() {
        let _ = writeln!(text, "            {} pages/s{mark}", cell(&f.pages_per_s));
    }
    if let Some(g) = f.goodput {
        let percent = |share: f64| share * 100.0;
        let _ = writeln!(
            text,
            "goodput     {} of {} good: {:.1} % (95 %: {:.1} to {:.1}), wanted {:.1} %{mark}",
            g.good,
            g.n,
            percent(g.share),
            percent(g.low),
            percent(g.high),
            percent(f.goodput_wanted)
        );
    }
    let c = &r.client;
    let share = |part: Option<f64>| part.map_or_else(|| "?".to_owned(), |p| format!("{:.1} %", p / c.window_ms * 100.0));
    let number = |v: Option<f64>| v.map_or_else(|| "?".to_owned(), |v| format!("{v:.2}"));
    let _ = writeln!(
        text,
        "client      ran {}, waited for a processor {}, {} events per read, loop late {} ms (p99), {} of the answers read late",
        share(c.running_ms),
        share(c.waiting_ms),
        number(c.events_per_read()),
        number(c.lag_p99_ms),
        c.read_late().map_or_else(|| "?".to_owned(), |p| format!("{:.0} %", p * 100.0))
    );
}

fn server(text: &mut String, r: &Report) {
    let s = &r.server;
    let word = match s.agrees {
        Some(true) => "agrees",
        Some(false) => "does not agree",
        None => "does not tell",
    };
    let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let _ = writeln!(
        text,
        "server      {word}: {} requests (here {}), {} output tokens (here {})",
        count(s.requests.server),
        s.requests.client,
        count(s.output_tokens.server),
        s.output_tokens.client
    );
    if s.server_ttft_ms.number().is_some() {
        let mostly = s.mostly.as_ref().map(|m| format!("; mostly {m}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "            mean TTFT {} ms there, {} here: queue {}, prefill {}, network {}{mostly}",
            cell(&s.server_ttft_ms),
            cell(&s.client_ttft_ms),
            cell(&s.queue_ms),
            cell(&s.prefill_ms),
            cell(&s.network_ms)
        );
    }
    for note in &s.notes {
        let _ = writeln!(text, "            {}", clean(note, 300));
    }
}

fn limit(text: &mut String, r: &Report) {
    let Some(b) = &r.bound else { return };
    for l in b.limits.iter().take(1) {
        let share = l.share.number().map_or_else(|| "?".to_owned(), |s| format!("{:.1} %", s * 100.0));
        let _ = writeln!(
            text,
            "limit       {share} of what {} could: {} tokens/s with {} streams; binding: {}",
            l.gpu,
            cell(&l.most_tokens_per_s),
            cell(&b.streams),
            b.binds.as_deref().unwrap_or("?")
        );
    }
    for note in &b.notes {
        let _ = writeln!(text, "            {note}");
    }
}

fn compared(text: &mut String, b: &Comparison) {
    let word = |v: Verdict| match v {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "inconclusive",
    };
    let _ = writeln!(text, "baseline    {} against {} (at most {:.0} % slower)", word(b.verdict), b.baseline_started_at, b.margin * 100.0);
    for c in &b.compared {
        let known = c.ratio.map_or_else(
            || "no finite medians".to_owned(),
            |r| format!("x {:.3} (95 %: {:.3} to {:.3}); could have seen {:.1} %", r.ratio, r.low, r.high, r.detectable * 100.0),
        );
        let _ = writeln!(text, "            {:<5} {}: {known}", c.what, word(c.verdict));
    }
}

fn ladder(text: &mut String, r: &Report) {
    let Some(ladder) = &r.ladder else { return };
    let _ = writeln!(text, "\n{:>6} {:>10} {:>10} {:>10} {:>10}  ", "at once", "tokens/s", "TTFT p50", "TPOT p50", "E2E p50");
    for rung in &ladder.rungs {
        let cells: Vec<String> =
            [&rung.output_tokens_per_s, &rung.ttft_p50_ms, &rung.tpot_p50_ms, &rung.e2e_p50_ms].map(|v| format!("{:>10}", cell(v))).into();
        let knee = if Some(rung.concurrency) == ladder.knee { "  <- knee" } else { "" };
        let _ = writeln!(text, "{:>7} {}  {}{knee}", rung.concurrency, cells.join(" "), rung.validity);
    }
    let _ = writeln!(text, "ended: {}; the figures above are those of one rung ({} at a time)", clean(&ladder.ended, 200), rung_of(r));
}

fn rung_of(r: &Report) -> u32 {
    match r.plan.load {
        super::plan::Load::Closed { concurrency } => concurrency,
        super::plan::Load::Open { .. } => 0,
    }
}

fn meaning(r: &Report) -> &'static str {
    match r.exit_code {
        0 => "good",
        1 => "requests failed, or an SLO or the baseline was missed",
        3 if !r.validity.valid => "invalid: do not use these figures",
        3 => "inconclusive",
        130 => "interrupted; these are the numbers so far",
        _ => "usage",
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::super::sample::tests::good;
    use super::*;

    #[test]
    fn an_invalid_run_never_shows_a_number_alone() {
        let mut r = report((0..4).map(|_| good(10.0, 5.0, 10)).collect());
        assert!(!render(&r, true).contains("invalid"));
        r.validity.doubt("client-limited", "starved");
        r.exit_code = r.judge();
        let text = render(&r, true);
        assert!(text.contains("invalid: client-limited\n  starved\n") && text.is_ascii());
        for line in text.lines().filter(|l| l.starts_with("TTFT") || l.starts_with("TPOT") || l.starts_with("throughput")) {
            assert!(line.ends_with("(invalid)"), "{line}");
        }
    }

    #[test]
    fn hostile_errors_are_cleaned() {
        let mut r = report(vec![good(10.0, 5.0, 10)]);
        r.figures.errors.insert("\u{1b}[2J".into(), 1);
        assert!(!render(&r, false).contains('\u{1b}'));
    }
}
