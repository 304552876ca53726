//! A stand-in for tailscaled on one node: a `tailscale0` device, a datagram socket to the other nodes through the real
//! (twin's) internet, and WireGuard's rule that a packet is sent to, and accepted from, only the peer whose AllowedIPs
//! hold the address.
//!
//! Nodes greet each other all the time, straight and through a DERP-like relay ([`super::derp`]); a packet takes the
//! direct path while greetings are heard on it, else the relay, else it is lost. Each path can be impaired.
//!
//! The datagrams are not encrypted. Like those of tailscaled they carry the mark 0x80000, which keeps them out of
//! table 52, and they find their way through the home NAT because the node behind it speaks first.

use super::derp;
use super::device::Device;
use super::wire::{Policy, Wire};
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// tailscaled's own mark, and the mask that it owns.
const MARK: (u32, u32) = (0x80000, 0xff0000);
/// UDP port of tailscaled.
pub const PORT: u16 = 41641;
/// MTU of tailscale0.
pub const MTU: u32 = 1280;
/// Largest datagram between nodes.
const MOST: usize = 65_536;
/// Kind, sender, receiver.
const HEADER: usize = 3;
const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const PACKET: u8 = 2;
/// Between two greetings.
const GREETING: Duration = Duration::from_millis(250);
/// A path on which nothing was heard for this long is not used.
const FRESH: Duration = Duration::from_secs(2);
/// What the relay adds to every packet.
const RELAY_DELAY: Duration = Duration::from_millis(30);
/// Packets that may wait for their time.
const MOST_WAITING: usize = 4096;

/// What a node knows of the others.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Number in the datagrams' header.
    pub id: u8,
    /// Where it can be spoken to; `None` for a node behind NAT, which speaks first.
    pub endpoint: Option<SocketAddrV4>,
    /// Addresses that belong to it.
    pub allowed: Vec<Ipv4Net>,
}

/// State that the worker thread and the twin share.
#[derive(Debug, Default)]
struct Shared {
    peers: Vec<Peer>,
    endpoints: HashMap<u8, SocketAddr>,
    /// When a peer last answered on the direct path, and through the relay.
    heard: HashMap<u8, Instant>,
    relayed: HashMap<u8, Instant>,
    impairments: HashMap<u8, Impairment>,
    /// Stopped, logged out or hung: nothing is sent and nothing is taken in.
    quiet: bool,
}

/// What happens to packets for a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// Added before sending.
    pub delay: Duration,
    /// Share that is lost, in percent; every n-th packet, so that it is the same each time.
    pub loss_percent: u8,
    /// Nothing passes.
    pub down: bool,
    lost: u32,
}

/// How a peer is reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Straight, at this endpoint.
    Direct(SocketAddr),
    /// Through the relay.
    Relayed,
    /// Not at all.
    Lost,
}

/// One node's tailscaled.
#[derive(Debug)]
pub struct Tailscaled {
    wire: Wire,
    id: u8,
    address: Ipv4Addr,
    device: String,
    shared: Arc<Mutex<Shared>>,
    heard: watch::Sender<bool>,
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    _stop: UnixStream,
    thread: JoinHandle<()>,
}

/// What decides the routes of table 52.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Addresses of the other nodes.
    pub peers: Vec<Ipv4Addr>,
    /// An exit node is in use.
    pub exit_node: bool,
    /// ExitNodeAllowLANAccess.
    pub lan_access: bool,
    /// Locally attached prefixes.
    pub attached: Vec<Ipv4Net>,
}

impl Tailscaled {
    /// A tailscaled that is not running yet.
    pub fn new(wire: Wire, id: u8, address: Ipv4Addr, device: &str, peers: Vec<Peer>) -> Self {
        let endpoints = peers.iter().filter_map(|p| Some((p.id, SocketAddr::V4(p.endpoint?)))).collect();
        let shared = Arc::new(Mutex::new(Shared { peers, endpoints, ..Shared::default() }));
        Self { wire, id, address, device: device.to_owned(), shared, heard: watch::Sender::new(false), worker: Mutex::new(None) }
    }

