//! `dns`: a name resolved as a client would, candidate by candidate, each with rcode and time.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// A name resolved as a client would, candidate by candidate, each with rcode and time.
pub(super) static KIND: Kind = Kind {
    name: "dns",
    root: "dns",
    about: "A name resolved as a client would, candidate by candidate, each with rcode and time",
    privilege: None,
    args: &[
        ("name", "the name; a trailing dot means absolute"),
        ("server", "nameserver (absent: the first of the vantage's resolv.conf)"),
        ("search", "search domains (absent: those of resolv.conf)"),
        ("ndots", "ndots (absent: that of resolv.conf)"),
        ("transport", "`udp` (default) or `tcp`"),
        ("all", "try every candidate, also after one has answered (false)"),
    ],
    facts: &[
        fact("server", "address", "nameserver asked"),
        fact("resolved", "bool", "some candidate has an address"),
        fact("answer", "address", "first address; empty if none"),
        fact("resolved_as", "text", "candidate that answered, without the trailing dot; empty if none"),
        fact(
            "rcode",
            "text",
            "rcode of the deciding candidate: NOERROR, NXDOMAIN, NODATA, SERVFAIL, REFUSED; or TIMEOUT, ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, GARBAGE",
        ),
        fact("queries", "count", "queries sent"),
        fact("time_ms", "ms", "until the answer, or the failure of the last candidate"),
        fact("first_rcode", "text", "rcode of the first candidate"),
        fact("candidates", "list", "each candidate: name, rcode, answers, ms"),
    ],
    decode: decode::<Dns>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dns {
    #[serde(default)]
    name: Option<toml::Value>,
    #[serde(default)]
    server: Option<toml::Value>,
    #[serde(default)]
    search: Option<toml::Value>,
    #[serde(default)]
    ndots: Option<toml::Value>,
    #[serde(default)]
    transport: Option<toml::Value>,
    #[serde(default)]
    all: Option<toml::Value>,
}

#[async_trait]
impl Probe for Dns {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
