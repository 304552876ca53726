//! The program as its users run it: output, errors and exit code together.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;
#[path = "cli/kubeconfig.rs"]
mod kubeconfig;

use harness::{Fathom, report, validate};
use serde_json::Value;

#[test]
fn version_and_help_are_no_errors() {
    Fathom::new(["--version"]).run().code(0).stdout_has("fathom 0.1.0").stderr_is("");
    Fathom::new(["--help"]).run().code(0).stdout_has("Exit codes: 0 nothing failed").stdout_has("diagnose").stderr_is("");
}

#[test]
fn bad_input_is_one_clear_sentence_and_exit_code_2() {
    let says = |args: &[&str], text: &str| Fathom::new(args).run().code(2).stdout_is("").stderr_has(text);
    says(&["check", "--nonsense"], "unexpected argument '--nonsense'");
    says(&["check", "--layer", "5"], "5 is not in 1..=4");
    for number in ["soon", "-1", "nan", ""] {
        says(&["check", "--timeout", number], "must be a number of seconds between 0.1 and 3600");
    }
    says(&["check", "--json", "-o", "human"], "'--json' cannot be used with '--output <FORMAT>'");
    says(&["check", "--twin", "--layer", "3", "ip-forward"], "no check that was asked for is in layer 3");
    says(&["check", "--twin", "ip-foward[calypso]"], "there is no check `ip-foward[calypso]` (did you mean `ip-forward`?)");
    says(&["check", "--twin=ip-forward-zer"], "the twin has no fault `ip-forward-zer` (did you mean `ip-forward-zero`?)");
    says(&["check", "--twin", "--playbook", "pods-unreachabl"], "(did you mean `pods-unreachable`?)");
    says(&["check", "--twin", "--from", "calypos"], "from `calypos` (did you mean `calypso`?); known are");
    says(&["explain", "udp8472-bloked"], "(did you mean `udp8472-blocked`?)");
    says(&["lint", "/dev/zero"], "/dev/zero:1: cannot be read: is larger than 4 MiB");
    says(&["check", "--twin", "--timeout", "soon"], "must be a number of seconds between 0.1 and 3600");
    says(&["check", "--twin=no-such-fault"], "the twin has no fault `no-such-fault`; `fathom twin faults` names them all");
    says(&["check", "--twin", "--from", "atlantis"], "there is no way to look from `atlantis`; known are tethys, calypso");
    says(&["check", "--twin", "--from", ","], "--from names no vantage");
    says(&["check", "--twin", "no-such-check"], "there is no check `no-such-check`");
    says(&["check", "--twin", "--playbook", "no-such"], "there is no playbook `no-such`");
    says(&["check", "--inventory", "/nonexistent.toml"], "/nonexistent.toml:1: cannot be read: No such file or directory");
    says(&["check", "--inventory", "tests/invalid/broken-toml.toml"], "tests/invalid/broken-toml.toml:1: invalid basic string");
    says(&["check", "--checks", "/nonexistent"], "/nonexistent:1: folder cannot be read");
    says(&["check", "--twin", "--inventory", "tests/data/empty.toml"], "cannot be combined with --inventory");
    says(&["explain", "no-such"], "there is no check, playbook, cause or probe kind `no-such`");
    says(&["twin", "shell", "atlantis"], "the twin has no host `atlantis`");
    says(&["diagnose", "my coffee is cold"], "no playbook knows this symptom");
    says(&[], "the terminal interface needs a terminal");
}

#[test]
fn every_faulty_definition_is_named_with_file_and_line() {
    let mut all = String::new();
    for entry in sorted("tests/invalid") {
        let run = Fathom::new(["lint", &entry]).run().code(2).stdout_is("");
        all.push_str(&run.stderr);
    }
    insta::assert_snapshot!("invalid_definitions", all);
    Fathom::new(["lint"]).run().code(0).stdout_is("no faults found\n");
    Fathom::new(["lint", "tests/lab/oceanid-lab.toml", "tests/data/empty.toml", "assets/oceanid.toml", "checks/1-physical/exit-node.toml"])
        .run()
        .code(0);
}

