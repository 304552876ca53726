//! `POST ping`.

use super::state::{Peer, TailscaleState};
use super::{text, with_headers};
use crate::twin::service::http::{Body, find};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Answers a ping. One to a peer that does not answer never is, as with tailscaled: the client must have a deadline.
pub(super) async fn ping(state: &TailscaleState, query: &[(String, String)]) -> Response<Body> {
    let refuse = |why: &str| text(StatusCode::BAD_REQUEST, &format!("{why}\n"));
    let Some(ip) = find(query, "ip").filter(|ip| !ip.is_empty()) else { return refuse("missing 'ip' parameter") };
    let Ok(address) = ip.parse::<IpAddr>() else { return refuse("invalid IP") };
    let Some(kind) = find(query, "type").filter(|kind| !kind.is_empty()) else { return refuse("missing 'type' parameter") };
    let sized = find(query, "size").is_some_and(|size| size != "0");
    if sized && kind != "disco" {
        return refuse("'size' parameter is only supported with disco pings");
    }
    let peer = match address {
        IpAddr::V4(address) => state.peer(address),
        IpAddr::V6(_) => None,
    };
    let result = match peer {
        Some(peer) if state.running() && peer.answers && !peer.expired => {
            tokio::time::sleep(peer.latency).await;
            pong(peer, kind, &state.region.0)
        }
        Some(_) => std::future::pending().await,
        None => result(ip, None, "no matching peer"),
    };
    with_headers(StatusCode::OK, "application/json", format!("{result}\n").into_bytes())
}

fn result(ip: &str, peer: Option<&Peer>, error: &str) -> Value {
    json!({
        "IP": ip,
        "NodeIP": peer.map(|peer| peer.address.to_string()).unwrap_or_default(),
        "NodeName": peer.map_or("", |peer| peer.hostname.as_str()),
        "Err": error,
        "LatencySeconds": peer.map_or(json!(0), |peer| json!(peer.latency.as_secs_f64())),
        "Endpoint": "",
        "PeerRelay": "",
        "DERPRegionID": 0,
        "DERPRegionCode": "",
    })
}

/// Only a disco ping says which path it took; only TSMP names the PeerAPI's port.
fn pong(peer: &Peer, kind: &str, region: &str) -> Value {
    let mut result = result(&peer.address.to_string(), Some(peer), "");
    match (kind, peer.endpoint) {
        ("disco", Some(endpoint)) => result["Endpoint"] = json!(endpoint.to_string()),
        ("disco", None) => {
            result["DERPRegionID"] = json!(1);
            result["DERPRegionCode"] = json!(region);
        }
        ("TSMP", _) => result["PeerAPIPort"] = json!(58436),
        _ => {}
    }
    result
}
