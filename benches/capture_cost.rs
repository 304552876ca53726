//! What the capture of the probe kind `vxlan-wire` costs on a busy link: `cargo bench --bench capture_cost`.
//!
//! Two private namespaces with a veth pair between them, so no packet leaves the machine. A process of its own loads the link for
//! some seconds as iperf3 does, with one TCP stream, or with datagrams to the VXLAN port itself, which the kernel's filter lets
//! through. Meanwhile the probe watches the link for the echo requests that it sends through a VXLAN device. The figures are the
//! processor time of this process and what the load came to with and without it.

use fathom::def::{Catalog, Sources};
use fathom::probe::{Context, KINDS};
use fathom::twin::wire::{Vxlan, Wire};
use fathom::vantage::{HostFiles, Net, NetNs, Transport, Vantage, VantageKind};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SENDER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const PORT: u16 = 8472;
const ROUNDS: usize = 3;
/// Length of the load. The probe waits three seconds for an answer that does not come, and a moment more.
const LOAD: Duration = Duration::from_millis(3500);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [_, kind, from, to] = arguments.as_slice() {
        return load(kind, Path::new(from), Path::new(to));
    }
    fathom::vantage::netns::enter_private().expect("network namespaces");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().expect("runtime");
    let link = runtime.block_on(Link::make());
    let (_, idle) = best((0..ROUNDS).map(|_| (0, runtime.block_on(observe(&link.sender)))));
    println!("no load              the probe takes {:>6.1} ms of processor time", ms(idle));
    for kind in ["tcp", "vxlan"] {
        let (alone, _) = best((0..ROUNDS).map(|_| (link.load(kind).total(), Duration::ZERO)));
        let (beside, cpu) = best((0..ROUNDS).map(|_| {
            let load = link.load(kind);
            let cpu = runtime.block_on(observe(&link.sender));
            (load.total(), cpu)
        }));
        let rate = |bytes: u64| bytes as f64 * 8.0 / LOAD.as_secs_f64() / 1e6;
        println!(
            "{kind:<6} load          {:>8.0} Mbit/s without the capture, {:>8.0} with it ({:+.1} %); the probe takes {:>6.1} ms, {:.2} % of a processor",
            rate(alone),
            rate(beside),
            (beside as f64 / alone as f64 - 1.0) * 100.0,
            ms(cpu),
            cpu.as_secs_f64() / LOAD.as_secs_f64() * 100.0
        );
    }
}

/// Two hosts with a link and a VXLAN device on the first, whose peer is silent.
struct Link {
    sender: NetNs,
    receiver: NetNs,
    _wires: [Wire; 2],
}

impl Link {
    async fn make() -> Self {
        let (sender, receiver) = (NetNs::create("sender").expect("namespace"), NetNs::create("receiver").expect("namespace"));
        let a = Wire::open("sender", Net::Ns(sender.clone())).await.expect("netlink");
        let b = Wire::open("receiver", Net::Ns(receiver.clone())).await.expect("netlink");
        a.veth("eth0", &b, "eth0", 1500).await.expect("veth");
        a.address("eth0", SENDER, 24).await.expect("address");
        b.address("eth0", RECEIVER, 24).await.expect("address");
        let vxlan = Vxlan {
            name: "flannel.1".to_owned(),
            parent: "eth0".to_owned(),
            vni: 1,
            port: PORT,
            local: SENDER,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1450,
        };
        a.vxlan(&vxlan).await.expect("vxlan");
        a.address("flannel.1", Ipv4Addr::new(10, 42, 0, 0), 32).await.expect("address");
        a.flannel_peer("flannel.1", "10.42.2.0/24".parse().expect("range"), [2, 0, 0, 0, 0, 2], RECEIVER).await.expect("peer");
        Self { sender, receiver, _wires: [a, b] }
    }