    /// Makes the device, lays the rules and begins to relay.
    pub async fn start(&self) -> Result<()> {
        let device = Device::make(&self.wire, &self.device, MTU).await?;
        self.wire.address(&self.device, self.address, 32).await?;
        self.lay_rules().await?;
        let (socket, relay) = (self.socket(PORT)?, self.socket(0)?);
        let (stop, stopped) = UnixStream::pair()?;
        self.heard.send_replace(false);
        self.state().forget();
        let shared = self.shared.clone();
        let heard = self.heard.clone();
        let id = self.id;
        let thread = std::thread::Builder::new()
            .name(format!("ts-{}", self.wire.name))
            .spawn(move || Relay { device, socket, relay, stopped, shared, heard, id, last_hello: None, waiting: VecDeque::new() }.run())
            .context("relay thread")?;
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Worker { _stop: stop, thread });
        Ok(())
    }

    /// Ends as on SIGTERM: the device goes, with its children, and the rules and table 52 go.
    pub async fn stop(&self) -> Result<()> {
        self.end().await?;
        for priority in RULES.map(|r| r.priority) {
            self.wire.delete_rules(priority).await?;
        }
        self.wire.flush_table(TABLE).await
    }

    /// Ends as on SIGKILL: the device goes, the rules and the throws of table 52 are left behind.
    pub async fn kill(&self) -> Result<()> {
        self.end().await
    }

    async fn end(&self) -> Result<()> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Worker { _stop, thread }) = worker {
            // The worker ends when its end of the pair is closed, so also when this twin is dropped.
            drop(_stop);
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await?;
            if !joined {
                bail!("{}: the relay thread panicked", self.wire.name);
            }
        }
        Device::remove(&self.wire, &self.device).await
    }

    /// `tailscale down`, an expired key: the device stays without its address, the rules stay, table 52 is empty.
    pub async fn withdraw(&self) -> Result<()> {
        self.state().quiet = true;
        self.wire.flush_addresses(&self.device).await?;
        self.wire.flush_table(TABLE).await
    }

    /// Back from [`Self::withdraw`]; the routes must be laid by the caller.
    pub async fn resume(&self) -> Result<()> {
        self.wire.address(&self.device, self.address, 32).await?;
        self.hang(false);
        Ok(())
    }

    /// Lets the process hang, as on SIGSTOP, or go on.
    pub fn hang(&self, hangs: bool) {
        let mut state = self.state();
        state.quiet = hangs;
        state.forget();
    }

    /// Impairs what is sent to a peer.
    pub fn impair(&self, peer: u8, impairment: Impairment) {
        self.state().impairments.insert(peer, impairment);
    }

    /// How the peer of an address is reached now.
    pub fn path_to(&self, address: Ipv4Addr) -> Path {
        self.state().path_to(address)
    }

    /// A view of the paths, and of what is added to each packet on them, that outlives a borrow of this.
    pub fn paths(&self) -> impl Fn(Ipv4Addr) -> (Path, Duration) + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |address| {
            let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            (shared.path_to(address), shared.delay_to(address))
        }
    }

    /// Waits until the path to an address is as wanted.
    pub async fn until(&self, address: Ipv4Addr, wanted: impl Fn(Path) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while !wanted(self.path_to(address)) {
            if Instant::now() > end {
                bail!("{}: the path to {address} stays {:?}", self.wire.name, self.path_to(address));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a peer has answered.
    pub async fn ready(&self) -> Result<()> {
        let mut heard = self.heard.subscribe();
        tokio::time::timeout(Duration::from_secs(5), heard.wait_for(|h| *h))
            .await
            .with_context(|| format!("{}: no peer answered within 5 s", self.wire.name))??;
        Ok(())
    }

    /// Changes what addresses belong to a peer.
    pub fn allow(&self, peer: u8, allowed: Vec<Ipv4Net>) {
        let mut shared = self.state();
        if let Some(peer) = shared.peers.iter_mut().find(|p| p.id == peer) {
            peer.allowed = allowed;
        }
    }

    /// Lays table 52 anew, as tailscaled does for these preferences.
    pub async fn lay_routes(&self, routing: &Routing) -> Result<()> {
        let wire = &self.wire;
        wire.flush_table(TABLE).await?;
        let magic_dns = Ipv4Addr::new(100, 100, 100, 100);
        for peer in routing.peers.iter().chain([&magic_dns]) {
            wire.route(Ipv4Net::from(*peer), None, &self.device, TABLE).await?;
        }
        if routing.exit_node {
            wire.route(Ipv4Net::default(), None, &self.device, TABLE).await?;
            wire.throw(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), TABLE).await?;
            for prefix in &routing.attached {
                if routing.lan_access {
                    wire.throw(*prefix, TABLE).await?;
                } else {
                    wire.route(*prefix, None, &self.device, TABLE).await?;
                }
            }
        }
        Ok(())
    }

    async fn lay_rules(&self) -> Result<()> {
        for rule in RULES {
            self.wire.delete_rules(rule.priority).await?;
            self.wire.rule(rule).await?;
        }
        Ok(())
    }

    fn socket(&self, port: u16) -> Result<UdpSocket> {
        let socket = self.wire.net.with(|| Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)))??;
        socket.set_mark(MARK.0).context("mark tailscaled's socket")?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).context("tailscaled's port")?;
        Ok(socket.into())
    }
}

