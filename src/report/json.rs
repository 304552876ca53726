//! The report as one JSON document, and its JSON Schema.

use super::Report;
use serde_json::Value;

/// One pretty document and a newline. Its shape does not depend on any option (contract `fathom.report/1`).
pub fn render(report: &Report) -> String {
    // Every map in a report has string keys and no type of it can fail to serialise, so the error arm is never taken;
    // it still yields one valid document.
    let mut text = escape_controls(&serde_json::to_string_pretty(report).unwrap_or_else(|e| Value::from(e.to_string()).to_string()));
    text.push('\n');
    text
}

/// Escapes DEL and the C1 controls, which JSON allows inside strings and a terminal would obey. The C0 ones are escaped
/// already; the newlines between tokens stay.
fn escape_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => out.push(c),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The JSON Schema (draft 2020-12) of [`Report`], generated from the types.
pub fn schema() -> Value {
    schemars::schema_for!(Report).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::run::Run;
    use crate::tui::fixture;

    fn document(report: &Report) -> Value {
        let text = render(report);
        assert!(text.ends_with("}\n"));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_report_validates_against_the_schema() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let events = fixture::blocked_vxlan();
        for n in 1..=events.len() {
            let document = document(&fixture::report(&Run::fold(&events[..n])));
            let errors: Vec<_> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
            assert_eq!(errors, Vec::<String>::new());
        }
    }

    #[test]
    fn the_schema_refuses_what_is_not_a_report() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let mut wrong = document(&fixture::failing_report());
        wrong["summary"]["fail"] = Value::from("three");
        assert!(!validator.is_valid(&wrong));
    }

    #[test]
    fn it_reads_back_and_holds_no_control_characters() {
        let mut report = fixture::failing_report();
        report.checks[0].evidence.push(crate::check::Evidence { kind: "raw".into(), text: "\u{1b}[2J\u{9b}31m\u{7f}".into() });
        let text = render(&report);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(render(&back), text);
    }

    #[test]
    fn top_level_keys_come_in_the_documented_order() {
        let document = document(&fixture::failing_report());
        let keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["schema", "tool", "run", "inventory", "vantages", "summary", "diagnoses", "unexplained", "checks"]);
        assert_eq!(document["run"]["started_at"], "2026-03-14T03:12:07Z");
    }
}
