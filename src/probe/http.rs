//! `http`: an HTTP(S) request, phase by phase.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// An HTTP(S) request, phase by phase.
pub(super) static KIND: Kind = Kind {
    name: "http",
    root: "http",
    about: "An HTTP(S) request, phase by phase",
    privilege: None,
    args: &[
        ("url", "URL"),
        ("nameserver", "nameserver for the host name (absent: the vantage's own resolver)"),
        ("status", "expected status, for the evidence only"),
    ],
    facts: &[
        fact("status", "number", "HTTP status; 0 if there was no answer"),
        fact("error", "text", "errno word, TIMEOUT, `dns: ..`, `tls: ..`; empty if answered"),
        fact("stage", "text", "where it stopped: resolve, connect, tls, send, headers, body, or done"),
        fact("address", "address", "address connected to"),
        fact("resolve_ms", "ms", "name resolution"),
        fact("connect_ms", "ms", "TCP handshake"),
        fact("tls_ms", "ms", "TLS handshake; 0 for http"),
        fact("first_byte_ms", "ms", "request sent until headers"),
        fact("total_ms", "ms", "everything"),
        fact("server", "text", "Server header"),
        fact("body", "text", "start of the body, cleaned"),
    ],
    decode: decode::<Http>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    #[serde(default)]
    url: Option<toml::Value>,
    #[serde(default)]
    nameserver: Option<toml::Value>,
    #[serde(default)]
    status: Option<toml::Value>,
}

#[async_trait]
impl Probe for Http {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
