//! `fathom bench vllm`: latency and throughput of a model server, with the measurement's own validity.
//!
//! Pure parts (schedule, statistics, judgement, reconciliation, bound, baseline) know nothing of sockets; [`run`] puts
//! them together. The client that reads the streams has a thread of its own, so that its share of the machine can be
//! told from that of everything else: a starved client would report wrong numbers without noticing.

pub mod baseline;
pub mod bound;
pub mod budget;
pub mod client;
pub mod drive;
mod host;
pub mod human;
pub mod judge;
pub mod ladder;
#[cfg(test)]
mod pacer;
mod page;
pub mod plan;
pub mod prompt;
pub mod random;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod sample;
pub mod scrape;
mod stamped;
pub mod stats;
#[cfg(test)]
mod tests;
mod wire;
