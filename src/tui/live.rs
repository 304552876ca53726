//! The live watch as the screen sees it: what has changed, what is to be looked at again, and what holds it. Pure: the
//! loop keeps the time.

use crate::run::Again;
use crate::run::again::summary;
use crate::run::watch::Change;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// Changes that are told apart until they are looked at; one more says nothing new.
const MOST: usize = 64;

/// Whether changes are noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Watching {
    /// Not asked for yet.
    #[default]
    Off,
    /// Every change is noticed.
    On,
    /// They are not, and why.
    Not(String),
}

/// The live watch.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Whether changes are noticed.
    pub watching: Watching,
    /// Whether a person has asked to hold everything that the watch would start.
    pub paused: bool,
    /// Changes that nothing has been looked at for.
    pub pending: Vec<Change>,
    /// When the last change was noticed whose older verdicts have not all been renewed.
    pub changed_at: Option<DateTime<Utc>>,
    /// The moment before which verdicts are being renewed.
    renewing: Option<DateTime<Utc>>,
    /// What is being looked at again: why, and which checks are still to come.
    pub again: Option<(String, BTreeSet<String>)>,
    /// The last changes in words.
    pub last: Option<String>,
    /// Whether verdicts of different times stand side by side: only some checks were looked at again.
    pub mixed: bool,
}

impl Live {
    /// Takes a change in; true if it is the first since the last look, so that the short wait for more begins.
    pub fn note(&mut self, change: Change, at: DateTime<Utc>) -> bool {
        let first = self.pending.is_empty();
        if self.pending.len() < MOST && !self.pending.contains(&change) {
            self.pending.push(change);
        }
        self.changed_at = Some(at);
        self.last = Some(summary(&self.pending));
        first
    }

    /// What to look at now: first what reads the changed state, then whatever was seen before the change.
    pub fn next_again(&mut self) -> Option<Again> {
        if self.paused {
            return None;
        }
        if self.pending.is_empty() {
            self.renewing = self.changed_at;
            return self.changed_at.map(Again::Older);
        }
        Some(Again::Changed(std::mem::take(&mut self.pending)))
    }

    /// Whether something is still to be looked at because of a change.
    pub fn is_due(&self) -> bool {
        self.changed_at.is_some() || !self.pending.is_empty()
    }

    /// Checks are looked at again.
    pub fn begins(&mut self, because: &str, ids: &[String]) {
        self.again = Some((because.to_owned(), ids.iter().cloned().collect()));
        self.mixed = true;
    }

    /// A check has its new verdict.
    pub fn judged(&mut self, id: &str) {
        if let Some((_, left)) = &mut self.again {
            left.remove(id);
        }
    }

    /// The look has ended; an early end has renewed nothing for certain.
    pub fn ends(&mut self, complete: bool) {
        self.again = None;
        if complete && self.renewing == self.changed_at {
            self.mixed &= self.changed_at.is_none();
            self.changed_at = None;
        }
        self.renewing = None;
    }

    /// What the screen says about the last change.
    pub fn says(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        Some(match &self.again {
            Some((_, left)) => format!("changed: {last}, re-checking {}", checks(left.len())),
            None if self.paused && self.is_due() => format!("changed: {last}, not re-checked: paused"),
            None if self.is_due() => format!("changed: {last}, re-checking"),
            None => format!("changed: {last}, re-checked"),
        })
    }

    /// Everything is looked at anew: no verdict is older than any change.
    pub fn forget(&mut self) {
        self.pending.clear();
        self.changed_at = None;
        self.renewing = None;
        self.again = None;
        self.last = None;
        self.mixed = false;
    }
}

fn checks(n: usize) -> String {
    if n == 1 { "1 check".to_owned() } else { format!("{n} checks") }
}
