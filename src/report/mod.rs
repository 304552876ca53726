//! What we tell others: the report types of `fathom.report/1`, and one file per output format.

pub mod build;
pub mod human;
pub mod json;
pub mod page;
pub mod text;

use crate::check::{Evidence, Grade, Verdict};
use crate::vantage::{Transport, VantageKind};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The schema's name and version. Adding a field is a minor change; anything else is `/2`.
pub const SCHEMA: &str = "fathom.report/1";

/// The layers of the network, by number.
pub const LAYERS: [(u8, &str); 4] = [(1, "Physical"), (2, "Kubernetes"), (3, "Service"), (4, "Application")];

/// A layer's name; `Other` for a number that is not 1 to 4.
pub fn layer_name(layer: u8) -> &'static str {
    LAYERS.iter().find(|(number, _)| *number == layer).map_or("Other", |(_, name)| name)
}

/// Everything about one run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The program that wrote it.
    pub tool: Tool,
    /// The run.
    pub run: RunReport,
    /// The inventory it went by.
    pub inventory: InventoryReport,
    /// The places it looked from.
    pub vantages: Vec<VantageReport>,
    /// Number of checks per verdict.
    pub summary: Summary,
    /// Causes that the evidence supports, the first one first; then possible ones.
    pub diagnoses: Vec<Diagnosis>,
    /// Failing checks that no supported cause explains.
    pub unexplained: Vec<String>,
    /// Every check, in a stable order.
    pub checks: Vec<CheckReport>,
}

/// Name and version of the program.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Always `fathom`.
    pub name: String,
    /// Version.
    pub version: String,
}

/// The run as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    /// Identifier.
    pub id: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether every planned check has a verdict of its own.
    pub complete: bool,
    /// The process exit code that belongs to this report.
    pub exit_code: u8,
}

/// The inventory a run went by.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct InventoryReport {
    /// Its name.
    pub name: String,
    /// `built-in` or the file it was read from.
    pub source: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
}

/// A place the run looked from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct VantageReport {
    /// Stable id.
    pub id: String,
    /// What kind of place.
    pub kind: VantageKind,
    /// How fathom got there.
    pub transport: Transport,
    /// Why this one.
    pub why: String,
    /// The node it is, or the node that the pod runs on.
    #[serde(default)]
    pub node: Option<String>,
}

/// Number of checks per verdict.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Summary {
    /// Passed.
    pub pass: usize,
    /// Passed with a warning.
    pub warn: usize,
    /// Failed.
    pub fail: usize,
    /// Could not look.
    pub unknown: usize,
    /// Waited for something that did not pass.
    pub blocked: usize,
    /// Not meaningful here.
    pub skip: usize,
}

impl Summary {
    /// Counts verdicts.
    pub fn of(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let mut summary = Self::default();
        for verdict in verdicts {
            *summary.slot(verdict) += 1;
        }
        summary
    }

    /// The number for one verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        *self.clone_slot(verdict)
    }

    fn slot(&mut self, verdict: Verdict) -> &mut usize {
        match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Warn => &mut self.warn,
            Verdict::Fail => &mut self.fail,
            Verdict::Unknown => &mut self.unknown,
            Verdict::Blocked => &mut self.blocked,
            Verdict::Skip => &mut self.skip,
        }
    }

    fn clone_slot(&self, verdict: Verdict) -> &usize {
        match verdict {
            Verdict::Pass => &self.pass,
            Verdict::Warn => &self.warn,
            Verdict::Fail => &self.fail,
            Verdict::Unknown => &self.unknown,
            Verdict::Blocked => &self.blocked,
            Verdict::Skip => &self.skip,
        }
    }
}

/// Whether the evidence proves a cause, or only does not rule it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseState {
    /// Everything that must hold for it holds, and nothing refutes it.
    Supported,
    /// Nothing refutes it, but something that must hold could not be observed.
    Possible,
}

/// A cause that explains failing checks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// Stable cause code.
    pub code: String,
    /// Title, names filled in.
    pub title: String,
    /// Layer, 1 to 4.
    pub layer: u8,
    /// Id of the playbook it comes from.
    pub playbook: String,
    /// What the cause was bound to: `{node: calypso}`.
    pub instance: BTreeMap<String, String>,
    /// Supported or possible.
    pub state: CauseState,
    /// The evidence, each with its values.
    pub supports: Vec<Support>,
    /// Other causes of the same symptoms, and why they are out.
    pub rivals: Vec<Rival>,
    /// Ids of failing checks that it explains.
    pub explains: Vec<String>,
    /// What to do.
    pub fix: Vec<Fix>,
    /// Check ids that must pass afterwards.
    pub verify: Vec<String>,
}

/// One piece of evidence for a cause.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Support {
    /// The expression.
    pub that: String,
    /// What it means, values filled in.
    pub say: String,
    /// The values of the facts it reads.
    pub values: BTreeMap<String, Value>,
    /// Whether it holds; absent when it could not be decided.
    pub held: Option<bool>,
}

/// Whether a rival cause is ruled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RivalState {
    /// The evidence rules it out.
    Refuted,
    /// It could not be tested from here.
    Untested,
}

/// Another cause that could have had the same symptoms.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rival {
    /// Its code.
    pub code: String,
    /// Refuted or untested.
    pub state: RivalState,
    /// By what, or for want of what.
    pub because: String,
}

/// One step of a fix. fathom never runs it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fix {
    /// What to do.
    pub say: String,
    /// The command, if there is one.
    pub run: Option<String>,
    /// Where to run it.
    pub at: Option<String>,
    /// What it may disturb.
    pub risk: Option<String>,
}

/// One check instance with its verdict and its proof.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// Instance id: `flannel-device[calypso]`.
    pub id: String,
    /// Check id: `flannel-device`.
    pub check: String,
    /// Layer, 1 to 4.
    pub layer: u8,
    /// Title with the instance's names filled in.
    pub title: String,
    /// The verdict.
    pub outcome: Verdict,
    /// Vantage id.
    pub vantage: String,
    /// What was looked at.
    pub target: String,
    /// The facts, below the probe kind's root; unknown ones are `{"unknown": "reason"}`.
    pub facts: Value,
    /// Every expectation with its values.
    pub expectations: Vec<ExpectationReport>,
    /// The root that blocks it.
    pub blocked_by: Option<String>,
    /// Why it is unknown or skipped, or the sentence of the expectation that does not hold.
    pub reason: Option<String>,
    /// How often the probe ran: twice where fathom itself stood still at the first look.
    pub attempts: u32,
    /// When the probe began; absent if it never ran.
    pub started_at: Option<DateTime<Utc>>,
    /// How long it took.
    pub duration_ms: u64,
    /// Short raw evidence.
    pub evidence: Vec<Evidence>,
    /// How a person would look at the same thing.
    pub by_hand: Option<String>,
}

/// One expectation of a check, judged.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExpectationReport {
    /// The expression.
    pub that: String,
    /// Stable code.
    pub code: String,
    /// The sentence for when it does not hold, values filled in.
    pub say: String,
    /// Fail or warn.
    pub grade: Grade,
    /// Whether it holds; absent when it could not be decided.
    pub held: Option<bool>,
    /// The values of the facts it reads.
    pub values: BTreeMap<String, Value>,
}
