//! Running a plan: plan, start, event, state. Asynchronous only behind [`start`].

pub mod event;
pub mod plan;
mod start;
pub mod state;
pub mod watch;

pub use event::{Planned, RunEvent};
pub use plan::{Filter, Instance, Plan};
pub use start::{Limits, Running, start};
pub use state::Run;
