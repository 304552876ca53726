//! `vxlan-wire`: echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// Echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand.
pub(super) static KIND: Kind = Kind {
    name: "vxlan-wire",
    root: "wire",
    about: "Echo requests through the overlay while the outer UDP packets are captured on the underlay, at both ends where both are at hand",
    privilege: Some("CAP_NET_RAW for the capture"),
    args: &[
        ("device", "VXLAN device"),
        ("parent", "underlay device"),
        ("port", "outer UDP port"),
        ("vni", "VXLAN network identifier"),
        ("to", "inner destination address"),
        ("count", "number of echo requests (3)"),
    ],
    facts: &[
        fact("sent", "count", "echo requests sent"),
        fact("echoes", "count", "replies received"),
        fact("rtt_median_ms", "ms", "median round trip of the replies"),
        fact("left", "count", "outer packets seen leaving on the underlay"),
        fact("returned", "count", "outer packets seen coming back on the underlay"),
        fact("vni", "number", "VNI seen in the outer packets that left"),
        fact("outer_source", "address", "outer source"),
        fact("outer_destination", "address", "outer destination"),
        fact("inner_mac", "text", "inner destination hardware address"),
        fact("last_seen", "text", "where the request was last seen, in words"),
        fact("witness.arrived", "count", "outer packets seen arriving at the witness' underlay"),
        fact("witness.answered", "count", "outer packets seen leaving the witness"),
        fact("witness.device_present", "bool", "the witness has the VXLAN device"),
        fact("witness.device_rx", "count", "packets that the witness' VXLAN device received meanwhile"),
        fact("witness.forwarded", "count", "IpForwDatagrams of the witness meanwhile"),
        fact("witness.csum_errors", "count", "UdpInCsumErrors of the witness meanwhile"),
        fact("witness.no_ports", "count", "UdpNoPorts of the witness meanwhile"),
    ],
    decode: decode::<VxlanWire>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VxlanWire {
    #[serde(default)]
    device: Option<toml::Value>,
    #[serde(default)]
    parent: Option<toml::Value>,
    #[serde(default)]
    port: Option<toml::Value>,
    #[serde(default)]
    vni: Option<toml::Value>,
    #[serde(default)]
    to: Option<toml::Value>,
    #[serde(default)]
    count: Option<toml::Value>,
}

#[async_trait]
impl Probe for VxlanWire {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
