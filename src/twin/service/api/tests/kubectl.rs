//! What kubectl 1.33.13 asks, word for word (its `-v=9`), and what it can use of the answers.

use super::*;

/// A request of a command, and what must come.
#[derive(serde::Deserialize)]
struct Asked {
    command: String,
    method: String,
    path: String,
    accept: String,
    #[serde(default)]
    body_hex: String,
    status: u16,
    kind: String,
    /// Names in the rows of a table.
    #[serde(default)]
    items: Vec<String>,
}

fn asked() -> Vec<Asked> {
    let lines = include_str!("../../../../../tests/data/k8s/kubectl-requests.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

async fn answer(twin: &Twin, client: &reqwest::Client, asked: &Asked) -> (u16, String) {
    let version = twin.cluster.read(|objects| objects.version()).to_string();
    let url = format!("https://{}{}", twin.address, asked.path.replace("RV", &version));
    let request = client.request(asked.method.parse().unwrap(), url).header("accept", &asked.accept).body(bytes(&asked.body_hex));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn its_requests_are_answered_in_the_form_that_it_asks_for() {
    let twin = start();
    let client = client(&twin);
    for asked in asked() {
        let (status, text) = answer(&twin, &client, &asked).await;
        assert_eq!(status, asked.status, "{}: {text}", asked.command);
        if asked.kind.is_empty() {
            // A watch from now on: nothing has changed.
            assert_eq!(text, "", "{}", asked.command);
            continue;
        }
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["kind"], serde_json::json!(asked.kind), "{}", asked.command);
        let rows = body["rows"].as_array().into_iter().flatten();
        let names: Vec<&str> = rows.filter_map(|row| row["object"]["metadata"]["name"].as_str()).collect();
        assert!(asked.kind != "Table" || !names.is_empty(), "{}: no rows", asked.command);
        let missing: Vec<&String> = asked.items.iter().filter(|name| !names.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "{}: {missing:?} is missing", asked.command);
    }
}

#[tokio::test]
async fn its_reviews_in_protobuf_are_understood() {
    let twin = start();
    let (admin, viewer) = (client_of(&twin, &User::admin()), client_of(&twin, &User::viewer()));
    let all = asked();
    let find = |command: &str| all.iter().find(|a| a.command == command).unwrap();
    let status = async |client: &reqwest::Client, command: &str| {
        serde_json::from_str::<Value>(&answer(&twin, client, find(command)).await.1).unwrap()["status"].clone()
    };
    assert_eq!(status(&admin, "auth can-i list pods").await["allowed"], true);
    assert_eq!(status(&viewer, "auth can-i list pods").await["allowed"], false);
    assert_eq!(status(&viewer, "auth can-i get /version").await["allowed"], true);
    assert_eq!(status(&viewer, "auth whoami").await["userInfo"]["username"], "fathom-viewer");
    assert_eq!(status(&viewer, "auth can-i --list -n apps").await["resourceRules"][0]["resources"][0], "nodes");
}

#[test]
fn protobuf_that_is_cut_or_changed_is_never_more_than_refused() {
    for asked in asked().iter().filter(|a| !a.body_hex.is_empty()) {
        let whole = bytes(&asked.body_hex);
        for cut in 0..whole.len() {
            let _ = protobuf::review(&whole[..cut]);
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[cut] = value;
                let _ = protobuf::review(&changed);
            }
        }
        assert_eq!(protobuf::review(&whole).unwrap()["kind"], asked.kind.as_str());
    }
    assert_eq!(protobuf::review(b"{}"), None);
}
