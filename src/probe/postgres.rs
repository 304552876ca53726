//! `postgres`: a PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// A PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words.
pub(super) static KIND: Kind = Kind {
    name: "postgres",
    root: "postgres",
    about: "A PostgreSQL server without credentials: name, TCP, SSLRequest, TLS, the server's own words",
    privilege: None,
    args: &[("host", "host name"), ("address", "address to connect to (absent: what the name resolves to)"), ("port", "port")],
    facts: &[
        fact("resolved", "bool", "the name has an address"),
        fact("address", "address", "address connected to"),
        fact("connected", "bool", "TCP handshake completed"),
        fact("connect_error", "text", "errno word or TIMEOUT; empty if connected"),
        fact("connect_ms", "ms", "until connected or failed"),
        fact("ssl_answer", "text", "answer to SSLRequest: S, N, H, E, `eof` or `timeout`"),
        fact("tls", "bool", "TLS handshake completed"),
        fact("tls_error", "text", "why not; empty if it did"),
        fact("tls_name_ok", "bool", "the certificate is for this host name and trusted"),
        fact("certificate_expires", "text", "notAfter, RFC 3339"),
        fact("startup", "text", "`auth`, `error`, `eof` or `timeout`: answer to the StartupMessage"),
        fact("auth_method", "text", "scram-sha-256, md5, cleartext, trust; empty if none"),
        fact("sqlstate", "text", "SQLSTATE of the error; empty if none"),
        fact("message", "text", "the server's message; empty if none"),
        fact("source_seen", "address", "source address that the message names; empty if none"),
        fact("total_ms", "ms", "the whole exchange"),
    ],
    decode: decode::<Postgres>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Postgres {
    #[serde(default)]
    host: Option<toml::Value>,
    #[serde(default)]
    address: Option<toml::Value>,
    #[serde(default)]
    port: Option<toml::Value>,
}

#[async_trait]
impl Probe for Postgres {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