/// The routing table that tailscaled fills.
pub const TABLE: u32 = 52;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
/// Its rules (FORMATS section 1).
const RULES: [Policy; 4] = [
    Policy { priority: 5210, to: None, mark: Some(MARK), table: Some(MAIN) },
    Policy { priority: 5230, to: None, mark: Some(MARK), table: Some(DEFAULT) },
    Policy { priority: 5250, to: None, mark: Some(MARK), table: None },
    Policy { priority: 5270, to: None, mark: None, table: Some(TABLE) },
];

/// The worker thread.
struct Relay {
    device: Device,
    socket: UdpSocket,
    relay: UdpSocket,
    stopped: UnixStream,
    shared: Arc<Mutex<Shared>>,
    heard: watch::Sender<bool>,
    id: u8,
    last_hello: Option<Instant>,
    waiting: VecDeque<(Instant, u8, Vec<u8>)>,
}

impl Relay {
    fn run(mut self) {
        let mut buffer = vec![0_u8; MOST + HEADER];
        loop {
            self.greet();
            self.release();
            let ready = {
                let mut fds = [
                    PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.relay.as_fd(), PollFlags::POLLIN),
                ];
                let _ = poll(&mut fds, self.patience());
                fds.map(|fd| fd.any().unwrap_or(false))
            };
            if ready[0] {
                return;
            }
            // A bounded burst each, so that no direction starves another.
            (0..64).take_while(|_| ready[1] && self.send(&mut buffer)).count();
            (0..64).take_while(|_| ready[2] && self.receive(&mut buffer, false)).count();
            (0..64).take_while(|_| ready[3] && self.receive(&mut buffer, true)).count();
        }
    }

    fn patience(&self) -> PollTimeout {
        let pause = if *self.heard.borrow() { GREETING } else { Duration::from_millis(40) };
        let next = self.waiting.front().map(|(due, ..)| due.saturating_duration_since(Instant::now())).unwrap_or(pause).min(pause);
        PollTimeout::from(u16::try_from(next.as_millis()).unwrap_or(1).max(1))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Greets every peer on both paths, often until one answers, then to keep the NAT's mapping alive.
    fn greet(&mut self) {
        let pause = if *self.heard.borrow() { GREETING } else { Duration::from_millis(40) };
        if self.last_hello.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last_hello = Some(Instant::now());
        let shared = self.shared();
        if shared.quiet {
            return;
        }
        for peer in shared.peers.iter().filter(|p| !shared.is_down(p.id)) {
            if let Some(endpoint) = shared.endpoints.get(&peer.id) {
                let _ = self.socket.send_to(&[HELLO, self.id, peer.id], endpoint);
            }
            let _ = self.relay.send_to(&[HELLO, self.id, peer.id], derp::ADDRESS);
        }
    }

    /// One packet from the device to the peer whose AllowedIPs hold its destination.
    fn send(&mut self, buffer: &mut [u8]) -> bool {
        let Ok(n) = self.device.read(&mut buffer[HEADER..]) else { return false };
        let Some(destination) = address_at(&buffer[HEADER..HEADER + n], 16) else { return true };
        let mut shared = self.shared();
        let Some(peer) = shared.owner(destination).filter(|_| !shared.quiet) else { return true };
        let impairment = shared.impairments.entry(peer).or_default();
        if impairment.loses() {
            return true;
        }
        let relay_delay = if shared.path(peer) == Path::Relayed { RELAY_DELAY } else { Duration::ZERO };
        let delay = shared.impairments.get(&peer).map_or(Duration::ZERO, |i| i.delay) + relay_delay;
        buffer[..HEADER].copy_from_slice(&[PACKET, self.id, peer]);
        if delay.is_zero() {
            self.transmit(shared.path(peer), &buffer[..HEADER + n]);
        } else if self.waiting.len() < MOST_WAITING {
            drop(shared);
            let due = Instant::now() + delay;
            let at = self.waiting.partition_point(|(other, ..)| *other <= due);
            self.waiting.insert(at, (due, peer, buffer[..HEADER + n].to_vec()));
        }
        true
    }

    /// Sends what has waited long enough.
    fn release(&mut self) {
        while self.waiting.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
            if let Some((_, peer, datagram)) = self.waiting.pop_front() {
                let path = self.shared().path(peer);
                self.transmit(path, &datagram);
            }
        }
    }

    fn transmit(&self, path: Path, datagram: &[u8]) {
        let _ = match path {
            Path::Direct(endpoint) => self.socket.send_to(datagram, endpoint),
            Path::Relayed => self.relay.send_to(datagram, derp::ADDRESS),
            Path::Lost => return,
        };
    }

    /// One datagram from a peer; its packet is accepted only from the owner of its source address.
    fn receive(&self, buffer: &mut [u8], relayed: bool) -> bool {
        let socket = if relayed { &self.relay } else { &self.socket };
        let Ok((n, from)) = socket.recv_from(buffer) else { return false };
        let [kind, sender, _, packet @ ..] = &buffer[..n] else { return true };
        let mut shared = self.shared();
        if shared.quiet || shared.is_down(*sender) || !shared.peers.iter().any(|p| p.id == *sender) {
            return true;
        }
        if !relayed {
            shared.endpoints.insert(*sender, from);
        }
        match *kind {
            HELLO => {
                let _ = socket.send_to(&[WELCOME, self.id, *sender], from);
            }
            // Only an answer proves that both directions pass.
            WELCOME if relayed => {
                shared.relayed.insert(*sender, Instant::now());
            }
            WELCOME => {
                shared.heard.insert(*sender, Instant::now());
                self.heard.send_replace(true);
            }
            PACKET if address_at(packet, 12).and_then(|source| shared.owner(source)) == Some(*sender) => self.device.write(packet),
            _ => {}
        }
        true
    }
}

