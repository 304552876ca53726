//! Requests that kube-apiserver 1.33.13 was asked (`tests/data/k8s`), asked of the twin: the same status, the same content type, and of
//! every field that both have the same JSON type. Where the answer does not depend on the cluster, the same words.

use super::*;
use std::collections::BTreeSet;

/// Status, content type and body.
type Answered = (u16, String, String);

fn real(name: &str) -> Answered {
    let text = std::fs::read_to_string(format!("{}/tests/data/k8s/{name}.http", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), kind.to_owned(), body.to_owned())
}

async fn asked(client: &reqwest::Client, twin: &Twin, path: &str) -> Answered {
    // As curl, which the captures were made with: indented.
    let request = client.get(format!("https://{}{path}", twin.address)).header("user-agent", "curl/8.5.0");
    let answer = request.send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.text().await.unwrap())
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => "time",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Paths of a document with their JSON types; list items share a path, and so do the values of maps with free keys.
fn fields(value: &Value, path: &str, all: &mut BTreeSet<(String, &'static str)>) {
    all.insert((path.to_owned(), kind_of(value)));
    match value {
        Value::Array(items) => items.iter().for_each(|item| fields(item, &format!("{path}[]"), all)),
        Value::Object(map) => {
            let free = ["labels", "annotations", "selector", "data", "nodeSelector"].iter().any(|name| path.ends_with(name));
            map.iter().for_each(|(key, value)| fields(value, &format!("{path}.{}", if free { "*" } else { key }), all));
        }
        _ => {}
    }
}

/// Fields of the twin's whose type is none of those that the real server gives the same field. What may be null is so in either.
fn disagree(twin: &Value, real: &Value) -> Vec<String> {
    let (mut own, mut known) = (BTreeSet::new(), BTreeSet::new());
    fields(twin, "", &mut own);
    fields(real, "", &mut known);
    let types = |path: &str| known.iter().filter(|(p, kind)| p == path && *kind != "null").map(|(_, kind)| *kind).collect::<BTreeSet<_>>();
    let typed = own.iter().filter(|(_, kind)| *kind != "null").map(|(path, kind)| (path, kind, types(path)));
    let wrong = typed.filter(|(_, kind, known)| !known.is_empty() && !known.contains(**kind));
    wrong.map(|(path, kind, known)| format!("{path} is {kind}, the real server's is {known:?}")).collect()
}

#[tokio::test]
async fn lists_and_objects_have_the_form_of_the_real_servers() {
    let twin = start();
    // The captured slices had endpoints that were not ready, and none.
    twin.cluster.set_pod_ready("apps", "argilla", false);
    let (admin, viewer) = (client_of(&twin, &User::admin()), client_of(&twin, &User::viewer()));
    let (_, _, first) = asked(&admin, &twin, "/api/v1/pods?limit=1").await;
    let token = json_of(&first)["metadata"]["continue"].as_str().unwrap().to_owned();
    let goes_on = format!("/api/v1/pods?limit=1&continue={token}");
    for (name, client, path) in [
        ("list-nodes", &admin, "/api/v1/nodes"),
        ("list-services", &admin, "/api/v1/services"),
        ("list-endpointslices", &admin, "/apis/discovery.k8s.io/v1/endpointslices"),
        ("list-pods-rv0", &admin, "/api/v1/namespaces/apps/pods?resourceVersion=0"),
        ("list-pods-limit1", &admin, "/api/v1/pods?limit=1"),
        ("list-pods-continue", &admin, goes_on.as_str()),
        ("list-pods-field-node", &admin, "/api/v1/pods?fieldSelector=spec.nodeName%3Dcalypso"),
        ("list-events", &admin, "/api/v1/events"),
        ("get-namespace-404", &admin, "/api/v1/namespaces/nothere/pods"),
        ("get-configmap-coredns", &admin, "/api/v1/namespaces/kube-system/configmaps/coredns"),
        ("allowed-nodes-viewer", &viewer, "/api/v1/nodes?limit=1"),
        ("version", &admin, "/version"),
    ] {
        let (here, there) = (asked(client, &twin, path).await, real(name));
        assert_eq!((here.0, &here.1), (there.0, &there.1), "{name}");
        let (here, there) = (json_of(&here.2), json_of(&there.2));
        assert_eq!((&here["kind"], &here["apiVersion"]), (&there["kind"], &there["apiVersion"]), "{name}");
        assert_eq!(disagree(&here, &there), Vec::<String>::new(), "{name}");
        if let Some(metadata) = there["metadata"].as_object().filter(|_| there["items"].is_array()) {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(here["metadata"].as_object().unwrap()), keys(metadata), "{name}: metadata of the list");
        }
    }
}

