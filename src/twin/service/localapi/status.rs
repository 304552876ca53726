//! State rendered as tailscaled renders it (Go type `ipnstate.Status` and its like).

use super::VERSION;
use super::state::{Peer, TailscaleState, v6};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

/// The owner of every node.
const USER: u64 = 123;
/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";
const ZERO_KEY: &str = "privkey:0000000000000000000000000000000000000000000000000000000000000000";

fn time(at: Option<DateTime<Utc>>) -> Value {
    at.map_or(json!(NEVER), |at| json!(at.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}

fn hex(seed: &str) -> String {
    Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The node's public key.
fn node_key(hostname: &str) -> String {
    format!("nodekey:{}", hex(hostname))
}

/// The node's stable id.
fn stable_id(address: Ipv4Addr) -> String {
    format!("n{}CNTRL", &hex(&address.to_string())[..11])
}

fn addresses(address: Ipv4Addr) -> Value {
    json!([address, v6(address)])
}

fn prefixes(address: Ipv4Addr) -> [String; 2] {
    [format!("{address}/32"), format!("{}/128", v6(address))]
}

/// What `GET status` answers; without peers, `Peer` is null.
pub(super) fn status(state: &TailscaleState, with_peers: bool) -> Value {
    let mut status = json!({
        "Version": VERSION,
        "TUN": true,
        "BackendState": state.backend.word(),
        "HaveNodeKey": true,
        "AuthURL": "",
        "TailscaleIPs": addresses(state.address),
        "Self": own(state),
    });
    if let Some(exit) = state.exit_node {
        status["ExitNodeStatus"] = json!({"ID": stable_id(exit.address), "Online": exit.online, "TailscaleIPs": prefixes(exit.address)});
    }
    status["Health"] = json!(state.health);
    status["MagicDNSSuffix"] = json!(state.suffix);
    status["CurrentTailnet"] =
        json!({"Name": state.suffix.trim_end_matches(".ts.net"), "MagicDNSSuffix": state.suffix, "MagicDNSEnabled": true});
    status["CertDomains"] = json!([format!("{}.{}", state.hostname, state.suffix)]);
    let peers: Map<String, Value> = state.peers.iter().map(|p| (node_key(&p.hostname), peer(state, p))).collect();
    status["Peer"] = if with_peers && !peers.is_empty() { Value::Object(peers) } else { Value::Null };
    status["User"] = json!({USER.to_string(): user(state)});
    status["ClientVersion"] = Value::Null;
    status
}

fn user(state: &TailscaleState) -> Value {
    let domain = state.suffix.trim_end_matches(".ts.net");
    json!({"ID": USER, "LoginName": format!("ops@{domain}"), "DisplayName": "Ops", "ProfilePicURL": format!("https://{domain}/ops.png")})
}

/// The fields that own node and peers have in common, in Go's order up to `Addrs`.
fn head(state: &TailscaleState, hostname: &str, address: Ipv4Addr, exit_routes: bool) -> Value {
    let own = prefixes(address);
    let every = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    let allowed: Vec<&String> = own.iter().chain(every.iter().filter(|_| exit_routes)).collect();
    let mut node = json!({
        "ID": stable_id(address),
        "PublicKey": node_key(hostname),
        "HostName": hostname,
        "DNSName": format!("{hostname}.{}.", state.suffix),
        "OS": "linux",
        "UserID": USER,
        "TailscaleIPs": addresses(address),
        "AllowedIPs": allowed,
    });
    if exit_routes {
        node["PrimaryRoutes"] = json!(every);
    }
    node
}

fn extend(node: &mut Value, more: Value) {
    if let (Some(node), Value::Object(more)) = (node.as_object_mut(), more) {
        node.extend(more);
    }
}

fn own(state: &TailscaleState) -> Value {
    let offered = state.advertises_exit && state.exit_approved;
    let mut node = head(state, &state.hostname, state.address, offered);
    let api = json!([format!("http://{}:46590", state.address), format!("http://[{}]:46590", v6(state.address))]);
    extend(
        &mut node,
        json!({
            "Addrs": state.endpoints, "CurAddr": "", "Relay": state.region.0, "PeerRelay": "", "RxBytes": 0, "TxBytes": 0,
            "Created": NEVER, "LastWrite": NEVER, "LastSeen": NEVER, "LastHandshake": NEVER,
            "Online": state.online && state.running(), "ExitNode": false, "ExitNodeOption": offered, "Active": false,
            "PeerAPIURL": if state.running() { api } else { Value::Null },
            "TaildropTarget": 0, "NoFileSharingReason": "",
            "Capabilities": ["https", "https://tailscale.com/cap/file-sharing"],
            "CapMap": {"https": null, "https://tailscale.com/cap/file-sharing": null},
            "InNetworkMap": true, "InMagicSock": false, "InEngine": false,
        }),
    );
    // Left out while the key does not expire. The own node is never marked `Expired`: its state is `NeedsLogin`.
    if let Some(at) = state.key_expiry {
        node["KeyExpiry"] = json!(at.to_rfc3339_opts(SecondsFormat::Secs, true));
    }
    node
}

fn peer(state: &TailscaleState, peer: &Peer) -> Value {
    let running = state.running();
    let mut node = head(state, &peer.hostname, peer.address, peer.exit_node_option);
    let current = peer.endpoint.filter(|_| running).map(|endpoint| endpoint.to_string()).unwrap_or_default();
    let active = running && peer.active;
    extend(
        &mut node,
        json!({
            "Addrs": null, "CurAddr": current, "Relay": state.region.0, "PeerRelay": "",
            "RxBytes": if running { peer.rx_bytes } else { 0 }, "TxBytes": if running { peer.tx_bytes } else { 0 },
            "Created": NEVER,
            "LastWrite": time(peer.last_handshake.filter(|_| running)),
            "LastSeen": time(peer.last_seen),
            "LastHandshake": time(peer.last_handshake.filter(|_| running)),
            "Online": peer.online,
            "ExitNode": state.exit_node.is_some_and(|exit| exit.address == peer.address),
            "ExitNodeOption": peer.exit_node_option,
            "Active": active,
            "PeerAPIURL": [format!("http://{}:58436", peer.address), format!("http://[{}]:58436", v6(peer.address))],
            "TaildropTarget": if peer.online { 1 } else { 5 }, "NoFileSharingReason": "",
            "Capabilities": ["https", "https://tailscale.com/cap/file-sharing"],
            "CapMap": {"https": [], "https://tailscale.com/cap/file-sharing": []},
            "InNetworkMap": true, "InMagicSock": true, "InEngine": active,
        }),
    );
    if peer.expired {
        node["Expired"] = json!(true);
    }
    node
}

/// What `GET prefs` answers.
pub(super) fn prefs(state: &TailscaleState) -> Value {
    let routes = if state.advertises_exit { json!(["0.0.0.0/0", "::/0"]) } else { Value::Null };
    json!({
        "ControlURL": "https://controlplane.tailscale.com",
        "RouteAll": state.accept_routes,
        "ExitNodeID": state.exit_node.map(|exit| stable_id(exit.address)).unwrap_or_default(),
        "ExitNodeIP": "",
        "InternalExitNodePrior": "",
        "ExitNodeAllowLANAccess": state.lan_access,
        "CorpDNS": state.accept_dns,
        "RunSSH": false,
        "RunWebClient": false,
        "WantRunning": state.backend != super::Backend::Stopped,
        "LoggedOut": false,
        "ShieldsUp": false,
        "AdvertiseTags": null,
        "Hostname": state.hostname,
        "NotepadURLs": false,
        "AdvertiseRoutes": routes,
        "AdvertiseServices": null,
        "Sync": null,
        "NoSNAT": false,
        "NoStatefulFiltering": state.no_stateful_filtering,
        "NetfilterMode": 2,
        "AutoUpdate": {"Check": true, "Apply": null},
        "AppConnector": {"Advertise": false},
        "PostureChecking": false,
        "NetfilterKind": "",
        "DriveShares": null,
        "AllowSingleHosts": true,
        "Config": {
            "PrivateNodeKey": ZERO_KEY,
            "OldPrivateNodeKey": ZERO_KEY,
            "UserProfile": user(state),
            "NetworkLockKey": format!("nlpriv:{}", "0".repeat(128)),
            "NodeID": stable_id(state.address),
        },
    })
}

/// What `GET derpmap` answers: one region.
pub(super) fn derp_map(state: &TailscaleState) -> Value {
    let (code, name) = &state.region;
    json!({"Regions": {"1": {
        "RegionID": 1, "RegionCode": code, "RegionName": name,
        "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "derp1.tailscale.com", "IPv6": "none"}],
    }}})
}

/// What `GET dns-config` answers.
pub(super) fn dns_config(state: &TailscaleState) -> Value {
    let resolvers: Vec<Value> = state.resolvers.iter().map(|address| json!({"Addr": address})).collect();
    json!({
        "Resolvers": resolvers,
        "Domains": [state.suffix],
        "Proxied": true,
        "CertDomains": [format!("{}.{}", state.hostname, state.suffix)],
    })
}
