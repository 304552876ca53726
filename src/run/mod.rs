//! Running a plan.

pub mod event;

pub use event::{Planned, RunEvent};
