//! A stand-in for tailscaled on one node: a `tailscale0` device, a datagram socket to the other nodes through the real
//! (twin's) internet, and WireGuard's rule that a packet is sent to, and accepted from, only the peer whose AllowedIPs
//! hold the address.
//!
//! Nodes greet each other all the time, straight and through a DERP-like relay ([`super::derp`]); a packet takes the
//! direct path while greetings are heard on it, else the relay, else it is lost. Each path can be impaired.
//!
//! The datagrams are not encrypted. Like those of tailscaled they carry the mark 0x80000, which keeps them out of
//! table 52, and they find their way through the home NAT because the node behind it speaks first.

mod relay;

use super::device::Device;
use super::wire::{Policy, Wire};
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use relay::{Relay, Sockets};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
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
/// A path on which nothing was heard for this long is not used.
const FRESH: Duration = Duration::from_secs(2);

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
    /// Of full-size VXLAN packets of one length that follow each other at once only the first arrives: what is left where
    /// segmentation offload merges them into one and the merged one is lost.
    pub loses_trains: bool,
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
        let (stop, stopped) = UnixStream::pair()?;
        let sockets = Sockets { direct: self.socket(PORT)?, by_derp: self.socket(0)?, stopped };
        self.heard.send_replace(false);
        self.state().forget();
        let relay = Relay::new(self.id, device, sockets, self.shared.clone(), self.heard.clone());
        let thread =
            std::thread::Builder::new().name(format!("ts-{}", self.wire.name)).spawn(move || relay.run()).context("relay thread")?;
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

impl Impairment {
    /// Loses trains of full-size VXLAN packets, or nothing.
    pub fn trains(loses_trains: bool) -> Self {
        Self { loses_trains, ..Self::default() }
    }

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
