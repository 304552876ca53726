//! Servers of the twin: each answers its real protocol, in the namespace that it is given.

pub mod api;
pub mod apps;
pub mod dns;
pub mod localapi;
pub mod pki;
pub mod postgres;
pub mod vllm;
