use super::*;
use crate::vantage::NetNs;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn calypso() -> TailscaleState {
    let mut state = TailscaleState::new("calypso", "100.83.53.38".parse().unwrap(), "goldfish-inc.ts.net");
    let exit = "100.95.51.125".parse().unwrap();
    let mut tethys = Peer::new("srv712429-oceanid", exit, Some("157.173.210.123:41641".parse().unwrap()));
    tethys.exit_node_option = true;
    state.peers.push(tethys);
    state.exit_node = Some(ExitNode { address: exit, online: true });
    state.lan_access = true;
    state
}

pub(super) struct Twin {
    net: Net,
    name: String,
    pub(super) handle: TailscaleHandle,
}

pub(super) fn start() -> Twin {
    let net = Net::Ns(NetNs::create("calypso").unwrap());
    let name = "tailscaled.sock".to_owned();
    let handle = serve(&net, &UnixAddress::Abstract(name.clone()), calypso()).unwrap();
    Twin { net, name, handle }
}

impl Twin {
    async fn connect(&self) -> io::Result<UnixStream> {
        let address = SocketAddr::from_abstract_name(&self.name).unwrap();
        let stream = self.net.with(|| std::os::unix::net::UnixStream::connect_addr(&address)).unwrap()?;
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream)
    }

    /// Status line with headers, and body.
    pub(super) async fn ask(&self, method: &str, path: &str, host: &str) -> (String, String) {
        let mut stream = self.connect().await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.ask("GET", path, HOST).await.1).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_status_has_the_fields_that_tailscaled_writes() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = start();
    let (head, body) = twin.ask("GET", "/localapi/v0/status", HOST).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src 'none'"), "{head}");
    assert!(body.starts_with("{\n\t\"Version\": \"1.98.10\",\n\t\"TUN\": true,\n\t\"BackendState\": \"Running\""), "{body}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["ExitNodeStatus"]["TailscaleIPs"][0], "100.95.51.125/32");
    let peer = status["Peer"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&peer["ExitNode"], &peer["CurAddr"]), (&Value::Bool(true), &Value::from("157.173.210.123:41641")));
    assert_eq!(twin.json("/localapi/v0/prefs").await["ExitNodeAllowLANAccess"], true);
    assert_eq!(twin.json("/localapi/v0/status?peers=false").await["Peer"], Value::Null);
    assert_eq!(twin.json("/localapi/v0/derpmap").await["Regions"]["1"]["RegionCode"], "nyc");

    twin.handle.update(|state| {
        state.backend = Backend::Stopped;
        state.exit_node = None;
    });
    let status = twin.json("/localapi/v0/status").await;
    assert_eq!((&status["BackendState"], &status["ExitNodeStatus"]), (&Value::from("Stopped"), &Value::Null));
    assert_eq!(status["Peer"].as_object().unwrap().values().next().unwrap()["CurAddr"], "");
    assert_eq!(twin.json("/localapi/v0/prefs").await["WantRunning"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_pings_are_answered_refused_or_never_answered() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = start();
    let ping = |ip: &str| format!("/localapi/v0/ping?ip={ip}&type=disco");
    let (_, body) = twin.ask("POST", &ping("100.95.51.125"), HOST).await;
    assert!(body.contains("\"Endpoint\":\"157.173.210.123:41641\""), "{body}");
    let (head, body) = twin.ask("POST", &ping("100.64.0.9"), HOST).await;
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("\"Err\":\"no matching peer\""), "{body}");
    twin.handle.update(|state| state.peers[0].answers = false);
    let never = tokio::time::timeout(Duration::from_millis(200), twin.ask("POST", &ping("100.95.51.125"), HOST)).await;
    assert!(never.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_foreign_hosts_and_unknown_paths_are_refused_and_a_stopped_daemon_refuses() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = start();
    assert!(twin.ask("GET", "/localapi/v0/status", "example.com").await.0.starts_with("HTTP/1.1 403 Forbidden"));
    let (head, body) = twin.ask("GET", "/localapi/v0/nothere", HOST).await;
    assert!(head.starts_with("HTTP/1.1 404 Not Found") && body == "404 page not found\n", "{head}");
    let Twin { net, name, handle } = twin;
    let state = handle.stop().await;
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let refused = net.with(|| std::os::unix::net::UnixStream::connect_addr(&address)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    serve(&net, &UnixAddress::Abstract(name), state).unwrap();
}
