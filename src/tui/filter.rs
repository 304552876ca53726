//! The filter of the check list: `layer:2 state:fail,unknown node:calypso free text`. All words must match.

use crate::check::Verdict;
use crate::run::state::Row;

/// A parsed filter. An empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Layer(Vec<String>),
    State(Vec<String>),
    Node(Vec<String>),
    Text(String),
}

impl Filter {
    /// Every text is a filter: what is not `layer:`, `state:` or `node:` is searched for. A comma means or.
    pub fn parse(text: &str) -> Self {
        Self { words: text.split_whitespace().map(|word| parse_word(&word.to_lowercase())).collect() }
    }

    /// Whether a check passes the filter.
    pub fn matches(&self, row: &Row<'_>) -> bool {
        self.words.iter().all(|word| word.matches(row))
    }
}

fn parse_word(word: &str) -> Word {
    let values = |list: &str| list.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect();
    match word.split_once(':') {
        Some(("layer", list)) => Word::Layer(values(list)),
        Some(("state", list)) => Word::State(values(list)),
        Some(("node", list)) => Word::Node(values(list)),
        _ => Word::Text(word.to_owned()),
    }
}

impl Word {
    fn matches(&self, row: &Row<'_>) -> bool {
        match self {
            // Nothing after the colon yet: a person is still typing.
            Self::Layer(v) | Self::State(v) | Self::Node(v) if v.is_empty() => true,
            Self::Layer(layers) => layers.contains(&row.planned.layer.to_string()),
            Self::State(states) => states.iter().any(|s| state_word(row).starts_with(s.as_str())),
            Self::Node(nodes) => nodes.iter().any(|n| concerns(row, n)),
            Self::Text(text) => haystack(row).contains(text.as_str()),
        }
    }
}

/// The verdict's word, or how far the check has come.
pub fn state_word(row: &Row<'_>) -> &'static str {
    match (row.verdict(), row.running_since) {
        (_, Some(_)) => "running",
        (Some(verdict), None) => verdict.word(),
        (None, None) => "waiting",
    }
}

/// Whether a check looks from a node or is about it: `[calypso>tethys]` concerns both.
fn concerns(row: &Row<'_>, node: &str) -> bool {
    let instance = row.planned.id.split_once('[').map_or("", |(_, rest)| rest).to_lowercase();
    row.planned.vantage.to_lowercase().starts_with(node) || instance.contains(node)
}

fn haystack(row: &Row<'_>) -> String {
    let check = row.check;
    let parts = [
        row.planned.id.as_str(),
        &row.planned.title,
        &row.planned.vantage,
        check.map_or("", |c| &c.target),
        check.and_then(|c| c.reason.as_deref()).unwrap_or(""),
    ];
    parts.join("\n").to_lowercase()
}

/// Whether a verdict counts as a failure for `f`, `]` and `[`.
pub fn is_failure(row: &Row<'_>) -> bool {
    row.verdict() == Some(Verdict::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;
    use crate::tui::fixture;

    fn found(filter: &str) -> Vec<String> {
        let run = Run::fold(&fixture::blocked_vxlan());
        let filter = Filter::parse(filter);
        run.rows().filter(|row| filter.matches(row)).map(|row| row.planned.id.clone()).collect()
    }

    #[test]
    fn words_narrow_the_list() {
        assert_eq!(found("").len(), 21);
        assert_eq!(found("layer:1,3").len(), 10);
        assert_eq!(found("layer:2 state:fail node:calypso"), ["vxlan-wire[calypso>tethys]", "vxlan-wire[tethys>calypso]"]);
        assert_eq!(found("state:unk,warn"), ["tailscale-path[calypso>tethys]", "node-ready[calypso]"]);
        assert_eq!(found("DERP"), ["tailscale-path[calypso>tethys]"]);
        assert_eq!(found("node:styx"), ["tailscale-up[styx]"]);
        assert_eq!(found("18.116.211.217:5432"), ["postgres[tethys]"]);
        assert_eq!(found("layer:").len(), 21);
        assert!(found("state:nonsense").is_empty());
    }
}
