//! Servers of the twin: each answers its real protocol, in the namespace that it is given.
//!
//! A server binds before its `serve` function returns, so a caller never has to wait for readiness. It runs until
//! [`ServerHandle::stop`] or the end of the process. All `serve` functions must be called inside a tokio runtime.

pub mod api;
pub mod apps;
pub mod dns;
mod handle;
mod http;
pub mod kube_proxy;
pub mod localapi;
pub mod pki;
pub mod postgres;
pub mod stun;
pub mod vllm;

pub use handle::ServerHandle;
