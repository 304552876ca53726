//! Running a plan.

pub mod event;
pub mod state;

pub use event::{Planned, RunEvent};
pub use state::Run;
