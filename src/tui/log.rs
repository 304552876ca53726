//! What was done: every probe as the command that a person would type, changes, and what a person asked for. Bounded.

use crate::check::Verdict;
use crate::report::CheckReport;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::VecDeque;

/// Most entries; older ones are forgotten.
const MOST: usize = 2000;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub what: Done,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A check was looked at.
    Looked {
        /// Instance id.
        id: String,
        /// What came of it.
        verdict: Verdict,
        /// From where.
        vantage: String,
        /// How long it took.
        duration_ms: u64,
        /// The same by hand.
        by_hand: Option<String>,
    },
    /// Anything else, in words.
    Word(String),
}

/// The last things that were done, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
}

impl Log {
    /// Notes something in words.
    pub fn word(&mut self, at: DateTime<Utc>, word: impl Into<String>) {
        self.push(Entry { at, what: Done::Word(word.into()) });
    }

    /// Notes a check, if its probe ran.
    pub fn looked(&mut self, check: &CheckReport) {
        let Some(began) = check.started_at else { return };
        let took = TimeDelta::milliseconds(i64::try_from(check.duration_ms).unwrap_or(0));
        let what = Done::Looked {
            id: check.id.clone(),
            verdict: check.outcome,
            vantage: check.vantage.clone(),
            duration_ms: check.duration_ms,
            by_hand: check.by_hand.clone(),
        };
        self.push(Entry { at: began.checked_add_signed(took).unwrap_or(began), what });
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The entries, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }
}
