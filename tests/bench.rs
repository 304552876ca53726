//! `fathom bench vllm` as its users run it, against a model server of our own on the loopback interface.
//!
//! Whether this machine was quick enough for valid figures is the machine's business: a run that says that it was not ends with 3,
//! and every other end has one reason.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use fathom::twin::service::vllm::{Pace, Traffic, Trouble, Vllm, VllmHandle};
use fathom::vantage::Net;
use harness::{Fathom, Outcome};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const MODEL: &str = "deepseek-ai/DeepSeek-OCR";
/// A small closed loop.
const SMALL: [&str; 10] = ["--requests", "8", "--concurrency", "2", "--warmup", "1", "--output-tokens", "6", "--prompt-words", "8"];
/// One with enough answers for a comparison, and the same with longer ones.
const COMPARED: [&str; 10] = ["--requests", "24", "--concurrency", "2", "--warmup", "1", "--output-tokens", "6", "--prompt-words", "8"];
const LONGER: [&str; 10] = ["--requests", "24", "--concurrency", "2", "--warmup", "1", "--output-tokens", "7", "--prompt-words", "8"];

struct Server {
    handle: VllmHandle,
    _runtime: Runtime,
}

impl Server {
    fn start(first_token_ms: u64, interval_ms: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _in = runtime.enter();
        let vllm = Vllm { model: MODEL.into(), max_model_len: 8192, pace: pace(first_token_ms, interval_ms) };
        let handle = vllm.serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        drop(_in);
        Self { handle, _runtime: runtime }
    }

    fn bench(&self, more: &[&str]) -> Fathom {
        let url = format!("http://{}", self.handle.address().unwrap());
        Fathom::new(["bench", "vllm", "--url", &url, "--model", MODEL].iter().chain(more))
    }

