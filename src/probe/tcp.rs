//! `tcp`: a TCP connection: connected, or the errno and when.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// A TCP connection: connected, or the errno and when.
pub(super) static KIND: Kind = Kind {
    name: "tcp",
    root: "tcp",
    about: "A TCP connection: connected, or the errno and when",
    privilege: None,
    args: &[("address", "IPv4 address"), ("port", "port")],
    facts: &[
        fact("connected", "bool", "the handshake completed"),
        fact("error", "text", "ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, TIMEOUT, ...; empty if connected"),
        fact("connect_ms", "ms", "until connected or failed"),
    ],
    decode: decode::<Tcp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    #[serde(default)]
    address: Option<toml::Value>,
    #[serde(default)]
    port: Option<toml::Value>,
}

#[async_trait]
impl Probe for Tcp {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