    fn load(&self, kind: &str) -> Load {
        let path = |ns: &NetNs| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), ns.raw_fd()));
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["load", kind]).arg(path(&self.sender)).arg(path(&self.receiver));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the load");
        // Its first line says that it is under way.
        let mut ready = [0; 6];
        child.stdout.as_mut().expect("output").read_exact(&mut ready).expect("the load begins");
        Load(child)
    }
}

struct Load(Child);

impl Load {
    /// Bytes that it sent, once it is done.
    fn total(mut self) -> u64 {
        let mut text = String::new();
        self.0.stdout.take().expect("output").read_to_string(&mut text).expect("output");
        assert!(self.0.wait().expect("the load").success(), "the load failed");
        text.trim().parse().expect("a number")
    }
}

/// The child: sends as fast as it can from one namespace to the other.
fn load(kind: &str, from: &Path, to: &Path) {
    let open = |path: &Path| Net::Ns(NetNs::open("load", path).expect("namespace"));
    let (from, to) = (open(from), open(to));
    let target = SocketAddrV4::new(RECEIVER, if kind == "tcp" { 5201 } else { PORT });
    println!("ready");
    std::io::stdout().flush().expect("output");
    let sent = match kind {
        "tcp" => {
            let listener = to.with(|| TcpListener::bind(target)).expect("namespace").expect("listener");
            let mut stream = from.with(|| TcpStream::connect(target)).expect("namespace").expect("connection");
            std::thread::spawn(move || {
                let (mut peer, _) = listener.accept().expect("connection");
                let mut buffer = vec![0; 128 << 10];
                while peer.read(&mut buffer).is_ok_and(|n| n > 0) {}
            });
            pour(128 << 10, |block| stream.write(block))
        }
        _ => {
            let receiver = to.with(|| UdpSocket::bind(target)).expect("namespace").expect("socket");
            let socket = from.with(|| UdpSocket::bind((SENDER, 0))).expect("namespace").expect("socket");
            socket.connect(target).expect("connection");
            let sent = pour(1400, |block| socket.send(block));
            drop(receiver);
            sent
        }
    };
    println!("{sent}");
}

fn pour(size: usize, mut send: impl FnMut(&[u8]) -> std::io::Result<usize>) -> u64 {
    let (block, began, mut sent) = (vec![0; size], Instant::now(), 0);
    while began.elapsed() < LOAD {
        sent += send(&block).expect("the link takes it") as u64;
    }
    sent
}

/// Lets the probe look once; the processor time that this process took for it.
async fn observe(sender: &NetNs) -> Duration {
    let catalog = Catalog::load(&Sources::default()).expect("built-in catalogue");
    let kind = KINDS.iter().find(|kind| kind.name == "vxlan-wire").expect("kind");
    let with = "device = 'flannel.1'\nparent = 'eth0'\nport = 8472\nvni = 1\nto = '10.42.2.0'";
    let probe = (kind.decode)(&toml::from_str(with).expect("arguments")).expect("probe");
    let vantage = Vantage {
        id: "sender".to_owned(),
        kind: VantageKind::Node,
        transport: Transport::Netns,
        why: "a benchmark".to_owned(),
        node: None,
        net: Net::Ns(sender.clone()),
        files: HostFiles::default(),
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
    let cx = Context { vantage: Arc::new(vantage), witness: None, inventory: catalog.inventory.clone(), deadline };
    let before = used();
    let seen = probe.observe(&cx).await;
    let spent = used() - before;
    // Under a load that passes the filter the socket's buffer may overflow: a figure of its own.
    let left = seen.facts.get("left").and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("the capture ran: {:?}", seen.facts));
    println!("       the capture saw {left} of its 3 echo requests");
    spent
}

/// Processor time of this process (getrusage(2)).
fn used() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the usage outlives the call, which fills it; for plain data zero is a valid value.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_usec).unwrap_or_default() * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The run with the highest throughput, and of those without any the cheapest: what disturbs a run makes it slower.
fn best(runs: impl Iterator<Item = (u64, Duration)>) -> (u64, Duration) {
    runs.max_by_key(|(bytes, cpu)| (*bytes, std::cmp::Reverse(*cpu))).expect("rounds")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
