//! `tailscale`: tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer.

mod cli;
mod local_api;
mod ping;
mod status;

use super::net::errno_word;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use crate::vantage::{UnixAddress, VantageKind};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use status::{DerpMap, Peer, Prefs, Status, first_ipv4};
use std::net::Ipv4Addr;

/// tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer.
pub(super) static KIND: Kind = Kind {
    name: "tailscale",
    root: "tailscale",
    about: "tailscaled's own account of itself, by LocalAPI: state, exit node, preferences, one peer",
    privilege: Some("access to tailscaled's socket"),
    args: &[
        ("peer", "Tailscale address of a peer to report on (optional)"),
        ("ping", "true: also ping that peer (disco), several times if only a relay answers"),
    ],
    facts: &[
        fact("running", "bool", "BackendState is Running"),
        fact("backend_state", "text", "BackendState; empty when tailscaled is not reachable"),
        fact("daemon", "text", "`answers`, `refused`, `absent`: state of the LocalAPI socket"),
        fact("version", "text", "tailscaled version"),
        fact("addresses", "list of text", "own Tailscale addresses"),
        fact("key_expired", "bool", "own node key has expired"),
        fact("key_expiry", "text", "when the own node key expires, RFC 3339; empty if it never does"),
        fact("health", "list of text", "health messages"),
        fact("advertised_routes", "list of text", "routes that this node offers"),
        fact("accepts_routes", "bool", "routes that peers offer are taken (RouteAll)"),
        fact("home_relay", "text", "DERP region by which this node is reached where there is no direct path; empty if it has none"),
        fact("home_relay_hosts", "list of text", "names of that region's relays in the DERP map"),
        fact("relay_regions", "count", "regions of the DERP map"),
        fact("exit_node_in_use", "bool", "an exit node is selected"),
        fact("exit_node_address", "address", "its Tailscale address; empty if none"),
        fact("exit_node_online", "bool", "the control server calls it online"),
        fact("exit_node_offered", "bool", "the selected peer is offered and approved as an exit node (ExitNodeOption)"),
        fact("exit_node_lan_access", "bool", "ExitNodeAllowLANAccess"),
        fact("is_exit_node", "bool", "this node advertises 0.0.0.0/0"),
        fact("accept_dns", "bool", "CorpDNS"),
        fact("stateful_filtering", "bool", "NoStatefulFiltering is false: forwarded packets that begin a connection are dropped"),
        fact("peer.answers", "bool", "it answered a disco ping within some seconds; control's `online` is only an opinion"),
        fact("peer.ping_ms", "ms", "round trip of the last answered disco ping"),
        fact("peer.path", "text", "how that ping went: `direct`, `relay` (DERP) or `peer-relay`; empty without an answer"),
        fact("peer.ping_relay", "text", "DERP region by which it went; empty if it was none"),
        fact(
            "peer.tsmp_answers",
            "bool",
            "it answered a TSMP ping too, which goes through the encrypted tunnel; asked where disco pings are answered",
        ),
        fact("peer.tsmp_ms", "ms", "round trip of that ping"),
        fact("peer.pings", "count", "disco pings sent; fewer than 4 if one was answered on the direct way"),
        fact("peer.rpf_dropped", "count", "packets that this node's reverse path filter dropped while pinging (IPReversePathFilter)"),
        fact("peer.present", "bool", "the peer is in the network map"),
        fact("peer.online", "bool", "the control server calls it online"),
        fact("peer.direct", "bool", "a direct path is in use (CurAddr)"),
        fact("peer.relay", "text", "DERP region when relayed; empty if direct"),
        fact("peer.endpoint", "text", "current endpoint"),
        fact("peer.routes", "list of text", "routes that it offers and that are approved, besides its own addresses"),
        fact("peer.expired", "bool", "its key has expired"),
        fact("peer.active", "bool", "there was traffic in the last minutes; an idle peer has no path in use"),
    ],
    decode: decode::<Tailscale>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tailscale {
    #[serde(default)]
    peer: Option<Ipv4Addr>,
    #[serde(default)]
    ping: bool,
}

#[async_trait]
impl Probe for Tailscale {
    async fn observe(&self, cx: &Context) -> Observation {
        if cx.vantage.kind != VantageKind::Node {
            return Observation::could_not_look("no tailscaled is expected at this vantage");
        }
        match &cx.vantage.files.tailscale_socket {
            Some(socket) => self.ask(cx, socket).await,
            None => {
                let reason = "no socket of tailscaled is known";
                self.by_command(cx, reason).await.unwrap_or_else(|| without_daemon("absent", reason, false))
            }
        }
    }

    fn target(&self) -> String {
        self.peer.map_or_else(|| "tailscaled".to_owned(), |peer| format!("tailscaled, peer {peer}"))
    }
}

impl Tailscale {
    async fn ask(&self, cx: &Context, socket: &UnixAddress) -> Observation {
        let first = match local_api::connect(&cx.vantage.net, socket) {
            Ok(stream) => stream,
            Err(error) => {
                let reason = format!("cannot connect to {socket}: {}", errno_word(&error));
                return match local_api::daemon_word(&error) {
                    Some(word) => without_daemon(word, &reason, true),
                    None => self.by_command(cx, &reason).await.unwrap_or_else(|| Observation::could_not_look(reason)),
                };
            }
        };
        let prefs = async {
            let second = local_api::connect(&cx.vantage.net, socket).map_err(|e| errno_word(&e))?;
            local_api::get(second, "/localapi/v0/prefs", cx.deadline).await
        };
        let relays = async {
            let third = local_api::connect(&cx.vantage.net, socket).map_err(|e| errno_word(&e))?;
            local_api::get(third, "/localapi/v0/derpmap", cx.deadline).await
        };
        let (status, prefs, relays) = tokio::join!(local_api::get(first, "/localapi/v0/status", cx.deadline), prefs, relays);
        let status = status.and_then(read::<Status>);
        let mut seen = Observation::default();
        if let Ok(status) = &status {
            relay_facts(&mut seen.facts, status, relays.and_then(read::<DerpMap>));
        }
        if let (Some(peer), true) = (self.peer, self.ping) {
            match &status {
                Ok(status) if status.backend_state != "Running" => ping::not_asked(&mut seen.facts, "tailscaled is not running"),
                Ok(_) => ping::ask(cx, socket, peer, &mut seen).await,
                Err(_) => {}
            }
        }
        self.report(seen, status, prefs.and_then(read::<Prefs>), Utc::now())
    }

    /// What the command `tailscale` says, where its socket does not tell: it may know another way. `None` if that tells nothing either.
    async fn by_command(&self, cx: &Context, reason: &str) -> Option<Observation> {
        let status = cli::status(cx).await.ok().map(read::<Status>)?.ok()?;
        let prefs = Err(format!("{reason}, and the command tailscale does not tell"));
        let mut seen = Observation::default();
        relay_facts(&mut seen.facts, &status, Err(format!("{reason}, and the command tailscale does not tell")));
        Some(self.report(seen, Ok(status), prefs, Utc::now()))
    }

    /// Adds to what is known by now (the ping) what the documents say.
    fn report(
        &self,
        mut seen: Observation,
        status: Result<Status, String>,
        prefs: Result<Prefs, String>,
        now: DateTime<Utc>,
    ) -> Observation {
        let facts = &mut seen.facts;
        match &status {
            Ok(status) => {
                facts.set("daemon", "answers");
                own_facts(facts, status, now);
                exit_facts(facts, status, &prefs);
                peer_facts(facts, status, self.peer, now);
            }
            Err(reason) => facts.rest_unknown(&KIND, &clean(reason, 300)),
        }
        prefs_facts(facts, &prefs);
        if let Ok(status) = &status {
            seen.note("tailscale", describe(status));
        }
        for reason in [status.as_ref().err(), prefs.as_ref().err()].into_iter().flatten() {
            seen.note("error", reason);
        }
        seen
    }
}

/// The socket has no listener. `sure` is false where we only do not know the socket.
fn without_daemon(word: &str, reason: &str, sure: bool) -> Observation {
    let mut seen = Observation::default();
    seen.facts.set("daemon", word);
    if sure {
        seen.facts.set("running", false).set("backend_state", "");
    }
    seen.rest_unknown(&KIND, reason);
    seen.note("error", reason);
    seen
}

fn read<T: DeserializeOwned>(document: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(document).map_err(|e| format!("tailscaled's answer has an unexpected shape: {e}"))
}

fn own_facts(facts: &mut Facts, status: &Status, now: DateTime<Utc>) {
    facts.set("running", status.backend_state == "Running").set("backend_state", clean(&status.backend_state, 64));
    facts
        .set("version", clean(&status.version, 64))
        .set("addresses", texts(&status.addresses, 64))
        .set("health", texts(&status.health, 400));
    match &status.own {
        Some(own) => {
            facts.set("key_expired", expired(own, now)).set("home_relay", clean(&own.relay, 64));
            facts.set("key_expiry", clean(own.key_expiry.as_deref().unwrap_or_default(), 64));
        }
        None => {
            for path in ["key_expired", "key_expiry", "home_relay"] {
                facts.unknown(path, "tailscaled says nothing about this node");
            }
        }
    }
}

fn relay_facts(facts: &mut Facts, status: &Status, map: Result<DerpMap, String>) {
    let map = match map {
        Ok(map) => map,
        Err(reason) => {
            facts.unknown("relay_regions", clean(&reason, 300)).unknown("home_relay_hosts", clean(&reason, 300));
            return;
        }
    };
    let home = status.own.as_ref().and_then(|own| map.regions.values().find(|r| r.region_code == own.relay));
    let hosts = home.map(|region| region.nodes.iter().take(32).map(|n| clean(&n.host_name, 255)).collect::<Vec<_>>());
    facts.set("relay_regions", map.regions.len());
    facts.set_or_unknown("home_relay_hosts", hosts, "the home region is not in the DERP map");
}

fn exit_facts(facts: &mut Facts, status: &Status, prefs: &Result<Prefs, String>) {
    let prefs = prefs.as_ref();
    let in_use = status.uses_exit_node(prefs.ok());
    let no_prefs = prefs.err().map_or("", |e| e.as_str());
    facts.set_or_unknown("exit_node_in_use", in_use, no_prefs);
    let peer = status.exit_peer(prefs.ok());
    let used = status.exit_node_status.as_ref();
    let address = used.and_then(|e| first_ipv4(&e.addresses)).or_else(|| peer.and_then(|p| first_ipv4(&p.addresses)));
    match in_use {
        Some(true) => {
            facts.set_or_unknown("exit_node_address", address.map(|a| a.to_string()), "tailscaled does not say which one");
            facts.set_or_unknown("exit_node_online", used.map(|e| e.online), "the selected exit node is not in the network map");
            facts.set("exit_node_offered", peer.is_some_and(|p| p.exit_node_option));
        }
        Some(false) => {
            facts.set("exit_node_address", "");
            facts.unknown("exit_node_online", "no exit node is in use").unknown("exit_node_offered", "no exit node is in use");
        }
        None => {
            for path in ["exit_node_address", "exit_node_online", "exit_node_offered"] {
                facts.unknown(path, no_prefs);
            }
        }
    }
}

fn prefs_facts(facts: &mut Facts, prefs: &Result<Prefs, String>) {
    match prefs {
        Ok(prefs) => {
            facts.set("exit_node_lan_access", prefs.exit_node_allow_lan_access).set("accept_dns", prefs.corp_dns);
            facts.set("advertised_routes", texts(&prefs.advertise_routes, 64)).set("accepts_routes", prefs.route_all);
            facts.set("is_exit_node", prefs.advertise_routes.iter().any(|r| r == "0.0.0.0/0"));
            facts.set_or_unknown("stateful_filtering", prefs.no_stateful_filtering.map(|no| !no), "the preferences do not tell");
        }
        Err(reason) => {
            for path in ["exit_node_lan_access", "accept_dns", "advertised_routes", "accepts_routes", "is_exit_node", "stateful_filtering"]
            {
                facts.unknown(path, clean(reason, 300));
            }
        }
    }
}

fn peer_facts(facts: &mut Facts, status: &Status, asked: Option<Ipv4Addr>, now: DateTime<Utc>) {
    let found = asked.and_then(|address| status.peer_with(address));
    if let Some(peer) = found {
        let direct = !peer.cur_addr.is_empty();
        let endpoint = if direct { &peer.cur_addr } else { &peer.peer_relay };
        facts.set("peer.online", peer.online).set("peer.direct", direct).set("peer.active", peer.active);
        facts.set("peer.relay", if direct { String::new() } else { clean(&peer.relay, 64) });
        facts.set("peer.endpoint", clean(endpoint, 64)).set("peer.expired", expired(peer, now));
        facts.set("peer.routes", texts(&peer.routes(), 64));
    }
    ping::not_asked(facts, "no ping was asked for");
    let reason = match asked {
        Some(address) => {
            facts.set("peer.present", found.is_some());
            format!("{address} is not in the network map")
        }
        None => "no peer was asked for".to_owned(),
    };
    for doc in KIND.facts.iter().filter(|doc| doc.path.starts_with("peer.")) {
        facts.unknown(doc.path, reason.as_str());
    }
}

/// A key has expired when its time has passed; tailscaled itself then only says NeedsLogin.
fn expired(peer: &Peer, now: DateTime<Utc>) -> bool {
    let expiry = peer.key_expiry.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok());
    peer.expired || expiry.is_some_and(|t| t < now)
}

fn texts(list: &[String], most: usize) -> Vec<String> {
    list.iter().take(32).map(|text| clean(text.trim(), most)).collect()
}

fn describe(status: &Status) -> String {
    let exit = status.exit_node_status.as_ref().map_or("none".to_owned(), |e| e.addresses.join(" "));
    format!("BackendState {}, addresses {}, exit node {exit}", status.backend_state, status.addresses.join(" "))
}

#[cfg(test)]
mod tests;
