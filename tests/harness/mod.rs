//! Runs the program and compares what it says: standard output, standard error and exit code together.

#![allow(unreachable_pub, dead_code, reason = "shared by test binaries, each of which uses its part")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A call of the program.
pub struct Fathom {
    command: Command,
}

/// What came of it.
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub status: Option<i32>,
    signal: Option<i32>,
}

/// A call that is under way.
pub struct Running(Child);

impl Fathom {
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
        command.args(args).env_remove("CI").env_remove("KUBECONFIG").env_remove("VLLM_API_KEY").env("HOME", "/nonexistent");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command }
    }

    /// Standard output is a pipe that nobody reads.
    pub fn closed_stdout(mut self) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.command.stdout(writer);
        self
    }

    /// Standard output goes there.
    pub fn stdout_to(mut self, file: std::fs::File) -> Self {
        self.command.stdout(file);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in an empty network namespace: nothing can be reached, and no packet leaves.
    pub fn isolated(mut self) -> Self {
        let root = nix::unistd::geteuid().is_root();
        // SAFETY: unshare(2) is async-signal-safe and touches no memory.
        unsafe {
            self.command.pre_exec(move || {
                let user = if root { nix::sched::CloneFlags::empty() } else { nix::sched::CloneFlags::CLONE_NEWUSER };
                Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET | user)?)
            });
        }
        self
    }

    /// Sees a folder in the place of another, in a mount namespace of its own. After [`Self::isolated`], which makes who is not root the
    /// owner of it.
    pub fn mounted(mut self, folder: &str, place: &str) -> Self {
        use nix::mount::{MsFlags, mount};
        let (folder, place) = (std::ffi::CString::new(folder).unwrap(), std::ffi::CString::new(place).unwrap());
        // SAFETY: unshare(2) and mount(2) are system calls on memory that was allocated before.
        unsafe {
            self.command.pre_exec(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
                let none = None::<&std::ffi::CStr>;
                mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                Ok(mount(Some(folder.as_c_str()), place.as_c_str(), none, MsFlags::MS_BIND, none)?)
            });
        }
        self
    }

    /// The namespace that the test itself runs in.
    pub fn namespace_of_the_test() -> BTreeSet<String> {
        BTreeSet::from([std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned()])
    }

    pub fn run(mut self) -> Outcome {
        let output = self.command.output().unwrap();
        Outcome::of(output)
    }

    pub fn spawn(mut self) -> Running {
        Running(self.command.spawn().unwrap())
    }
}

impl Outcome {
    fn of(output: std::process::Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            status: output.status.code(),
            signal: output.status.signal(),
        }
    }

    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn stdout_is(self, text: &str) -> Self {
        assert_eq!(self.stdout, text);
        self
    }

    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "`{text}` is missing in:\n{}", self.stdout);
        self
    }

    #[track_caller]
    pub fn stderr_is(self, text: &str) -> Self {
        assert_eq!(self.stderr, text);
        self
    }

    #[track_caller]
    pub fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        self
    }

    /// Standard output as exactly one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until the twin is being built: the process holds namespaces that it made.
    pub fn wait_for_twin(&mut self) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.namespaces().len() < 10 {
            assert!(Instant::now() < patience, "the twin did not come up");
            assert!(self.0.try_wait().unwrap().is_none(), "the program ended before its twin was up");
            std::thread::yield_now();
        }
    }

    /// What it printed up to and with the first line that holds a text. Reads no byte further.
    pub fn printed_until(&mut self, text: &str) -> String {
        let stdout = self.0.stdout.as_mut().unwrap();
        let mut printed = Vec::new();
        let mut byte = [0];
        loop {
            stdout.read_exact(&mut byte).expect("it ended before it printed that");
            printed.push(byte[0]);
            let line = printed.strip_suffix(b"\n").map(|p| p.rsplit(|b| *b == b'\n').next().unwrap_or(p));
            if line.is_some_and(|line| String::from_utf8_lossy(line).contains(text)) {
                return String::from_utf8(printed).unwrap();
            }
        }
    }

    /// Network namespaces that the process holds open.
    pub fn namespaces(&self) -> BTreeSet<String> {
        namespaces_of(&format!("/proc/{}", self.pid()))
    }

    pub fn signal(&self, name: &str) {
        let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    pub fn finish(self) -> Outcome {
        Outcome::of(self.0.wait_with_output().unwrap())
    }

    pub fn finish_killed(self) {
        assert_eq!(self.finish().signal, Some(9));
    }
}

fn namespaces_of(process: &str) -> BTreeSet<String> {
    let descriptors = std::fs::read_dir(format!("{process}/fd")).into_iter().flatten().flatten().map(|e| e.path());
    let tasks = std::fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten().map(|e| e.path().join("ns/net"));
    let links = descriptors.chain(tasks).filter_map(|path| std::fs::read_link(path).ok());
    links.map(|link| link.to_string_lossy().into_owned()).filter(|link| link.starts_with("net:[")).collect()
}

/// Which of these namespaces any process still is in or holds open, or a mount keeps.
pub fn still_held(namespaces: &BTreeSet<String>) -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().display().to_string());
    let processes = processes.filter(|p| p.trim_start_matches("/proc/").bytes().all(|b| b.is_ascii_digit()));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let held: BTreeSet<String> = processes.flat_map(|p| namespaces_of(&p)).collect();
    namespaces.iter().filter(|ns| held.contains(*ns) || mounts.contains(ns.as_str())).cloned().collect()
}

/// Checks a report against the JSON Schema in the tree.
#[track_caller]
pub fn validate(json: &Value) {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string("assets/schema/report.json").unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(json).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Decodes a report strictly.
pub fn report(json: &Value) -> fathom::report::Report {
    serde_json::from_value(json.clone()).unwrap()
}
