//! Run events: the one stream that the terminal, the JSON, recordings and the tests read.

use crate::check::Verdict;
use crate::report::{CheckReport, InventoryReport, VantageReport};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that happened in a run. Time comes with the event: nothing downstream reads a clock.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The plan is made; probing begins.
    Started {
        /// Identifier of the run.
        run: String,
        /// When.
        at: DateTime<Utc>,
        /// The inventory it goes by.
        inventory: InventoryReport,
        /// The places it looks from.
        vantages: Vec<VantageReport>,
        /// Every planned check, in report order.
        planned: Vec<Planned>,
    },
    /// Some checks of the run are looked at again; the others keep their verdicts.
    Rechecking {
        /// When.
        at: DateTime<Utc>,
        /// Why, as a clause: `flannel.1 deleted on calypso`.
        because: String,
        /// Their instance ids, in plan order.
        ids: Vec<String>,
    },
    /// A probe has begun.
    Probing {
        /// Check instance id.
        id: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// A check has its verdict.
    Judged {
        /// The finished check.
        check: Box<CheckReport>,
    },
    /// Nothing more will come.
    Finished {
        /// When.
        at: DateTime<Utc>,
        /// Whether every check that was to run has a verdict of its own (false after ctrl+C or the run's deadline).
        complete: bool,
        /// Whether a person interrupted it.
        interrupted: bool,
    },
}

/// A check that will run (or was skipped when the plan was made).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    /// Instance id: `flannel-device[calypso]`.
    pub id: String,
    /// Check id: `flannel-device`.
    pub check: String,
    /// Layer, 1 to 4.
    pub layer: u8,
    /// Title with the instance's names filled in.
    pub title: String,
    /// Vantage id.
    pub vantage: String,
    /// Instances that must pass first.
    pub needs: Vec<String>,
    /// The verdict, where the plan already decides it (skip).
    pub decided: Option<Verdict>,
}