impl Impairment {
    /// Whether the next packet is lost.
    fn loses(&mut self) -> bool {
        self.lost += u32::from(self.loss_percent);
        let lost = self.lost >= 100;
        self.lost %= 100;
        lost || self.down
    }
}

impl Shared {
    /// The peer with the longest prefix that holds an address.
    fn owner(&self, address: Ipv4Addr) -> Option<u8> {
        let holds = self.peers.iter().flat_map(|p| p.allowed.iter().map(|net| (net, p.id))).filter(|(net, _)| net.contains(&address));
        holds.max_by_key(|(net, _)| net.prefix_len()).map(|(_, id)| id)
    }

    fn delay_to(&self, address: Ipv4Addr) -> Duration {
        self.owner(address).and_then(|peer| self.impairments.get(&peer)).map_or(Duration::ZERO, |i| i.delay)
    }

    fn path_to(&self, address: Ipv4Addr) -> Path {
        let peer = self.peers.iter().find(|p| p.allowed.contains(&Ipv4Net::from(address)));
        peer.filter(|_| !self.quiet).map_or(Path::Lost, |p| self.path(p.id))
    }

    fn path(&self, peer: u8) -> Path {
        let fresh = |at: &HashMap<u8, Instant>| at.get(&peer).is_some_and(|t| t.elapsed() < FRESH);
        match self.endpoints.get(&peer) {
            _ if self.is_down(peer) => Path::Lost,
            Some(endpoint) if fresh(&self.heard) => Path::Direct(*endpoint),
            _ if fresh(&self.relayed) => Path::Relayed,
            _ => Path::Lost,
        }
    }

    fn is_down(&self, peer: u8) -> bool {
        self.impairments.get(&peer).is_some_and(|i| i.down)
    }

    fn forget(&mut self) {
        self.heard.clear();
        self.relayed.clear();
    }
}

/// The IPv4 address at an offset of an IPv4 packet.
fn address_at(packet: &[u8], offset: usize) -> Option<Ipv4Addr> {
    let is_ipv4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    is_ipv4.then(|| Ipv4Addr::new(packet[offset], packet[offset + 1], packet[offset + 2], packet[offset + 3]))
}

#[cfg(test)]
mod tests;
