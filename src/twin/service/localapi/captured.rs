//! The twin's answers against those of a real tailscaled (1.98.10): the same fields in the same types, and the same headers.

use super::tests::start;
use serde_json::{Map, Value};

/// The head of a captured answer, and its body.
fn capture(name: &str) -> (Vec<String>, String) {
    let path = format!("{}/tests/data/tailscale/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap().replace('\r', "");
    match text.split_once("\n\n") {
        Some((head, body)) if head.starts_with("HTTP/") => (head.lines().map(str::to_owned).collect(), body.to_owned()),
        _ => (Vec::new(), text),
    }
}

fn document(name: &str) -> Value {
    serde_json::from_str(&capture(name).1).unwrap()
}

/// Objects whose keys are data: nodes, users, capabilities, regions. Their values are compared one by one.
const KEYED: [&str; 4] = ["Peer", "User", "CapMap", "Regions"];
/// What only a DERP server of a test has.
const LAB_ONLY: [&str; 5] = ["IPv4", "STUNPort", "DERPPort", "InsecureForTests", "STUNTestIP"];

/// Where two documents differ in shape, as paths.
fn differences(path: &str, real: &Value, twin: &Value) -> Vec<String> {
    match (real, twin) {
        (Value::Object(real), Value::Object(twin)) => fields(path, real, twin),
        (Value::Array(real), Value::Array(twin)) => match (real.first(), twin.first()) {
            (Some(real), Some(twin)) => differences(&format!("{path}[]"), real, twin),
            _ => Vec::new(),
        },
        _ if word(real) == word(twin) => Vec::new(),
        _ => vec![format!("{path} is {} and should be {}", word(twin), word(real))],
    }
}

fn fields(path: &str, real: &Map<String, Value>, twin: &Map<String, Value>) -> Vec<String> {
    let name = path.rsplit('.').next().unwrap_or_default();
    if KEYED.contains(&name) {
        return match (real.values().next(), twin.values().next()) {
            (Some(real), Some(twin)) => differences(&format!("{path}{{}}"), real, twin),
            (None, None) => Vec::new(),
            _ => vec![format!("{path} has {} entries and should have {}", twin.len(), real.len())],
        };
    }
    let missing =
        real.keys().filter(|k| !twin.contains_key(*k) && !LAB_ONLY.contains(&k.as_str())).map(|k| format!("{path}.{k} is missing"));
    let invented = twin.keys().filter(|k| !real.contains_key(*k)).map(|k| format!("{path}.{k} is invented"));
    let both = real.iter().filter_map(|(k, v)| Some(differences(&format!("{path}.{k}"), v, twin.get(k)?)));
    missing.chain(invented).chain(both.flatten()).collect()
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[test]
fn differences_are_found() {
    let real = serde_json::json!({"a": 1, "b": {"c": [{"d": ""}]}, "Peer": {"x": {"e": null}}});
    let twin = serde_json::json!({"a": "1", "b": {"c": [{"f": ""}]}, "Peer": {"y": {"e": 2}}});
    let found = differences("", &real, &twin);
    assert_eq!(
        found,
        [".a is text and should be a number", ".b.c[].d is missing", ".b.c[].f is invented", ".Peer{}.e is a number and should be null"]
    );
    assert!(differences("", &real, &real).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_every_answer_has_the_fields_of_the_real_one() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = start();
    let ping = |ip: &str, kind: &str| format!("/localapi/v0/ping?ip={ip}&type={kind}");
    twin.handle.update(|state| state.resolvers = vec!["203.0.113.10".to_owned()]);
    let mut wrong = Vec::new();
    for (method, path, name) in [
        ("GET", "/localapi/v0/status".to_owned(), "exit-on-lan-access.json"),
        ("GET", "/localapi/v0/prefs".to_owned(), "localapi-prefs.http"),
        ("GET", "/localapi/v0/derpmap".to_owned(), "localapi-derpmap.http"),
        ("GET", "/localapi/v0/dns-config".to_owned(), "localapi-dns-config.http"),
        ("POST", ping("100.95.51.125", "disco"), "localapi-ping-disco.http"),
        ("POST", ping("100.95.51.125", "TSMP"), "localapi-ping-tsmp.http"),
        ("POST", ping("100.95.51.125", "ICMP"), "localapi-ping-icmp.http"),
        ("POST", ping("100.64.0.9", "disco"), "localapi-ping-unknown-peer.http"),
    ] {
        let (head, body) = twin.ask(method, &path, super::HOST).await;
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        let found = differences("", &document(name), &answer);
        wrong.extend(found.into_iter().map(|what| format!("{path} against {name}: {what}")));
        same_headers(&path, &capture(name).0, &head);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_status_without_an_exit_node_and_what_is_not_there() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let twin = start();
    twin.handle.update(|state| {
        state.exit_node = None;
        state.peers[0].exit_node_option = false;
    });
    let (head, body) = twin.ask("GET", "/localapi/v0/status", super::HOST).await;
    let found = differences("", &document("localapi-status.http"), &serde_json::from_str(&body).unwrap());
    assert!(found.is_empty(), "{found:#?}");
    same_headers("status", &capture("localapi-status.http").0, &head);
    let (head, body) = twin.ask("GET", "/localapi/v0/nothere", super::HOST).await;
    let (real, text) = capture("localapi-404.http");
    same_headers("404", &real, &head);
    assert_eq!(body, text);
}

/// The same status line, header names and values, but for the version, the time and how long the answer is.
fn same_headers(what: &str, real: &[String], twin: &str) {
    const OWN: [&str; 5] = ["Tailscale-Version", "Date", "Content-Length", "Transfer-Encoding", "Connection"];
    let named = |line: &str| line.split(':').next().is_some_and(|name| OWN.contains(&name));
    let real: Vec<&str> = real.iter().map(String::as_str).filter(|l| !named(l)).collect();
    let twin: Vec<&str> = twin.lines().filter(|l| !named(l)).collect();
    assert!(real.is_empty() || real == twin, "{what}: {twin:#?} should be {real:#?}");
}
