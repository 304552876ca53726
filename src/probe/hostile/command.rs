//! A `warp-cli` that is none.

use crate::probe::command::tests::all_ended;
use crate::probe::testing::Folder;
use crate::probe::testnet;
use crate::vantage::{HostFiles, Net, VantageKind};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const WARP: &str = "routes = []\ndevice = 'CloudflareWARP'\ndomain = 'cluster.local'\nnameserver = '10.43.0.10'";
/// Three commands that run side by side, each with a patience of 3 s, and some room for a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// What the probe says where `warp-cli` is a script.
async fn look(folder: &Folder, body: &str) -> Value {
    folder.script("warp-cli", body);
    let files = HostFiles { path: Some(folder.0.clone()), ..HostFiles::default() };
    let began = Instant::now();
    let vantage = testnet::vantage("workstation", VantageKind::Workstation, Net::Here, files);
    let seen = testnet::observe_at("warp", WARP, vantage).await;
    assert!(began.elapsed() < SOON, "took {:?}", began.elapsed());
    assert!(seen.evidence.iter().all(|e| !e.text.contains('\u{1b}')), "{:?}", seen.evidence);
    seen.facts.to_json()
}

fn all_unknown(facts: &Value, what: &str) {
    for path in ["status", "connected", "organization", "mode", "tunnels", "left_out", "domain_ok"] {
        assert!(facts[path]["unknown"].is_string(), "{what}: {path} is {}", facts[path]);
    }
}

#[tokio::test]
async fn junk_is_unknown() {
    let folder = Folder::new("warp-junk");
    for body in [
        "printf '\\033]0;pwned\\007 not json'",
        "head -c 1000 /dev/urandom",
        "echo '{\"status\": \"Connected\"'",
        "echo '[[[[1]]]]'",
        "exit 7",
        "kill -9 $$",
        "head -c 200000 /dev/zero | tr '\\0' '['",
    ] {
        all_unknown(&look(&folder, body).await, body);
    }
}

#[tokio::test]
async fn an_error_that_comes_with_exit_status_0_is_unknown_except_for_what_it_tells() {
    let folder = Folder::new("warp-error");
    let facts = look(&folder, "echo '{\"code\": \"IPC\", \"error\": \"Unable to connect to the daemon\"}'; exit 0").await;
    all_unknown(&facts, "error");
    assert!(facts["connected"]["unknown"].as_str().unwrap().contains("Unable to connect"), "{facts}");
    // A device that is not registered belongs to no organisation: that is known.
    let facts = look(&folder, "echo '{\"code\": \"registration_missing\", \"error\": \"Registration Missing\"}'").await;
    assert_eq!((facts["organization"].as_str(), facts["connected"]["unknown"].is_string()), (Some(""), true));
}

#[tokio::test]
async fn a_gigabyte_is_not_read() {
    let folder = Folder::new("warp-flood");
    let counter = folder.0.join("poured");
    // What the pipe could not take is never made: the writer is killed long before its gigabyte is through.
    let body = format!("dd if=/dev/zero bs=65536 count=16384 2>>{} | tr '\\0' 'x'", counter.display());
    all_unknown(&look(&folder, &body).await, "flood");
    let done = std::fs::read_to_string(&counter).unwrap_or_default();
    assert!(!done.contains("16384+0 records out"), "the whole gigabyte was read: {done}");
}

#[tokio::test]
async fn what_hangs_is_ended_with_its_children() {
    let folder = Folder::new("warp-hang");
    let pids = folder.0.join("pids");
    let body = format!("sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
    all_unknown(&look(&folder, &body).await, "hang");
    all_ended(&pids, 6).await;
}
