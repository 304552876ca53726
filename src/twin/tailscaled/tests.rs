use super::*;
use crate::def::{Catalog, Sources};
use crate::probe::testnet;
use crate::twin::Twin;
use serde_json::{Value, json};

async fn twin() -> Twin {
    rustls::crypto::ring::default_provider().install_default().ok();
    let catalog = Catalog::load(&Sources::default()).unwrap_or_else(|f| panic!("{f:?}"));
    Twin::start(catalog.inventory.clone(), &[]).await.unwrap()
}

async fn facts(twin: &Twin, kind: &str, with: &str) -> Value {
    let calypso = twin.vantages().into_iter().find(|v| v.id == "calypso").unwrap();
    testnet::observe_at(kind, with, Arc::new(calypso)).await.facts.to_json()
}

const ECHOES: &str = "address = '100.95.51.125'\ncount = 20";
const PING: &str = "peer = '100.95.51.125'\nping = true";

#[tokio::test(flavor = "multi_thread")]
async fn ns_delay_of_a_peer_is_measured() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin().await;
    let (before, ping) = (facts(&twin, "icmp", ECHOES).await, facts(&twin, "tailscale", PING).await);
    twin.overlay("calypso").unwrap().impair("tethys", Impairment { delay: Duration::from_millis(80), ..Impairment::default() });
    let (after, delayed) = (facts(&twin, "icmp", ECHOES).await, facts(&twin, "tailscale", PING).await);
    let ms = |facts: &Value, name: &str| facts[name].as_f64().unwrap_or_else(|| panic!("{name} of {facts}"));
    assert!(ms(&before, "rtt_min_ms") < 80.0, "{before}");
    assert!(ms(&after, "rtt_min_ms") >= 80.0 && ms(&after, "rtt_median_ms") < 1000.0, "{after}");
    assert_eq!((&after["received"], &after["loss_percent"]), (&json!(20), &json!(0)), "a delay loses nothing");
    assert!(ms(&ping["peer"], "ping_ms") < 80.0 && ms(&delayed["peer"], "ping_ms") >= 80.0, "{} {}", ping["peer"], delayed["peer"]);
    assert_eq!(delayed["peer"]["path"], "direct");
    assert_eq!(delayed["peer"]["tsmp_answers"], true);
    assert!(ms(&delayed["peer"], "tsmp_ms") >= 80.0, "{}", delayed["peer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_a_reply_that_comes_after_more_than_a_second_is_late_and_not_lost() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin().await;
    twin.overlay("calypso").unwrap().impair("tethys", Impairment { delay: Duration::from_millis(1300), ..Impairment::default() });
    let late = facts(&twin, "icmp", "address = '100.95.51.125'\ncount = 3").await;
    assert_eq!((&late["sent"], &late["received"], &late["late"], &late["loss_percent"]), (&json!(3), &json!(3), &json!(3), &json!(0)));
    assert!(late["rtt_min_ms"].as_f64().unwrap() >= 1300.0, "{late}");
    let wire = "device = 'flannel.1'\nparent = 'tailscale0'\nport = 8472\nvni = 1\nto = '10.42.0.0'";
    let wire = facts(&twin, "vxlan-wire", wire).await;
    assert_eq!((&wire["echoes"], &wire["late"], &wire["last_seen"]), (&json!(3), &json!(3), &json!("echoed")), "{wire}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_loss_of_a_peer_is_measured() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = twin().await;
    let overlay = twin.overlay("calypso").unwrap();
    overlay.impair("tethys", Impairment { loss_percent: 25, ..Impairment::default() });
    let lossy = facts(&twin, "icmp", ECHOES).await;
    // Every fourth packet is lost; at most one of another kind comes between.
    let lost = lossy["loss_percent"].as_i64().unwrap();
    assert!((20..=30).contains(&lost), "{lossy}");
    overlay.impair("tethys", Impairment { down: true, ..Impairment::default() });
    let down = facts(&twin, "icmp", "address = '100.95.51.125'\ncount = 2").await;
    assert_eq!((&down["sent"], &down["received"]), (&json!(2), &json!(0)), "{down}");
    let silent = facts(&twin, "tailscale", PING).await;
    assert_eq!((&silent["peer"]["answers"], &silent["peer"]["pings"]), (&json!(false), &json!(4)), "{}", silent["peer"]);
    overlay.impair("tethys", Impairment::default());
    overlay.until_direct().await.unwrap();
    assert_eq!(facts(&twin, "icmp", ECHOES).await["received"], json!(20));
}
