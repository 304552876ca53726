use super::shot::{Answer, volley};
use super::*;
use crate::def::{Catalog, Sources};
use crate::probe::testnet;
use crate::twin::Twin;
use crate::twin::fault::parse;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// tailscaled's mark, which keeps packets out of table 52.
const MARK: u32 = 0x80000;

async fn twin(faults: &str) -> Twin {
    rustls::crypto::ring::default_provider().install_default().ok();
    let catalog = Catalog::load(&Sources::default()).unwrap_or_else(|f| panic!("{f:?}"));
    Twin::start(catalog.inventory.clone(), &parse(faults).unwrap()).await.unwrap()
}

async fn trace(twin: &Twin, from: &str, with: &str) -> Value {
    let vantage = twin.vantages().into_iter().find(|v| v.id == from).unwrap();
    testnet::observe_at("trace", with, Arc::new(vantage)).await.facts.to_json()
}

/// A trace to a network without a route, from a router that is no vantage of its own.
async fn bare(net: crate::vantage::Net) -> Value {
    let vantage = testnet::vantage("internet", crate::vantage::VantageKind::Node, net, crate::vantage::HostFiles::default());
    testnet::observe_at("trace", "address = '198.18.7.7'", vantage).await.facts.to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_every_hop_is_named_by_every_method() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin("").await;
    let underlay = trace(&twin, "calypso", &format!("address = '157.173.210.123'\nmark = {MARK}")).await;
    assert_eq!(underlay["addresses"], json!(["192.168.2.1", "203.0.113.1", "157.173.210.123"]));
    assert_eq!((&underlay["reached"], &underlay["distance"], &underlay["loss_percent"]), (&json!(true), &json!(3), &json!(0)));
    assert_eq!((&underlay["method"], &underlay["loop"], &underlay["refused"]), (&json!("dgram"), &json!(false), &json!(false)));
    // Without the mark it is the exit node's own business.
    let through_exit = json!(["100.95.51.125", "157.173.210.1", "18.116.211.217"]);
    for with in ["", "port = 5432"] {
        let seen = trace(&twin, "calypso", &format!("address = '18.116.211.217'\n{with}")).await;
        assert_eq!((&seen["addresses"], &seen["reached"]), (&through_exit, &json!(true)), "{seen}");
    }
    let pod = trace(&twin, "pod:apps/md-query-proxy", "address = '18.116.211.217'").await;
    assert_eq!((&pod["addresses"][0], &pod["distance"], &pod["last_ttl"]), (&json!("10.42.2.1"), &json!(4), &json!(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_raw_sockets_and_datagrams_do_where_icmp_sockets_are_not_allowed() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin("").await;
    for method in [Method::Raw, Method::Udp] {
        let aim = Aim { to: "157.173.210.123".parse().unwrap(), method, mark: MARK };
        let deadline = Instant::now() + Duration::from_secs(5);
        let shots = volley(&aim, twin.net("calypso").unwrap(), 1..=4, 1, deadline).await.unwrap();
        let path = Path::of(aim.to, &shots);
        let addresses: Vec<String> = path.hops.iter().map(|h| text(h.address)).collect();
        assert_eq!(addresses, ["192.168.2.1", "203.0.113.1", "157.173.210.123"], "{method:?}");
        assert!(shots.iter().any(|s| s.ttl == 3 && s.answer == Answer::Target) && path.target().is_some(), "{method:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_a_hop_that_limits_its_errors_is_no_loss() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin("icmp-limited-hop").await;
    let seen = trace(&twin, "calypso", &format!("address = '157.173.210.123'\nmark = {MARK}")).await;
    assert_eq!((&seen["reached"], &seen["loss_percent"], &seen["loss_from"]), (&json!(true), &json!(0), &json!("")), "{seen}");
    assert_eq!(seen["limited_hops"], json!(["203.0.113.1"]), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_where_a_path_ends() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin("pg-allowlist-drop").await;
    let dropped = trace(&twin, "calypso", "address = '18.116.211.217'\nport = 5432\nhops = 5").await;
    assert_eq!((&dropped["reached"], &dropped["last_hop"], &dropped["last_ttl"]), (&json!(false), &json!("157.173.210.1"), &json!(2)));
    assert_eq!((&dropped["loss_percent"], &dropped["distance"]), (&json!(100), &json!({"unknown": "it was not reached"})));
    // The router does not know this network, and says so.
    let refused = trace(&twin, "workstation", "address = '198.18.7.7'").await;
    assert_eq!(
        (&refused["refused"], &refused["refused_by"], &refused["icmp_code"]),
        (&json!(true), &json!("192.0.2.1"), &json!(0)),
        "{refused}"
    );
    assert_eq!(refused["reached"], json!(false));
    let none = bare(twin.net("internet").unwrap().clone()).await;
    assert_eq!((&none["error"], &none["reached"]), (&json!("ENETUNREACH"), &json!(false)));
    assert_eq!(none["loss_percent"], json!({"unknown": "no packet was sent"}));
}
