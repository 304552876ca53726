//! fathom: network diagnostics for the Oceanid cluster: live checks, one root cause with its proof.
//!
//! ```text
//!  assets/oceanid.toml   checks/*.toml   playbooks/*.toml        what the files say        def
//!            └──────────────┴───┬───────────┘
//!                        run::Plan::make                          instances, needs, skips   run::plan
//!                               │
//!                          run::start ══ probe.observe(vantage) ─► Observation              probe, vantage
//!                               │
//!                     check::judge ─► Verdict ─► RunEvent ─► channel                        check, run::event
//!                               │
//!            ┌──────────────────┼───────────────────┐
//!        run::Run (fold)   recorder (NDJSON)   tui::update ─► Model ─► view                 run::state, tui
//!            │
//!        diagnose ─► report ─► human · json                                                 diagnose, report
//! ```
//!
//! Everything behind the channel is a pure fold of events: the screen, the JSON and the tests cannot disagree, and a recorded
//! run reproduces any of them on another machine.
//!
//! Asynchronous code begins at [`run::start`] and ends at the event receiver; [`def`], [`check`], [`diagnose`], [`report`] and
//! [`tui::update`] are synchronous and read no clock. [`twin`] rebuilds the documented network in namespaces. Probes, verdicts and
//! diagnosis do not know whether they look at it; only the plan does: checks that load their target run there without being asked for.
//!
//! `main` is synchronous: a user namespace can be entered only before the first thread exists.

pub mod bench;
pub mod check;
pub mod cli;
pub mod def;
pub mod diagnose;
mod encoding;
pub mod probe;
pub mod report;
pub mod run;
pub mod tui;
pub mod twin;
pub mod vantage;
