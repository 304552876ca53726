//! 1,000 and 10,000 ICMP targets, one echo request each, against `fping` in the same run: `cargo bench --bench icmp_scale`.
//!
//! Every target is an address of the loopback network (127.0.0.0/8) in a private namespace: no packet leaves it. fathom runs
//! as its users run it, from an inventory and a check file to the JSON report; fping only sends and counts. The figures are
//! wall clock, processor time and largest resident memory of the two processes, and their ratios.

use fathom::def::inventory::{Declared, Inventory, Node};
use fathom::def::{Catalog, Sources};
use fathom::twin::wire::Wire;
use fathom::vantage::Net;
use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

const CHECK: &str = r#"
id      = "scale-echo"
title   = "${node.name} answers"
layer   = 1
kind    = "icmp"
each    = "nodes"
from    = "here"
why     = "A benchmark."
by_hand = "ping -c 1 ${node.tailscale}"
source  = "benches/icmp_scale.rs"

[with]
address = "${node.tailscale}"
count   = 1

[[expect]]
that = "icmp.received == 1"
code = "scale-silent"
say  = "${node.name} does not answer"
"#;

fn main() {
    fathom::vantage::netns::enter_private().expect("network namespaces");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    // Brings the loopback device up and allows datagram ICMP sockets.
    runtime.block_on(Wire::open("here", Net::Here)).expect("loopback");
    for count in [1_000, 10_000] {
        let folder = std::env::temp_dir().join(format!("fathom-icmp-scale-{}-{count}", std::process::id()));
        std::fs::create_dir_all(folder.join("checks")).expect("folder");
        measure(count, &folder);
        std::fs::remove_dir_all(&folder).expect("folder");
    }
}

fn measure(count: u32, folder: &Path) {
    std::fs::write(folder.join("checks/scale-echo.toml"), CHECK).expect("check");
    std::fs::write(folder.join("inventory.toml"), toml::to_string(&inventory(count)).expect("inventory")).expect("inventory");
    let addresses = (0..count).fold(String::new(), |mut list, n| {
        let _ = writeln!(list, "{}", address(n));
        list
    });
    let fathom = median(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
        command.args(["check", "scale-echo", "--json", "--timeout", "120", "--inventory"]).arg(folder.join("inventory.toml"));
        command.arg("--checks").arg(folder.join("checks"));
        cost(&mut command, "", true)
    });
    show(count, "fathom check", fathom);
    if Command::new("fping").arg("-v").stdout(Stdio::null()).status().is_err() {
        println!("{count:>6} targets  fping is not installed: no comparison (apt-get install fping)");
        return;
    }
    // -i 1: its shortest spacing without privilege (fping(8)); -r 0: one request each; -q: only the summary.
    let fping = median(|| cost(Command::new("fping").args(["-q", "-i", "1", "-r", "0", "-c", "1"]), &addresses, false));
    show(count, "fping -i 1", fping);
    // Without spacing, as root may.
    let eager = median(|| cost(Command::new("fping").args(["-q", "-i", "0", "-r", "0", "-c", "1"]), &addresses, false));
    show(count, "fping -i 0", eager);
    println!(
        "{count:>6} targets  fathom / fping -i 1: wall {:.2}, CPU {:.1}, memory {:.1}; / fping -i 0: wall {:.1}",
        fathom.wall.as_secs_f64() / fping.wall.as_secs_f64(),
        fathom.cpu.as_secs_f64() / fping.cpu.as_secs_f64(),
        fathom.memory_kib as f64 / fping.memory_kib as f64,
        fathom.wall.as_secs_f64() / eager.wall.as_secs_f64(),
    );
}

#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
    memory_kib: i64,
}

/// Runs a command to its end and takes its `rusage` (wait4(2)).
#[expect(clippy::zombie_processes, reason = "wait4 reaps it, and tells what it used")]
fn cost(command: &mut Command, input: &str, must_succeed: bool) -> Cost {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("command");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("stdin");
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    let pid = i32::try_from(child.id()).expect("pid");
    // SAFETY: status and usage outlive the call; the child is ours and not yet waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let wall = began.elapsed();
    assert_eq!(waited, pid);
    assert!(!must_succeed || status == 0, "{command:?} ended with {status}");
    // SAFETY: rusage is plain data, for which zero is a valid value; wait4 filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_usec).unwrap_or_default() * 1000);
    Cost { wall, cpu: time(usage.ru_utime) + time(usage.ru_stime), memory_kib: usage.ru_maxrss }
}

/// The median run by wall clock.
fn median(mut run: impl FnMut() -> Cost) -> Cost {
    let mut costs: Vec<Cost> = (0..ROUNDS).map(|_| run()).collect();
    costs.sort_by_key(|c| c.wall);
    costs[ROUNDS / 2]
}

fn show(count: u32, name: &str, cost: Cost) {
    let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
    println!("{count:>6} targets  {name:<14} wall {wall:>7.3} s  CPU {cpu:>7.3} s  memory {:>7.1} MiB", cost.memory_kib as f64 / 1024.0);
}

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n)
}

/// The built-in inventory with other nodes, and nothing on them.
fn inventory(count: u32) -> Inventory {
    let mut inv = (*Catalog::load(&Sources::default()).expect("built-in catalogue").inventory).clone();
    let template = inv.nodes[0].clone();
    inv.cluster.pod_cidr = "10.0.0.0/8".parse().expect("range");
    inv.cluster.service_cidr = "172.16.0.0/16".parse().expect("range");
    inv.nodes = (0..count)
        .map(|n| Node {
            name: format!("node-{n}"),
            kube_name: format!("node-{n}"),
            state: Declared::Up,
            tailscale: Some(address(n)),
            tailscale_also: None,
            public: None,
            pod_cidr: ipnet::Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + (n << 8)), 24).expect("range"),
            ..template.clone()
        })
        .collect();
    (inv.pods, inv.services, inv.vantages, inv.databases, inv.https, inv.vllms, inv.workers) = Default::default();
    inv.tailnet.exit_node = None;
    inv
}
