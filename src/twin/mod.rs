//! The digital twin: the documented network in namespaces of this machine.

pub mod cluster;
pub mod service;
