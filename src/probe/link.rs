//! `link`: a network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// A network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included.
pub(super) static KIND: Kind = Kind {
    name: "link",
    root: "link",
    about: "A network device by netlink (RTM_GETLINK, RTM_GETADDR), VXLAN attributes included",
    privilege: None,
    args: &[("name", "device name"), ("other", "a second device to compare the age with (optional)")],
    facts: &[
        fact("present", "bool", "the device exists"),
        fact("up", "bool", "administratively up and lower layer up"),
        fact("index", "number", "interface index; a device made later has a higher one"),
        fact("kind", "text", "`vxlan`, `bridge`, `tun`, `veth`, or empty"),
        fact("mtu", "bytes", "MTU"),
        fact("mac", "text", "hardware address, lower case with colons; empty for TUN"),
        fact("addresses", "list of text", "IPv4 addresses with prefix length"),
        fact("vni", "number", "VXLAN network identifier"),
        fact("port", "number", "VXLAN UDP port"),
        fact("local", "address", "VXLAN source address"),
        fact("learning", "bool", "VXLAN learns addresses from traffic"),
        fact("parent", "text", "device below; empty if none"),
        fact("parent_present", "bool", "that device exists"),
        fact("parent_mtu", "bytes", "its MTU"),
        fact("parent_index", "number", "its interface index"),
        fact("parent_addresses", "list of text", "its IPv4 addresses with prefix length"),
        fact("tx_dropped", "count", "packets dropped on sending since the device exists"),
        fact("other_present", "bool", "the other device exists"),
        fact("other_index", "number", "its interface index"),
        fact("other_mtu", "bytes", "its MTU"),
    ],
    decode: decode::<Link>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    #[serde(default)]
    name: Option<toml::Value>,
    #[serde(default)]
    other: Option<toml::Value>,
}

#[async_trait]
impl Probe for Link {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
