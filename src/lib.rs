//! fathom: network diagnostics for the Oceanid cluster.

pub mod bench;
pub mod check;
pub mod cli;
pub mod def;
pub mod diagnose;
pub mod probe;
pub mod report;
pub mod run;
pub mod tui;
pub mod twin;
pub mod vantage;
