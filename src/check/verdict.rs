//! Verdicts (DESIGN section 6) and the grades an expectation can have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The probe looked, and every expectation holds.
    Pass,
    /// The probe looked, and a warn-grade expectation does not hold.
    Warn,
    /// The probe looked, and an expectation does not hold.
    Fail,
    /// The probe could not look (permission, missing tool, deadline). Never green, never called a failure.
    Unknown,
    /// Something it needs is not pass; `blocked_by` names the root.
    Blocked,
    /// Not meaningful here, with the reason.
    Skip,
}

impl Verdict {
    /// Every verdict, in the order of the report's summary.
    pub const ALL: [Self; 6] = [Self::Pass, Self::Warn, Self::Fail, Self::Unknown, Self::Blocked, Self::Skip];

    /// The word used in JSON, on screens and in filters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::Blocked => "blocked",
            Self::Skip => "skip",
        }
    }

    /// A one-cell sign, so that status never rests on colour alone.
    pub fn glyph(self, ascii: bool) -> &'static str {
        match (self, ascii) {
            (Self::Pass, false) => "✓",
            (Self::Pass, true) => "+",
            (Self::Warn, _) => "!",
            (Self::Fail, false) => "✗",
            (Self::Fail, true) => "x",
            (Self::Unknown, _) => "?",
            (Self::Blocked, false) => "⊘",
            (Self::Blocked, true) => "#",
            (Self::Skip, _) => "-",
        }
    }

    /// Whether a check that needs this one may run. A skipped need says nothing against its dependants.
    pub fn lets_dependants_run(self) -> bool {
        matches!(self, Self::Pass | Self::Warn | Self::Skip)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a check comes to when one of its expectations does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// The network does not do what it must.
    #[default]
    Fail,
    /// It works, but not as it should.
    Warn,
}
