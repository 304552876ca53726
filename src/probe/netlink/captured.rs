//! The twin's rules, table 52 and devices against those that a real tailscaled and flannel left behind in the same states.

use super::{Netlink, Route, Rule};
use crate::def::{Catalog, Sources};
use crate::twin::Twin;
use crate::twin::fault::parse;
use rtnetlink::packet_route::route::RouteType;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses that differ: the capture's nodes have test addresses.
const RENAMED: [(&str, &str); 2] = [("100.64.0.1", "100.95.51.125"), ("100.64.0.2", "100.83.53.38")];

/// The lines below a heading of a capture.
fn section(state: &str, heading: &str) -> Vec<String> {
    let path = format!("{}/tests/data/tailscale/kernel-{state}.txt", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).unwrap();
    for (theirs, ours) in RENAMED {
        text = text.replace(&format!("{theirs} "), &format!("{ours} "));
    }
    let lines = text.lines().skip_while(|l| *l != format!("# {heading}")).skip(1);
    lines.take_while(|l| !l.starts_with("# ")).map(|l| l.trim().to_owned()).collect()
}

/// A rule as far as a `Rule` tells it: `5268 to 10.43.0.0/16 lookup 254`.
fn rule_line(rule: &Rule) -> String {
    let to = rule.to.map_or(String::new(), |to| format!(" to {to}"));
    let marked = if rule.conditional() { " fwmark" } else { "" };
    let action = rule.table.map_or(" unreachable".to_owned(), |table| format!(" lookup {table}"));
    format!("{}{to}{marked}{action}", rule.priority)
}

/// The same of a line of `ip rule`.
fn captured_rule(line: &str) -> String {
    let (priority, rest) = line.split_once(':').unwrap();
    let words: Vec<&str> = rest.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1));
    let number = |table: &&str| {
        match *table {
            "local" => "255",
            "main" => "254",
            "default" => "253",
            other => other,
        }
        .to_owned()
    };
    let to = after("to").map_or(String::new(), |to| format!(" to {to}"));
    let marked = if words.contains(&"fwmark") { " fwmark" } else { "" };
    let action = after("lookup").map_or(" unreachable".to_owned(), |table| format!(" lookup {}", number(table)));
    format!("{priority}{to}{marked}{action}")
}

/// A route of table 52 as `ip route` prints it.
fn route_line(route: &Route, device: &str) -> String {
    let prefix = match route.prefix.prefix_len() {
        0 => "default".to_owned(),
        32 => route.prefix.network().to_string(),
        _ => route.prefix.to_string(),
    };
    if route.kind == RouteType::Throw { format!("throw {prefix}") } else { format!("{prefix} dev {device}") }
}

struct Seen {
    rules: BTreeSet<String>,
    table: BTreeSet<String>,
    devices: Vec<super::Device>,
}

async fn seen(faults: &str) -> Seen {
    let catalog = Catalog::load(&Sources::default()).unwrap_or_else(|f| panic!("{f:?}"));
    let twin = Twin::start(catalog.inventory.clone(), &parse(faults).unwrap()).await.unwrap();
    let netlink = Netlink::open(twin.net("calypso").unwrap(), Instant::now() + Duration::from_secs(5)).unwrap();
    let devices = netlink.devices().await.unwrap();
    let name = |r: &Route| devices.iter().find(|d| Some(d.index) == r.device).map_or("?", |d| d.name.as_str()).to_owned();
    let table = netlink.routes(52).await.unwrap().iter().map(|r| route_line(r, &name(r))).collect();
    Seen { rules: netlink.rules().await.unwrap().iter().map(rule_line).collect(), table, devices }
}

/// What the inventory's own exceptions add, where the capture was made without them, or the other way round.
fn exceptions(rules: &mut BTreeSet<String>) {
    rules.retain(|r| !r.starts_with("5268 ") && !r.starts_with("5269 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_rules_and_table_52_are_those_of_a_real_tailscaled_in_every_state() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    for (faults, state, with_exceptions) in [
        ("", "exit-on-lan-access-rules-5269", true),
        ("exit-node-swallows-cluster-cidr", "exit-on-lan-access", true),
        ("exit-node-without-lan-access", "exit-on-no-lan-access", false),
        ("egress-ip-differs", "exit-off", false),
        ("tailscale-stopped", "tailscale-down", false),
        ("tailscaled-killed", "tailscaled-killed-9", false),
    ] {
        let mut ours = seen(faults).await;
        let mut rules: BTreeSet<String> = section(state, "ip rule").iter().map(|l| captured_rule(l)).collect();
        if !with_exceptions {
            exceptions(&mut rules);
            exceptions(&mut ours.rules);
        }
        assert_eq!(ours.rules, rules, "rules of {state}");
        let table: BTreeSet<String> = section(state, "ip route show table 52").into_iter().collect();
        assert_eq!(ours.table, table, "table 52 of {state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_devices_are_those_of_a_real_tailscaled_and_flannel() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let ours = seen("").await;
    let state = "exit-on-lan-access-rules-5269";
    let device = |name: &str| ours.devices.iter().find(|d| d.name == name).unwrap();
    let mtu = |name: &str| {
        let line = section(state, &format!("ip -d link show {name}")).remove(0);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words[words.iter().position(|w| w == "mtu").unwrap() + 1].parse::<u32>().unwrap()
    };
    for name in ["tailscale0", "flannel.1"] {
        assert_eq!(device(name).mtu, mtu(name), "MTU of {name}");
    }
    let text = section(state, "ip -d link show flannel.1").join(" ");
    let vxlan = device("flannel.1").vxlan.clone().unwrap();
    let ours = format!("vxlan id {} local {} dev tailscale0", vxlan.vni.unwrap(), vxlan.local.unwrap());
    assert!(text.contains(&ours), "{ours} in {text}");
    assert!(text.contains(&format!("dstport {} nolearning", vxlan.port.unwrap())) && vxlan.learning == Some(false), "{text}");
    assert_eq!(device("flannel.1").parent, Some(device("tailscale0").index));
}