#[test]
fn user_checks_are_added_and_override() {
    let folder = tempdir("user-checks");
    let check = "id = 'mine'\ntitle = 'mine'\nlayer = 1\nkind = 'sysctl'\nfrom = 'calypso'\nwhy = 'w'\n[with]\nkey = 'net.ipv4.ip_forward'\n\
                 [[expect]]\nthat = 'sysctl.value == 7'\ncode = 'mine'\nsay = 'it is {sysctl.value}'\n";
    std::fs::write(format!("{folder}/mine.toml"), check).unwrap();
    let json = Fathom::new(["check", "mine", "--twin", "--json", "--checks", &folder]).run().code(1).json();
    assert_eq!(json["checks"][0]["id"], "mine");
    assert_eq!(json["checks"][0]["reason"], "it is 1");
    assert_eq!(json["unexplained"], serde_json::json!(["mine"]), "a failure that no cause explains is said to be unexplained");
    std::fs::write(format!("{folder}/mine.toml"), check.replace("'mine'\ntitle", "'ip-forward'\ntitle")).unwrap();
    let json = Fathom::new(["check", "ip-forward", "--twin", "--json", "--checks", &folder]).run().code(1).json();
    assert_eq!(json["checks"][0]["reason"], "it is 1", "an id that is built in is overridden");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_schema_in_the_tree_is_the_programs_and_its_reports_keep_it() {
    let schema = Fathom::new(["schema"]).run().code(0).stdout;
    assert_eq!(schema, std::fs::read_to_string("assets/schema/report.json").unwrap(), "run: fathom schema > assets/schema/report.json");
    for (args, code) in [(&["check", "--twin", "--json"][..], 0), (&["check", "--twin=endpoints-empty-selector", "--json"], 1)] {
        let json = Fathom::new(args).run().code(code).stderr_is("").json();
        validate(&json);
        let strict = report(&json);
        assert_eq!(strict.run.exit_code, u8::try_from(code).unwrap());
    }
}

#[test]
fn a_diagnosis_reads_the_same_in_text_and_json() {
    let run = Fathom::new(["check", "--twin=endpoints-empty-selector"]).run().code(1).stderr_is("");
    for text in ["endpoints-empty-selector", "near miss", "app.kubernetes.io/name=argila", "exit 1"] {
        assert!(run.stdout.contains(text), "{text} is missing:\n{}", run.stdout);
    }
    assert!(!run.stdout.contains('\u{1b}'), "no escape codes in a pipe");
}

#[test]
fn events_fold_to_the_same_verdicts() {
    let run = Fathom::new(["check", "--twin=ip-forward-zero", "-o", "ndjson"]).run().code(1).stderr_is("");
    let events: Vec<Value> = run.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events[0]["event"], "started");
    assert_eq!(events[events.len() - 1]["event"], "finished");
    assert_eq!(events[events.len() - 1]["complete"], true);
    let failed: Vec<&str> = events.iter().filter(|e| e["check"]["outcome"] == "fail").filter_map(|e| e["check"]["id"].as_str()).collect();
    assert_eq!(failed, ["ip-forward[calypso]"]);
}

#[test]
fn ctrl_c_still_prints_a_valid_partial_report() {
    let mut child = Fathom::new(["check", "--twin=udp8472-blocked", "--json"]).spawn();
    child.wait_for_twin();
    child.signal("INT");
    let run = child.finish().code(130);
    let json = run.json();
    validate(&json);
    assert_eq!(json["run"]["complete"], false);
    assert_eq!(json["run"]["exit_code"], 130);
    assert!(json["checks"].as_array().unwrap().iter().any(|c| c["reason"] == "the run was interrupted"));
}

/// Twelve seconds are longer than most probes have, and shorter than the run has.
#[test]
fn a_process_that_was_stopped_blames_nobody() {
    let mut child = Fathom::new(["check", "--twin", "--from", "calypso,tethys", "-o", "ndjson"]).spawn();
    let begun = child.printed_until("pod-echo");
    child.signal("STOP");
    std::thread::sleep(std::time::Duration::from_secs(12));
    child.signal("CONT");
    let ended = child.finish().code(0).stdout;
    let events: Vec<Value> = begun.lines().chain(ended.lines()).map(|l| serde_json::from_str(l).unwrap()).collect();
    let judged: Vec<&Value> = events.iter().filter(|e| e["event"] == "judged").map(|e| &e["check"]).collect();
    let blamed: Vec<&&Value> = judged.iter().filter(|c| c["outcome"] == "fail" || c["outcome"] == "unknown").collect();
    assert!(blamed.is_empty(), "{blamed:#?}");
    assert!(judged.iter().any(|c| c["duration_ms"].as_u64().is_some_and(|ms| ms > 12_000)), "it was stopped while it looked");
}

