//! `sysctl`: a kernel setting of the vantage's network namespace.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// A kernel setting of the vantage's network namespace.
pub(super) static KIND: Kind = Kind {
    name: "sysctl",
    root: "sysctl",
    about: "A kernel setting of the vantage's network namespace",
    privilege: None,
    args: &[("key", "dotted name, such as net.ipv4.ip_forward")],
    facts: &[fact("present", "bool", "the setting exists"), fact("value", "number or text", "its value")],
    decode: decode::<Sysctl>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sysctl {
    #[serde(default)]
    key: Option<toml::Value>,
}

#[async_trait]
impl Probe for Sysctl {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