    /// A counter of its `/metrics`, all labels added up.
    fn counted(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.handle.address().unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let lines = page.lines().filter(|l| l.starts_with(&format!("vllm:{name}{{")));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    fn answered(&self) -> u64 {
        self.counted("request_success_total")
    }

    fn wait_for_answers(&self, n: u64) {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.answered() < n {
            assert!(Instant::now() < patience, "the bench sends nothing");
            std::thread::yield_now();
        }
    }
}

fn pace(first_token_ms: u64, interval_ms: u64) -> Pace {
    Pace { first_token: Duration::from_millis(first_token_ms), interval: Duration::from_millis(interval_ms) }
}

/// The document, after its exit code has been held against what it says of itself and what it should be.
#[track_caller]
fn judged(run: &Outcome, code: i64) -> Value {
    let report = run.json();
    let expected = if report["validity"]["valid"] == true { code } else { 3 };
    assert_eq!(report["exit_code"], expected, "{}", report["validity"]);
    assert_eq!(run.status, Some(i32::try_from(expected).unwrap()));
    report
}

fn file(name: &str) -> String {
    std::env::temp_dir().join(format!("fathom-bench-{name}-{}", std::process::id())).display().to_string()
}

fn numbers(report: &Value, field: &str) -> Vec<f64> {
    report["samples"].as_array().unwrap().iter().map(|s| s[field].as_f64().unwrap()).collect()
}

#[test]
fn a_closed_loop_in_json_csv_and_text() {
    let server = Server::start(2, 1);
    let csv = file("csv");
    let run = server.bench(&[&SMALL[..], &["--json", "--csv", &csv]].concat()).run();
    let stated = "8 requests (text of 8 words, up to 6 tokens each) after 1 to warm up, 2 at a time";
    assert!(run.stderr.contains(stated), "{}", run.stderr);
    let report = judged(&run, 0);
    let schema = Fathom::new(["bench", "schema"]).run().code(0).json();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert_eq!(validator.iter_errors(&report).map(|e| e.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(
        (&report["figures"]["complete"], &report["figures"]["failed"], &report["warmup_complete"]),
        (&json!(8), &json!(0), &json!(1))
    );
    assert_eq!((&report["server"]["requests"]["server"], &report["server"]["output_tokens"]["server"]), (&json!(8), &json!(48)));
    assert_eq!(server.answered(), 9);
    let rows = std::fs::read_to_string(&csv).unwrap();
    std::fs::remove_file(csv).unwrap();
    assert!(rows.starts_with("index,outcome,scheduled_at_ms,") && rows.lines().count() == 9, "{rows}");
    assert!(rows.lines().skip(1).all(|row| row.contains(",complete,")), "{rows}");

    let text = server.bench(&SMALL).run().stdout_has("TTFT (first token)").stdout_has("TPOT").stdout_has("8 complete");
    let text = text.stdout_has("server      agrees: 8 requests (here 8), 48 output tokens (here 48)");
    assert!(text.stdout.contains("\nvalid\n") || text.stdout.contains("\ninvalid: "), "validity stands above the figures");
}

#[test]
fn an_open_loop_keeps_a_schedule_made_beforehand() {
    let server = Server::start(2, 1);
    let open = |more: &[&str]| {
        let usual = ["--rate", "100", "--requests", "12", "--warmup", "0", "--output-tokens", "2", "--prompt-words", "4", "--json"];
        let run = server.bench(&[&usual, more].concat()).run();
        let report = run.json();
        assert_eq!(report["figures"]["complete"].as_u64().unwrap() + report["figures"]["unsent"].as_u64().unwrap(), 12);
        numbers(&report, "scheduled_at")
    };
    let constant = open(&["--arrivals", "constant"]);
    assert!(constant.iter().enumerate().all(|(n, at)| (at - 10.0 * n as f64).abs() < 0.01), "{constant:?}");
    let poisson = open(&[]);
    assert_eq!(poisson, open(&[]), "the same seed, the same schedule");
    assert_ne!(poisson, open(&["--seed", "2"]));
    assert_ne!(poisson, constant);
}

#[test]
fn a_ladder_climbs_by_doubling_and_says_why_it_ended() {
    let server = Server::start(10, 5);
    let ladder = ["--ladder", "--concurrency", "4", "--requests", "8", "--warmup", "0", "--output-tokens", "8", "--prompt-words", "4"];
    let report = server.bench(&[&ladder[..], &["--json"]].concat()).run().json();
    let rungs: Vec<u64> = report["ladder"]["rungs"].as_array().unwrap().iter().map(|r| r["concurrency"].as_u64().unwrap()).collect();
    assert!(!rungs.is_empty() && [1, 2, 4].starts_with(&rungs), "{rungs:?}");
    let ended = report["ladder"]["ended"].as_str().unwrap();
    let sound = |rung: &Value| rung["validity"] == "valid";
    let rung_list = report["ladder"]["rungs"].as_array().unwrap();
    match report["ladder"]["knee"].as_u64() {
        Some(knee) => assert!(rungs.contains(&knee)),
        None => assert!(!rung_list.iter().any(sound), "{rung_list:?}"),
    }
    // A server without a limit: it ends at the top, or because this machine was too busy.
    assert!(rungs == [1, 2, 4] || ended.starts_with("invalid") || ended.contains("bring"), "{rungs:?} {ended}");
}

#[test]
fn a_file_that_cannot_be_written_loses_no_measurement() {
    let server = Server::start(10, 2);
    for option in ["--save", "--csv"] {
        let run = server.bench(&[&SMALL[..], &["--json", option, "/nonexistent/file"]].concat()).run().code(2);
        assert_eq!(run.json()["schema"], "fathom.bench/1");
        assert!(run.stderr.contains("cannot write /nonexistent/file: No such file"), "{}", run.stderr);
    }
}

#[test]
fn a_baseline_gates() {
    let server = Server::start(80, 10);
    let (saved, run) = (file("baseline"), |more: &[&str]| server.bench(&[&COMPARED[..], more].concat()).run());
    let _ = run(&["--save", &saved]);
    // What this test is about is the comparison: a busy machine's baseline would be refused.
    let mut baseline: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    baseline["validity"] = json!({"valid": true, "codes": [], "reasons": []});
    std::fs::write(&saved, baseline.to_string()).unwrap();

    server.handle.set_pace(pace(400, 60));
    let slower = run(&["--baseline", &saved, "--json"]);
    assert_eq!(judged(&slower, 1)["baseline"]["verdict"], "fail");
    let text = run(&["--baseline", &saved]);
    assert!(text.stdout.contains("baseline    FAIL against ") && text.stdout.contains("could have seen "), "{}", text.stdout);

    server.handle.set_pace(pace(20, 2));
    let faster = run(&["--baseline", &saved, "--margin", "0.5", "--json"]);
    assert_eq!(judged(&faster, 0)["baseline"]["verdict"], "pass");

    let other = server.bench(&[&LONGER[..], &["--baseline", &saved]].concat()).run().code(2);
    other.stderr_has("the baseline is not comparable: the output length differs");
    std::fs::remove_file(saved).unwrap();
}

#[test]
fn ctrl_c_prints_the_numbers_so_far() {
    let server = Server::start(5, 5);
    let child = server.bench(&["--requests", "5000", "--output-tokens", "8", "--warmup", "0", "--max-seconds", "600"]).spawn();
    server.wait_for_answers(12);
    child.signal("INT");
    let run = child.finish().code(130).stdout_has("stopped early: interrupted").stdout_has("TTFT (first token)");
    run.stdout_has("exit 130: interrupted; these are the numbers so far");
    assert!(server.answered() < 5000);
}

#[test]
fn it_leaves_a_busy_server_alone() {
    let server = Server::start(20, 20);
    server.handle.set_load(4, 2);
    server.bench(&SMALL).run().code(3).stdout_is("").stderr_has("2 requests are waiting on the server: it is not measured now");
    assert_eq!(server.answered(), 0);

    server.handle.set_load(0, 0);
    let child = server.bench(&["--requests", "5000", "--concurrency", "2", "--warmup", "0", "--output-tokens", "4", "--json"]).spawn();
    server.wait_for_answers(2);
    server.handle.set_traffic(Traffic { running: 6, waiting: 3, ..Traffic::default() });
    let report = judged(&child.finish(), 3);
    assert_eq!(report["stopped"], "foreign-wait");
}

#[test]
fn ceilings_hold_before_and_while_it_runs() {
    let server = Server::start(50, 10);
    let refused = |more: &[&str], says: &str| {
        server.bench(&[&SMALL[..], more].concat()).run().code(2).stdout_is("").stderr_has(says);
    };
    refused(&["--max-requests", "8"], "9 requests are above the ceiling of 8");
    refused(&["--max-tokens", "100"], "are above the ceiling of 100");
    assert_eq!(server.answered(), 0);
    let report = judged(&server.bench(&["--requests", "5000", "--warmup", "0", "--max-seconds", "1", "--json"]).run(), 3);
    assert_eq!(report["stopped"], "time");
}

#[test]
fn failures_and_missed_limits_end_with_1() {
    let server = Server::start(2, 1);
    let other = Fathom::new(["bench", "vllm", "--url", &format!("http://{}", server.handle.address().unwrap()), "--model", "other"]);
    other.run().code(1).stderr_has(&format!("the server has no model `other` but {MODEL}"));
    let missed = server.bench(&[&SMALL[..], &["--slo", "ttft=0.001ms", "--json"]].concat()).run();
    let report = judged(&missed, 1);
    assert_eq!((&report["figures"]["goodput"]["good"], &report["figures"]["goodput"]["n"]), (&json!(0), &json!(8)));
    server.handle.set_trouble(Trouble::QueueFull);
    let report = judged(&server.bench(&[&SMALL[..], &["--json"]].concat()).run(), 1);
    assert_eq!((&report["figures"]["failed"], &report["figures"]["complete"]), (&json!(8), &json!(0)));
    assert!(report["figures"]["errors"].as_object().unwrap().keys().all(|e| e.starts_with("HTTP 503: The engine is currently busy")));
    server.handle.set_trouble(Trouble::Crash);
    let report = judged(&server.bench(&[&SMALL[..], &["--json"]].concat()).run(), 1);
    assert_eq!(report["figures"]["complete"], 0, "200 and an error event is no success: {}", report["figures"]["errors"]);
}

/// A server that says everything back, in the body of an error.
fn echo() -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let n = stream.read(&mut request).unwrap_or(0);
            let body = String::from_utf8_lossy(&request[..n]).into_owned();
            let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // A client that leaves early has what it wants.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    address
}

#[test]
fn no_key_is_shown_even_if_the_server_says_it_back() {
    const KEY: &str = "MaRkErSeCrEt012345";
    // So long that an answer with all of it is cut within the key.
    let path = format!("/{}/{KEY}9/v1", "hooks".repeat(15));
    let (csv, saved) = (file("key-csv"), file("key-saved"));
    let url = format!("http://{}{path}", echo());
    for json in [&["--json"][..], &[]] {
        let arguments = ["bench", "vllm", "--url", &url, "--model", "m", "--csv", &csv, "--save", &saved];
        let run = Fathom::new(arguments.iter().chain(&SMALL).chain(json)).env("VLLM_API_KEY", KEY).run();
        assert!(run.stdout.contains("HTTP 401"), "{}\n{}", run.stdout, run.stderr);
        let files = [&csv, &saved].map(|path| std::fs::read_to_string(path).unwrap());
        for shown in [&run.stdout, &run.stderr, &files[0], &files[1]] {
            assert!(!shown.contains(&KEY[..6]), "{shown}");
        }
        assert!(run.stdout.contains("hooks/***"), "the rest of the path is shown: {}", run.stdout);
    }
    std::fs::remove_file(csv).unwrap();
    std::fs::remove_file(saved).unwrap();
    for url in [format!("http://me:{KEY}@127.0.0.1:1"), format!("http://127.0.0.1:1/?api_key={KEY}"), format!("nonsense {KEY}")] {
        let run = Fathom::new(["bench", "vllm", "--url", &url, "--model", "m"]).run().code(2);
        assert!(!run.stdout.contains(KEY) && !run.stderr.contains(KEY), "{}", run.stderr);
    }
}