#[test]
fn the_runs_own_deadline_is_kept() {
    let json = Fathom::new(["check", "--twin=udp8472-blocked", "--json", "--timeout", "2"]).run().json();
    validate(&json);
    // The run's own time: how long the twin takes to come up is the machine's business.
    assert!((2000..4000).contains(&json["run"]["duration_ms"].as_u64().unwrap()), "{}", json["run"]);
    assert_eq!(json["run"]["complete"], false);
    assert!(json["checks"].as_array().unwrap().iter().any(|c| c["reason"] == "the run's deadline passed"));
}

#[test]
fn a_closed_standard_output_is_no_error() {
    Fathom::new(["list"]).closed_stdout().run().code(0).stderr_is("");
    Fathom::new(["check", "--twin", "--json"]).closed_stdout().run().code(0).stderr_is("");
}

#[test]
fn a_reader_that_has_gone_turns_no_failure_into_a_success() {
    for format in ["human", "json", "ndjson"] {
        Fathom::new(["check", "ip-forward", "--twin=ip-forward-zero", "-o", format]).closed_stdout().run().code(1).stderr_is("");
    }
}

#[test]
fn a_full_disk_is_named() {
    for args in [&["list"][..], &["check", "ip-forward", "--twin", "--json"], &["check", "ip-forward", "--twin", "-o", "ndjson"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        Fathom::new(args).stdout_to(full).run().code(2).stderr_has("fathom: cannot write to standard output: No space left on device");
    }
}

/// A FIFO that nobody writes to would keep a reader waiting for ever, and the end of the program with it.
#[test]
fn a_kubeconfig_that_is_no_file_keeps_nobody_waiting() {
    let folder = tempdir("fifo");
    let fifo = format!("{folder}/config");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let json = Fathom::new(["check", "kube-api", "--twin", "--json", "--kubeconfig", &fifo]).run().code(3).json();
    assert!(json["checks"][0]["reason"].as_str().unwrap().contains(&format!("{fifo}: is no regular file")), "{json:#}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_cause_is_explained_in_words_and_with_what_mends_it() {
    Fathom::new(["explain", "pg-allowlist-drop"])
        .run()
        .code(0)
        .stdout_has("!db.connected && db.connect_error == 'TIMEOUT'\n      ")
        .stdout_has("What mends it (nothing of it is run)")
        .stdout_has("Afterwards these must pass")
        .stderr_is("");
}

#[test]
fn nothing_is_left_behind_by_kill_9() {
    let own = harness::still_held(&Fathom::namespace_of_the_test());
    let mut child = Fathom::new(["check", "--twin=udp8472-blocked", "--json"]).spawn();
    child.wait_for_twin();
    let made: std::collections::BTreeSet<String> = child.namespaces().difference(&own).cloned().collect();
    assert_eq!(harness::still_held(&made), made, "the check sees namespaces that are there");
    child.signal("KILL");
    child.finish_killed();
    assert_eq!(harness::still_held(&made), Default::default());
}

#[test]
fn the_twins_workstation_has_warp_cli_in_its_path() {
    let ask = |args: &[&str]| Fathom::new(["twin", "shell", "workstation", "warp-cli"].iter().chain(args)).run();
    assert_eq!(ask(&["--json", "settings"]).code(0).json()["settings"]["split_tunnel_mode"], "exclude");
    ask(&["--json", "no-such-thing"]).code(2).stderr_has("unrecognized").stdout_is("");
}

#[test]
fn a_machine_without_the_cluster_gets_honest_answers() {
    let run = Fathom::new(["check", "--inventory", "tests/data/empty.toml", "--json"]).isolated().run();
    let json = run.json();
    validate(&json);
    assert!(matches!(run.status, Some(1 | 3)), "{:?}", run.status);
    assert_eq!(json["vantages"][0]["id"], "workstation");
    let checks = json["checks"].as_array().unwrap();
    assert!(checks.iter().any(|c| c["outcome"] != "pass" && c["outcome"] != "skip"));
    for check in checks.iter().filter(|c| c["outcome"] == "unknown" || c["outcome"] == "fail") {
        assert!(check["reason"].as_str().is_some_and(|r| r.len() > 10), "{check:#}");
    }
    assert_eq!(json["diagnoses"], serde_json::json!([]), "what could not be looked at is no cause");
    assert!(!run.stderr.contains("panicked"));
}

#[test]
fn a_missing_kubeconfig_is_unknown_and_named() {
    let json = Fathom::new(["check", "kube-api", "--twin", "--json", "--kubeconfig", "/nonexistent/config"]).run().code(3).json();
    assert_eq!(json["checks"][0]["outcome"], "unknown");
    assert!(json["checks"][0]["reason"].as_str().unwrap().contains("/nonexistent/config"));
}

#[test]
fn a_symptom_leads_to_its_playbook() {
    let run = Fathom::new([
        "diagnose",
        "--twin=exit-node-swallows-cluster-cidr",
        "--json",
        "dial tcp 10.43.71.170:80: connect: network is unreachable",
    ])
    .run()
    .code(1);
    assert!(run.stderr.contains("playbook pods-unreachable"));
    assert!(run.stderr.contains("Both give a timeout"), "the documented reading is corrected:\n{}", run.stderr);
    assert_eq!(run.json()["diagnoses"][0]["code"], "exit-node-swallows-cluster-cidr");
}

/// Before the causes that it is not: they fill a screen or two.
#[test]
fn the_fix_comes_right_after_the_proof() {
    let text =
        Fathom::new(["check", "warp", "kube-api", "--twin=warp-split-tunnel-excludes-cidr", "--from", "workstation"]).run().code(1).stdout;
    let at = |heading: &str| text.find(&format!("\n  {heading}\n")).unwrap_or_else(|| panic!("no {heading} in:\n{text}"));
    assert!(at("Evidence") < at("Fix") && at("Fix") < at("Not tested"), "{text}");
}

#[test]
fn the_words_of_a_postgres_client_lead_to_the_database() {
    for symptom in ["could not connect to server: Connection timed out", "dial tcp 18.116.211.217:5432: i/o timeout"] {
        Fathom::new(["diagnose", "--twin=pg-allowlist-drop", "--json", symptom]).run().code(1).stderr_has("playbook database");
    }
}

#[test]
fn commands_to_type_are_commands() {
    let json = Fathom::new(["check", "api-clusterip", "api-direct", "database-idle", "ocr-page", "--twin", "--json"]).run().code(0).json();
    let typed = |id: &str| {
        let check = json["checks"].as_array().unwrap().iter().find(|c| c["check"] == id && c["outcome"] != "skip");
        check.and_then(|c| c["by_hand"].as_str()).unwrap_or_else(|| panic!("no {id} in {json:#}"))
    };
    // nc takes address and port apart.
    assert_eq!(typed("api-clusterip"), "nc -zv 10.43.0.1 443");
    assert_eq!(typed("api-direct"), "nc -zv 100.95.51.125 6443");
    for id in ["database-idle", "ocr-page"] {
        let command = typed(id).split("   #").next().unwrap();
        assert!(!command.contains('`') && !command.contains(" with an image") && !command.contains("wait,"), "{command}");
    }
}

#[test]
fn faults_are_listed_with_their_causes() {
    let json = Fathom::new(["twin", "faults", "--json"]).run().code(0).json();
    let codes = Fathom::new(["list", "--json"]).run().code(0).json();
    let causes: Vec<&str> =
        codes["playbooks"].as_array().unwrap().iter().flat_map(|p| p["causes"].as_array().unwrap()).filter_map(Value::as_str).collect();
    for fault in json.as_array().unwrap() {
        for key in ["id", "layer", "title", "decided_from"] {
            assert!(!fault[key].is_null(), "{key} of {fault}");
        }
        // Null: no fault, nothing may be claimed.
        let cause = &fault["expects"];
        assert!(cause.is_null() || causes.contains(&cause.as_str().unwrap()), "no playbook has the cause {cause}");
    }
}

fn sorted(folder: &str) -> Vec<String> {
    let mut paths: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| format!("{folder}/{}", e.unwrap().file_name().to_string_lossy())).collect();
    paths.sort();
    paths
}

fn tempdir(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("fathom-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path.display().to_string()
}
