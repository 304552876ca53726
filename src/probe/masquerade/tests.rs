use crate::def::{Catalog, Sources};
use crate::probe::{Kind, testnet};
use crate::twin::Twin;
use crate::twin::fault::FAULTS;
use crate::vantage::Vantage;
use serde_json::{Value, json};
use std::sync::Arc;

async fn look(twin: &Twin, witness: bool) -> Value {
    let vantage = |id: &str| -> Arc<Vantage> { Arc::new(twin.vantages().into_iter().find(|v| v.id == id).unwrap()) };
    let database = &twin.inventory.databases[0];
    let with = format!("address = '{}'\nport = {}", database.address.unwrap(), database.port);
    let probe = (Kind::find("masquerade").unwrap().decode)(&with.parse().unwrap()).unwrap();
    let cx = testnet::context(vantage("calypso"), witness.then(|| vantage("tethys")));
    probe.observe(&cx).await.facts.to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_the_exit_nodes_own_tracking_tells_whether_it_masquerades() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let catalog = Catalog::load(&Sources::default()).unwrap_or_else(|f| panic!("{f:?}"));
    let twin = Twin::start(catalog.inventory.clone(), &[]).await.unwrap();
    let healthy = look(&twin, true).await;
    let seen = &healthy["witness"];
    assert_eq!((&healthy["answered"], &healthy["error"]), (&json!(true), &json!("")), "{healthy}");
    assert_eq!((&seen["tracked"], &seen["translated"], &seen["leaves_as"]), (&json!(true), &json!(true), &json!("157.173.210.123")));
    assert_eq!((&seen["masqueraded"], &seen["spoiling"]), (&json!(1), &json!([])), "{healthy}");
    assert!(seen["masquerading"][0].as_str().unwrap().ends_with("mark & 0xff0000 == 0x40000"), "{healthy}");
    let alone = look(&twin, false).await;
    assert_eq!(alone["answered"], json!(true));
    assert!(alone["witness"]["translated"]["unknown"].is_string(), "{alone}");

    FAULTS.iter().find(|f| f.id == "fwmark-collision").unwrap().apply(&twin).await.unwrap();
    let broken = look(&twin, true).await;
    let seen = &broken["witness"];
    assert_eq!((&broken["answered"], &broken["error"], &seen["tracked"]), (&json!(false), &json!("TIMEOUT"), &json!(true)), "{broken}");
    assert_eq!((&seen["translated"], &seen["leaves_as"], &seen["masqueraded"]), (&json!(false), &broken["source"], &json!(0)));
    assert!(seen["spoiling"][0].as_str().unwrap().contains("mark & 0xfffdffff ^ 0x20000"), "{broken}");
}
