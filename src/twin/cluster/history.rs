//! What has changed, in order: watches are served from it.

use super::Resource;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// Changes that are kept. A watch from before them is told that its version is too old, as etcd's compaction makes it.
const KEPT: usize = 4096;

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// The store's version when it was made.
    pub version: u64,
    /// What kind of object.
    pub resource: Resource,
    /// The object before; absent if it was added.
    pub before: Option<Value>,
    /// The object afterwards; absent if it was deleted.
    pub after: Option<Value>,
}

/// The latest changes.
#[derive(Debug, Default)]
pub(super) struct History {
    changes: VecDeque<Arc<Change>>,
    /// Every change after this version is kept.
    oldest: u64,
}

impl History {
    pub(super) fn add(&mut self, changes: Vec<Change>) {
        self.changes.extend(changes.into_iter().map(Arc::new));
        while self.changes.len() > KEPT {
            if let Some(gone) = self.changes.pop_front() {
                self.oldest = gone.version;
            }
        }
    }

    /// Forgets everything up to a version.
    pub(super) fn compact(&mut self, version: u64) {
        self.changes.retain(|change| change.version > version);
        self.oldest = self.oldest.max(version);
    }

    /// The changes after a version; the error is the oldest version that can be asked for.
    pub(super) fn since(&self, version: u64) -> Result<Vec<Arc<Change>>, u64> {
        if version < self.oldest {
            return Err(self.oldest);
        }
        Ok(self.changes.iter().filter(|change| change.version > version).cloned().collect())
    }
}