#[tokio::test]
async fn what_does_not_depend_on_the_cluster_is_the_same_word_for_word() {
    let twin = start();
    let admin = client_of(&twin, &User::admin());
    assert_eq!(asked(&admin, &twin, "/livez").await, real("livez"));
    let (status, kind, body) = asked(&admin, &twin, "/api/v1/pods?limit=1&continue=%25%25garbage").await;
    let there = real("list-pods-bad-continue");
    let said = |body: &str| json_of(body)["message"].as_str().unwrap().split(": invalid character").next().unwrap().to_owned();
    assert_eq!((status, kind, said(&body)), (there.0, there.1, said(&there.2)));

    twin.api.set_datastore_hung(true);
    assert_eq!(asked(&admin, &twin, "/livez").await, real("etcd-hung-livez"));
    let (here, there) = (asked(&admin, &twin, "/version").await, real("etcd-hung-version"));
    let keys = |body: &str| json_of(body).as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!((here.0, keys(&here.2)), (there.0, keys(&there.2)));
    assert_eq!(asked(&admin, &twin, "/api/v1/nodes?resourceVersion=0").await.0, real("etcd-hung-list-rv0").0);

    let ca = reqwest::Certificate::from_pem(twin.authority.pem().as_bytes()).unwrap();
    let unknown = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let request = unknown.get(format!("https://{}/api/v1/pods", twin.address)).header("user-agent", "curl/8.5.0");
    let answer = request.header("authorization", "Bearer nobody").send().await.unwrap();
    let here = (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap().to_owned(), answer.text().await.unwrap());
    for name in ["unauthorized-bad-token", "unauthorized-expired-cert"] {
        let there = real(name);
        assert_eq!((here.0, &here.1, json_of(&here.2)), (there.0, &there.1, json_of(&there.2)), "{name}");
    }

    let mut stream = tokio::net::TcpStream::connect(twin.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert_eq!(text, include_str!("../../../../../tests/data/k8s/http-on-tls-port.http"));
}

#[tokio::test]
async fn a_watched_change_has_the_form_of_the_real_servers() {
    let twin = start();
    let client = client(&twin);
    let (_, list) = json(&client, &twin, "/apis/discovery.k8s.io/v1/endpointslices?limit=1").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path =
        format!("/apis/discovery.k8s.io/v1/endpointslices?watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1");
    let watch = client.get(format!("https://{}{path}", twin.address)).send().await.unwrap();
    let kind = watch.headers()["content-type"].to_str().unwrap().to_owned();
    twin.cluster.set_pod_ready("apps", "argilla", false);
    let lines = |text: &str| text.lines().filter(|l| !l.is_empty()).map(json_of).collect::<Vec<_>>();
    let (here, there) = (lines(&watch.text().await.unwrap()), real("watch-endpointslices-change"));
    assert_eq!(kind, there.1);
    let there = lines(&there.2);
    for what in ["MODIFIED", "BOOKMARK"] {
        let find = |all: &[Value]| all.iter().find(|event| event["type"] == what).unwrap_or_else(|| panic!("{what}: {all:?}")).clone();
        assert_eq!(disagree(&find(&here), &find(&there)), Vec::<String>::new(), "{what}");
    }
}
