//! `tailscale`: tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer.
pub(super) static KIND: Kind = Kind {
    name: "tailscale",
    root: "tailscale",
    about: "tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer",
    privilege: Some("access to tailscaled's socket"),
    args: &[("peer", "Tailscale address of a peer to report on (optional)")],
    facts: &[
        fact("running", "bool", "BackendState is Running"),
        fact("backend_state", "text", "BackendState; empty when tailscaled is not reachable"),
        fact("daemon", "text", "`answers`, `refused`, `absent`: state of the LocalAPI socket"),
        fact("version", "text", "tailscaled version"),
        fact("addresses", "list of text", "own Tailscale addresses"),
        fact("key_expired", "bool", "own node key has expired"),
        fact("health", "list of text", "health messages"),
        fact("exit_node_in_use", "bool", "an exit node is selected"),
        fact("exit_node_address", "address", "its Tailscale address; empty if none"),
        fact("exit_node_online", "bool", "the control server calls it online"),
        fact("exit_node_offered", "bool", "the selected peer is offered and approved as an exit node (ExitNodeOption)"),
        fact("exit_node_lan_access", "bool", "ExitNodeAllowLANAccess"),
        fact("is_exit_node", "bool", "this node advertises 0.0.0.0/0"),
        fact("accept_dns", "bool", "CorpDNS"),
        fact("peer.present", "bool", "the peer is in the network map"),
        fact("peer.online", "bool", "the control server calls it online"),
        fact("peer.direct", "bool", "a direct path is in use (CurAddr)"),
        fact("peer.relay", "text", "DERP region when relayed; empty if direct"),
        fact("peer.endpoint", "text", "current endpoint"),
        fact("peer.expired", "bool", "its key has expired"),
    ],
    decode: decode::<Tailscale>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tailscale {
    #[serde(default)]
    peer: Option<toml::Value>,
}

#[async_trait]
impl Probe for Tailscale {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}
