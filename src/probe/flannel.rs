//! `flannel`: what flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// What flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations.
pub(super) static KIND: Kind = Kind {
    name: "flannel",
    root: "flannel",
    about: "What flannel must have programmed for one peer: route, neighbour, FDB, against the peer's node annotations",
    privilege: None,
    args: &[("device", "VXLAN device"), ("peer", "Kubernetes node name of the peer"), ("pod_cidr", "the peer's pod CIDR")],
    facts: &[
        fact("device_present", "bool", "the VXLAN device exists"),
        fact("route_present", "bool", "table main has exactly this pod CIDR through the device"),
        fact("route_device", "text", "device of the route for this pod CIDR in table main; empty if none"),
        fact("neighbour_present", "bool", "a permanent neighbour entry for the peer's subnet address"),
        fact("neighbour_mac", "text", "its hardware address; empty if none"),
        fact("fdb_present", "bool", "a forwarding entry for that hardware address (or, without a neighbour, for the annotated one)"),
        fact("fdb_destination", "address", "where it sends the outer packets; empty if none"),
        fact("device_routes", "count", "routes through the device, to anywhere"),
        fact("device_neighbours", "count", "permanent neighbours on the device"),
        fact("device_fdb", "count", "forwarding entries with a destination on the device"),
        fact("annotation.mac", "text", "VtepMAC that the peer published"),
        fact("annotation.public_ip", "address", "address that the peer published"),
        fact("annotation.vni", "number", "VNI that the peer published"),
    ],
    decode: decode::<Flannel>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flannel {
    #[serde(default)]
    device: Option<toml::Value>,
    #[serde(default)]
    peer: Option<toml::Value>,
    #[serde(default)]
    pod_cidr: Option<toml::Value>,
}

#[async_trait]
impl Probe for Flannel {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
