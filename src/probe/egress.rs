//! `egress`: the source address that the outside sees, by echo services.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// The source address that the outside sees, by echo services.
pub(super) static KIND: Kind = Kind {
    name: "egress",
    root: "egress",
    about: "The source address that the outside sees, by echo services",
    privilege: None,
    args: &[("echoes", "URLs that answer with the caller's address"), ("route_to", "address whose route explains the path (optional)")],
    facts: &[
        fact("address", "address", "what the echo services answered; the majority where they differ"),
        fact("answered", "count", "echo services that answered"),
        fact("agree", "bool", "all answers are the same"),
        fact("answers", "list", "each echo service: url, address or error, ms"),
        fact("route_device", "text", "device by which the kernel sends to `route_to`"),
        fact("route_table", "number", "table that decided it"),
    ],
    decode: decode::<Egress>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    #[serde(default)]
    echoes: Option<toml::Value>,
    #[serde(default)]
    route_to: Option<toml::Value>,
}

#[async_trait]
impl Probe for Egress {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
