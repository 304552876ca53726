use super::*;
use crate::probe::testing::Folder;
use crate::probe::testnet::{self, vantage};
use crate::vantage::{HostFiles, Net, NetNs};
use serde_json::{Value, json};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const EXIT_PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

fn capture(name: &str) -> Value {
    let path = format!("{}/tests/data/tailscale/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn captured_prefs() -> Value {
    let path = format!("{}/tests/data/tailscale/localapi-prefs.http", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap().replace('\r', "");
    serde_json::from_str(text.split_once("\n\n").unwrap().1).unwrap()
}

fn at(time: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(time).unwrap().with_timezone(&Utc)
}

/// The facts that a captured status and the captured preferences (with some changes) give.
fn facts(name: &str, changes: Value) -> Value {
    let mut prefs = captured_prefs();
    for (key, value) in changes.as_object().unwrap() {
        prefs[key] = value.clone();
    }
    let probe = Tailscale { peer: Some(EXIT_PEER), ping: false };
    probe.report(Observation::default(), read(capture(name)), read(prefs), at("2026-11-23T16:00:00Z")).facts.to_json()
}

#[test]
fn exit_node_in_use_with_and_without_lan_access() {
    for (name, lan) in [("exit-on-lan-access", true), ("exit-on-no-lan-access", false)] {
        let facts = facts(name, json!({"ExitNodeID": "TESTCTRL00000001", "ExitNodeAllowLANAccess": lan}));
        assert_eq!((&facts["running"], &facts["backend_state"], &facts["daemon"]), (&json!(true), &json!("Running"), &json!("answers")));
        assert_eq!(facts["exit_node_in_use"], true);
        assert_eq!((&facts["exit_node_address"], &facts["exit_node_online"]), (&json!("100.64.0.1"), &json!(true)));
        assert_eq!((&facts["exit_node_offered"], &facts["exit_node_lan_access"]), (&json!(true), &json!(lan)));
        assert_eq!(facts["addresses"][0], "100.64.0.2");
        assert_eq!((&facts["key_expired"], &facts["is_exit_node"], &facts["accept_dns"]), (&json!(false), &json!(false), &json!(false)));
        let peer = json!({"online": true, "direct": true, "active": facts["peer"]["active"], "relay": "", "endpoint": "157.173.210.123:41641",
            "expired": false, "present": true});
        for (key, value) in peer.as_object().unwrap() {
            assert_eq!(&facts["peer"][key], value, "{key}");
        }
    }
}

/// The body of a captured answer.
fn captured_body(name: &str) -> Value {
    let path = format!("{}/tests/data/tailscale/{name}.http", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap().replace('\r', "");
    serde_json::from_str(text.split_once("\n\n").unwrap().1).unwrap()
}

#[test]
fn routes_and_relays_are_those_of_the_documents() {
    let facts = facts("exit-on-lan-access", json!({"AdvertiseRoutes": ["192.168.2.0/24"], "RouteAll": true}));
    assert_eq!((&facts["advertised_routes"], &facts["accepts_routes"]), (&json!(["192.168.2.0/24"]), &json!(true)));
    assert_eq!((&facts["peer"]["routes"], &facts["home_relay"]), (&json!(["0.0.0.0/0", "::/0"]), &json!("lab")));
    assert_eq!(facts["key_expiry"], "");
    let status = read::<Status>(capture("exit-on-lan-access")).unwrap();
    let mut relays = Facts::default();
    relay_facts(&mut relays, &status, read(captured_body("localapi-derpmap")));
    assert_eq!(relays.to_json(), json!({"relay_regions": 1, "home_relay_hosts": ["203.0.113.10"]}));
    let mut elsewhere = Facts::default();
    relay_facts(&mut elsewhere, &status, read(json!({"Regions": {"7": {"RegionCode": "x", "Nodes": null}}})));
    assert_eq!(elsewhere.unknowns()["home_relay_hosts"], "the home region is not in the DERP map");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_socket_is_known_the_command_is_asked() {
    let folder = Folder::new("tailscale-command");
    std::fs::write(folder.0.join("status"), capture("exit-on-lan-access").to_string()).unwrap();
    folder.script("tailscale", "[ \"$*\" = 'status --json' ] && cat \"${0%/*}/status\"");
    let files = HostFiles { path: Some(folder.0.clone()), ..HostFiles::default() };
    let ask = async |files: HostFiles| {
        let cx = testnet::context(vantage("calypso", VantageKind::Node, Net::Here, files), None);
        Tailscale { peer: Some(EXIT_PEER), ping: true }.observe(&cx).await.facts.to_json()
    };
    let facts = ask(files.clone()).await;
    assert_eq!((&facts["running"], &facts["peer"]["online"], &facts["exit_node_in_use"]), (&json!(true), &json!(true), &json!(true)));
    assert!(facts["accept_dns"]["unknown"].as_str().unwrap().contains("does not tell"), "{facts}");
    assert!(facts["peer"]["answers"]["unknown"].is_string() && facts["relay_regions"]["unknown"].is_string(), "{facts}");
    folder.script("tailscale", "echo failed to connect to local tailscaled");
    let facts = ask(files).await;
    assert_eq!(facts["daemon"], "absent");
    assert!(facts["running"]["unknown"].is_string());
}

#[test]
fn no_exit_node_in_use() {
    let facts = facts("exit-off", json!({}));
    assert_eq!((&facts["exit_node_in_use"], &facts["exit_node_address"]), (&json!(false), &json!("")));
    assert_eq!(facts["exit_node_online"], json!({"unknown": "no exit node is in use"}));
}

#[test]
fn approval_removed_while_in_use() {
    let facts = facts("exit-in-use-approval-removed", json!({"ExitNodeID": "TESTCTRL00000001"}));
    assert_eq!((&facts["exit_node_in_use"], &facts["exit_node_offered"]), (&json!(true), &json!(false)));
    assert!(!facts["health"][0].as_str().unwrap().ends_with('\n'));
}

#[test]
fn an_expired_key_is_told_by_its_time() {
    let expired = facts("keys-expired", json!({}));
    assert_eq!(
        (&expired["running"], &expired["backend_state"], &expired["key_expired"]),
        (&json!(false), &json!("NeedsLogin"), &json!(true))
    );
    let probe = Tailscale { peer: None, ping: false };
    let before = probe
        .report(Observation::default(), read(capture("keys-expired")), Err("not asked".to_owned()), at("2026-11-23T15:00:00Z"))
        .facts
        .to_json();
    assert_eq!(before["key_expired"], false);
    assert_eq!(
        (&before["peer"]["present"], &before["accept_dns"]),
        (&json!({"unknown": "no peer was asked for"}), &json!({"unknown": "not asked"}))
    );
}

#[test]
fn tailscale_down_is_stopped_and_the_peer_has_no_path() {
    let facts = facts("tailscale-down", json!({}));
    assert_eq!((&facts["running"], &facts["backend_state"]), (&json!(false), &json!("Stopped")));
    assert_eq!((&facts["peer"]["direct"], &facts["peer"]["relay"]), (&json!(false), &json!("lab")));
}

#[test]
fn without_preferences_an_unused_exit_node_is_not_claimed() {
    let probe = Tailscale { peer: None, ping: false };
    let facts =
        probe.report(Observation::default(), read(capture("exit-off")), Err("403".to_owned()), at("2026-11-23T16:00:00Z")).facts.to_json();
    assert_eq!(facts["exit_node_in_use"], json!({"unknown": "403"}));
    let facts = probe
        .report(Observation::default(), read(capture("exit-on-lan-access")), Err("403".to_owned()), at("2026-11-23T16:00:00Z"))
        .facts
        .to_json();
    assert_eq!((&facts["exit_node_in_use"], &facts["exit_node_offered"]), (&json!(true), &json!(true)));
}

#[test]
fn an_answer_of_another_shape_is_unknown_not_false() {
    let probe = Tailscale { peer: None, ping: false };
    let facts = probe.report(Observation::default(), read(json!({"BackendState": 7})), Err("x".to_owned()), Utc::now()).facts;
    assert!(facts.get("running").is_none() && facts.unknowns()["running"].contains("unexpected shape"));
}

/// A raw answer for a path; `None` closes the connection.
type Answer = fn(&str) -> Option<Vec<u8>>;

/// A tailscaled that answers every connection once.
fn serve(ns: &NetNs, name: &str, answer: Answer) {
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = ns.with(|| UnixListener::bind_addr(&address)).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 2048];
            let n = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            assert!(request.to_lowercase().contains("host: local-tailscaled.sock"), "{request}");
            if let Some(bytes) = answer(request.split(' ').nth(1).unwrap_or_default()) {
                stream.write_all(&bytes).await.ok();
            }
        }
    });
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn look(kind: VantageKind, net: Net, socket: Option<UnixAddress>) -> Observation {
    let files = HostFiles { tailscale_socket: socket, ..HostFiles::default() };
    Tailscale { peer: None, ping: false }.observe(&testnet::context(vantage("calypso", kind, net, files), None)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_an_abstract_socket_of_the_namespace_answers() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let ns = NetNs::create("calypso").unwrap();
    serve(&ns, "tailscaled", |path| {
        Some(match path {
            "/localapi/v0/status" => http(&capture("exit-on-lan-access").to_string()),
            _ => http(&captured_prefs().to_string()),
        })
    });
    let socket = Some(UnixAddress::Abstract("tailscaled".to_owned()));
    let seen = look(VantageKind::Node, Net::Ns(ns), socket.clone()).await;
    assert_eq!((seen.facts.get("running"), seen.facts.get("accept_dns")), (Some(&json!(true)), Some(&json!(false))));
    let elsewhere = NetNs::create("tethys").unwrap();
    let seen = look(VantageKind::Node, Net::Ns(elsewhere), socket.clone()).await;
    assert_eq!((seen.facts.get("daemon"), seen.facts.get("running")), (Some(&json!("refused")), Some(&json!(false))));
    let seen = look(VantageKind::Pod, Net::Here, socket).await;
    assert_eq!(seen.could_not_look.as_deref(), Some("no tailscaled is expected at this vantage"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_html_an_endless_body_and_a_closed_connection_are_unknown() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let answers: [Answer; 4] = [
        |_| Some(http("<html>no</html>")),
        |_| Some([b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n".to_vec(), vec![b'x'; 5_000_000]].concat()),
        |_| None,
        |_| Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n".to_vec()),
    ];
    for answer in answers {
        let ns = NetNs::create("calypso").unwrap();
        serve(&ns, "tailscaled", answer);
        let seen = look(VantageKind::Node, Net::Ns(ns), Some(UnixAddress::Abstract("tailscaled".to_owned()))).await;
        assert!(seen.facts.get("running").is_none() && seen.facts.unknowns().contains_key("running"), "{:?}", seen.facts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_socket_file_means_that_tailscaled_does_not_run() {
    let nowhere = UnixAddress::Path("/nonexistent/tailscaled.sock".into());
    let seen = look(VantageKind::Node, Net::Here, Some(nowhere)).await;
    let facts = seen.facts.to_json();
    assert_eq!((&facts["daemon"], &facts["running"], &facts["backend_state"]), (&json!("absent"), &json!(false), &json!("")));
    let seen = look(VantageKind::Node, Net::Here, None).await;
    assert_eq!(seen.facts.get("daemon"), Some(&json!("absent")));
    assert!(seen.facts.get("running").is_none());
}
