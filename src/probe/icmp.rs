//! `icmp`: echo requests to an address: loss and round-trip time.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// Echo requests to an address: loss and round-trip time.
pub(super) static KIND: Kind = Kind {
    name: "icmp",
    root: "icmp",
    about: "Echo requests to an address: loss and round-trip time",
    privilege: Some("raw sockets where net.ipv4.ping_group_range forbids datagram ones; else TCP is used"),
    args: &[
        ("address", "IPv4 address"),
        ("count", "number of echo requests (3)"),
        ("fallback_port", "TCP port whose connect time stands in where ICMP sockets are not allowed (absent: none)"),
    ],
    facts: &[
        fact("sent", "count", "echo requests sent"),
        fact("received", "count", "replies"),
        fact("loss_percent", "percent", "share of requests without a reply"),
        fact("rtt_min_ms", "ms", "shortest round trip"),
        fact("rtt_median_ms", "ms", "median round trip"),
        fact("rtt_max_ms", "ms", "longest round trip"),
        fact("method", "text", "`dgram`, `raw` or `tcp`: how it was measured"),
        fact("error", "text", "errno of the last failed send, such as ENETUNREACH; empty if none"),
    ],
    decode: decode::<Icmp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Icmp {
    #[serde(default)]
    address: Option<toml::Value>,
    #[serde(default)]
    count: Option<toml::Value>,
    #[serde(default)]
    fallback_port: Option<toml::Value>,
}

#[async_trait]
impl Probe for Icmp {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
