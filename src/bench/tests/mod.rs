//! The bench against live servers on the loopback interface.

mod accuracy;
mod hostile;
mod polite;
