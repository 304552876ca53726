//! What tailscaled's `status` and `prefs` documents say. Only the fields that are needed; everything may be missing.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// `GET /localapi/v0/status` (ipnstate.Status).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) backend_state: String,
    #[serde(rename = "TailscaleIPs", deserialize_with = "nullable")]
    pub(super) addresses: Vec<String>,
    #[serde(rename = "Self")]
    pub(super) own: Option<Peer>,
    pub(super) exit_node_status: Option<ExitNode>,
    #[serde(deserialize_with = "nullable")]
    pub(super) health: Vec<String>,
    #[serde(rename = "Peer", deserialize_with = "nullable")]
    pub(super) peers: BTreeMap<String, Peer>,
}

/// A node of the tailnet (ipnstate.PeerStatus).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Peer {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "TailscaleIPs", deserialize_with = "nullable")]
    pub(super) addresses: Vec<String>,
    /// What it may send and be sent: its own addresses, and routes that are offered and approved.
    #[serde(rename = "AllowedIPs", deserialize_with = "nullable")]
    pub(super) allowed: Vec<String>,
    /// Present endpoint of a direct path; empty if there is none.
    pub(super) cur_addr: String,
    /// Present peer relay, `address:port:vni`.
    pub(super) peer_relay: String,
    /// Home DERP region.
    pub(super) relay: String,
    pub(super) online: bool,
    pub(super) active: bool,
    /// It is the selected exit node.
    pub(super) exit_node: bool,
    /// It is offered as an exit node, and approved.
    pub(super) exit_node_option: bool,
    pub(super) expired: bool,
    /// RFC 3339; absent for keys that never expire.
    pub(super) key_expiry: Option<String>,
}

/// The exit node in use (ipnstate.ExitNodeStatus). Unlike elsewhere its addresses are prefixes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ExitNode {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) online: bool,
    #[serde(rename = "TailscaleIPs", deserialize_with = "nullable")]
    pub(super) addresses: Vec<String>,
}

/// `GET /localapi/v0/prefs` (ipn.Prefs).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Prefs {
    #[serde(rename = "ExitNodeID")]
    pub(super) exit_node_id: String,
    #[serde(rename = "ExitNodeIP")]
    pub(super) exit_node_ip: String,
    #[serde(rename = "ExitNodeAllowLANAccess")]
    pub(super) exit_node_allow_lan_access: bool,
    /// Routes that peers offer are taken.
    pub(super) route_all: bool,
    #[serde(rename = "CorpDNS")]
    pub(super) corp_dns: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) advertise_routes: Vec<String>,
    /// Go type `opt.Bool`: absent where it was never set.
    pub(super) no_stateful_filtering: Option<bool>,
}

/// Go writes an empty slice or map as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// The first IPv4 address of a list of addresses or prefixes.
pub(super) fn first_ipv4(addresses: &[String]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|a| a.split('/').next()?.parse().ok())
}

/// `GET /localapi/v0/derpmap` (tailcfg.DERPMap).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct DerpMap {
    #[serde(deserialize_with = "nullable")]
    pub(super) regions: BTreeMap<String, Region>,
}

/// A region of relays.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Region {
    pub(super) region_code: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) nodes: Vec<Relay>,
}

/// A relay.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Relay {
    pub(super) host_name: String,
}

impl Peer {
    /// Routes that it offers besides its own addresses, and that are approved.
    pub(super) fn routes(&self) -> Vec<String> {
        let own = |cidr: &&String| self.addresses.iter().any(|a| cidr.split_once('/').is_some_and(|(ip, _)| ip == a));
        self.allowed.iter().filter(|cidr| !own(cidr)).cloned().collect()
    }
}

impl Status {
    /// The peer that has an address.
    pub(super) fn peer_with(&self, address: Ipv4Addr) -> Option<&Peer> {
        self.peers.values().find(|p| p.addresses.iter().any(|a| a.parse() == Ok(address)))
    }

    /// Whether an exit node is selected; `None` if that can't be told without the preferences.
    pub(super) fn uses_exit_node(&self, prefs: Option<&Prefs>) -> Option<bool> {
        match (&self.exit_node_status, prefs) {
            (Some(_), _) => Some(true),
            (None, Some(prefs)) => Some(!prefs.exit_node_id.is_empty() || !prefs.exit_node_ip.is_empty()),
            (None, None) => None,
        }
    }

    /// The selected exit node among the peers.
    pub(super) fn exit_peer(&self, prefs: Option<&Prefs>) -> Option<&Peer> {
        let id = self.exit_node_status.as_ref().map(|e| e.id.as_str()).or(prefs.map(|p| p.exit_node_id.as_str()));
        let is_it = |p: &&Peer| p.exit_node || id.is_some_and(|id| !id.is_empty() && id == p.id);
        self.peers.values().find(is_it)
    }
}
