//! `route`: what the kernel itself would do with a packet (RTM_GETROUTE), and what table main says.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// What the kernel itself would do with a packet (RTM_GETROUTE), and what table main says.
pub(super) static KIND: Kind = Kind {
    name: "route",
    root: "route",
    about: "What the kernel itself would do with a packet (RTM_GETROUTE), and what table main says",
    privilege: None,
    args: &[
        ("to", "destination address"),
        ("from", "source address (optional)"),
        ("iif", "device the packet would come in by (optional; asks for forwarding)"),
        ("mark", "firewall mark (optional)"),
    ],
    facts: &[
        fact("found", "bool", "the kernel has a way to send it"),
        fact("error", "text", "errno if not, such as ENETUNREACH or EHOSTUNREACH; empty if found"),
        fact("device", "text", "outgoing device"),
        fact("table", "number", "routing table the answer came from; 254 is main"),
        fact("gateway", "address", "next hop; empty if on-link"),
        fact("source", "address", "source address the kernel would choose"),
        fact("main_device", "text", "outgoing device of the longest match in table main alone; empty if none"),
        fact("main_prefix", "text", "that route's prefix, `default` for 0.0.0.0/0"),
    ],
    decode: decode::<Route>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    #[serde(default)]
    to: Option<toml::Value>,
    #[serde(default)]
    from: Option<toml::Value>,
    #[serde(default)]
    iif: Option<toml::Value>,
    #[serde(default)]
    mark: Option<toml::Value>,
}

#[async_trait]
impl Probe for Route {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
