use crate::check::Observation;
use crate::probe::testnet::{self, Node, Nodes, two_nodes};
use serde_json::{Value, json};

const WIRE: &str = "device = 'flannel.1'\nparent = 'tailscale0'\nport = 8472\nvni = 1\nto = '10.42.2.0'";

async fn look(nodes: &Nodes, witness: bool) -> Value {
    observe(&nodes.tethys, witness.then_some(&nodes.calypso)).await.facts.to_json()
}

async fn observe(from: &Node, witness: Option<&Node>) -> Observation {
    testnet::observe("vxlan-wire", WIRE, from, witness).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_healthy_every_packet_is_seen_at_both_ends() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    let facts = look(&nodes, true).await;
    assert_eq!((&facts["sent"], &facts["echoes"], &facts["last_seen"]), (&json!(3), &json!(3), &json!("echoed")));
    assert_eq!((&facts["left"], &facts["returned"]), (&json!(3), &json!(3)));
    assert_eq!((&facts["vni"], &facts["inner_mac"]), (&json!(1), &json!("02:00:00:00:00:02")));
    assert_eq!((&facts["outer_source"], &facts["outer_destination"]), (&json!("100.95.51.125"), &json!("100.83.53.38")));
    let witness = &facts["witness"];
    assert_eq!((&witness["arrived"], &witness["answered"]), (&json!(3), &json!(3)));
    assert_eq!((&facts["outer_ttl"], &witness["outer_ttl"], &facts["late"]), (&json!(64), &json!(64), &json!(0)));
    // Between two ends of a veth pair nobody finishes a checksum, and nobody looks at it, unless the sender's device does not take it.
    assert_eq!((&facts["outer_checksum"], &witness["outer_checksum"]), (&json!("unfinished"), &json!("unfinished")));
    nodes.tethys.vantage.net.with(|| crate::twin::finish_checksums("tailscale0")).unwrap().unwrap();
    let finished = look(&nodes, true).await;
    assert_eq!((&finished["outer_checksum"], &finished["witness"]["outer_checksum"]), (&json!("right"), &json!("right")));
    assert!(witness["device_rx"].as_i64() >= Some(3) && witness["device_present"] == true);
    assert_eq!((&witness["csum_errors"], &witness["no_ports"], &witness["forwarded"]), (&json!(0), &json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_simultaneous_probes_count_only_their_own_packets() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    let many: Vec<Value> = futures::future::join_all((0..4).map(|_| look(&nodes, true))).await;
    for facts in many {
        assert_eq!((&facts["left"], &facts["returned"], &facts["witness"]["arrived"]), (&json!(3), &json!(3), &json!(3)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_peer_device_down_packets_arrive_and_go_no_further() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    nodes.calypso.down("flannel.1").await;
    let facts = look(&nodes, true).await;
    assert_eq!((&facts["sent"], &facts["echoes"]), (&json!(3), &json!(0)));
    assert_eq!((&facts["left"], &facts["returned"], &facts["witness"]["arrived"]), (&json!(3), &json!(0), &json!(3)));
    assert_eq!((&facts["witness"]["device_rx"], &facts["witness"]["device_present"]), (&json!(0), &json!(true)));
    assert_eq!(facts["last_seen"], "arrived at calypso's underlay");
    let alone = look(&nodes, false).await;
    assert_eq!(alone["last_seen"], "left tethys");
    assert_eq!(alone["witness"]["arrived"], json!({"unknown": "no witness at hand: run with --from both nodes"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_peer_device_missing_raises_no_ports() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    nodes.calypso.delete("flannel.1").await;
    let facts = look(&nodes, true).await;
    assert_eq!((&facts["witness"]["device_present"], &facts["witness"]["arrived"]), (&json!(false), &json!(3)));
    assert_eq!(facts["witness"]["device_rx"], json!({"unknown": "no device flannel.1 on calypso"}));
    assert!(facts["witness"]["no_ports"].as_i64() >= Some(3), "{facts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_own_forwarding_entry_missing_nothing_leaves() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    nodes.tethys.forget_forwarding().await;
    let facts = look(&nodes, true).await;
    assert_eq!((&facts["sent"], &facts["left"], &facts["witness"]["arrived"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(facts["last_seen"], "sent, not seen leaving tailscale0");
    assert_eq!(facts["inner_mac"], json!({"unknown": "no packet was seen leaving"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_peer_lacks_the_way_back_requests_reach_its_device() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    nodes.calypso.forget_forwarding().await;
    let facts = look(&nodes, true).await;
    assert_eq!((&facts["witness"]["arrived"], &facts["witness"]["answered"]), (&json!(3), &json!(0)));
    assert_eq!(facts["last_seen"], "reached calypso's flannel.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_without_the_device_nothing_is_claimed_about_the_wire() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    nodes.tethys.delete("flannel.1").await;
    let facts = look(&nodes, false).await;
    assert_eq!((&facts["sent"], &facts["error"], &facts["last_seen"]), (&json!(0), &json!("ENETUNREACH"), &json!("not sent")));
    assert_eq!(facts["left"], json!({"unknown": "no device flannel.1"}));
}
