//! A run on a real machine, as root: what its threads may do while a probe is at work.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// CAP_DAC_OVERRIDE, CAP_NET_ADMIN and CAP_NET_RAW.
const KEPT: u64 = 1 << 1 | 1 << 12 | 1 << 13;

#[test]
fn threads_hold_no_capability_that_probes_do_not_need() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = format!("{}/privilege", env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&folder).unwrap();
    let check = format!(
        "id = 'mine'\ntitle = 'mine'\nlayer = 1\nkind = 'http'\neach = 'first_vantage'\nfrom = '${{vantage.id}}'\nwhy = 'w'\n\
         [with]\nurl = 'http://127.0.0.1:{}/'\n[[expect]]\nthat = 'http.status == 204'\ncode = 'mine'\nsay = 'no'\n",
        listener.local_addr().unwrap().port()
    );
    std::fs::write(format!("{folder}/mine.toml"), check).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
    command.args(["check", "mine", "--json", "--checks", &folder]).env_remove("CI").env("HOME", "/nonexistent");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // It waits for an answer while it is looked at.
    let (mut connection, _) = listener.accept().unwrap();
    let statuses: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", child.id()))
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .collect();
    // A connection that is closed with something unread in it is reset.
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    connection.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
    drop(connection);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(statuses.len() > 1, "a runtime has threads: {statuses:?}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    for status in statuses {
        let line = |text: &str, name: &str| {
            let value =
                text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t")).unwrap_or_else(|| panic!("{name}: {text}")).to_owned();
            u64::from_str_radix(&value, 16).unwrap()
        };
        // All that the test itself may do, and a probe may need; nothing else.
        assert_eq!(line(&status, "CapEff"), line(&own, "CapEff") & KEPT, "{status}");
        assert_eq!((line(&status, "CapAmb"), line(&status, "CapInh"), line(&status, "NoNewPrivs")), (0, 0, 1), "{status}");
    }
}
