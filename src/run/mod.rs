//! Running a plan: plan, start, event, state. Asynchronous only behind [`start`].

pub mod again;
pub mod event;
pub mod plan;
mod stall;
mod start;
pub mod state;
pub mod watch;

pub use again::Again;
pub use event::{Planned, RunEvent};
pub use plan::{Filter, Instance, Plan};
pub use start::{Limits, Running, start, start_again};
pub use state::Run;
