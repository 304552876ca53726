//! A stand-in for tailscaled on one node: a `tailscale0` device, a datagram socket to the other nodes through the real
//! (twin's) internet, and WireGuard's rule that a packet is sent to, and accepted from, only the peer whose AllowedIPs
//! hold the address.
//!
//! The datagrams are not encrypted. Like those of tailscaled they carry the mark 0x80000, which keeps them out of
//! table 52, and they find their way through the home NAT because the node behind it speaks first.

use super::device::Device;
use super::wire::{Policy, Wire};
use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// tailscaled's own mark, and the mask that it owns.
const MARK: (u32, u32) = (0x80000, 0xff0000);
/// UDP port of tailscaled.
const PORT: u16 = 41641;
/// MTU of tailscale0.
pub const MTU: u32 = 1280;
/// Largest datagram between nodes.
const MOST: usize = 65_536;
const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const PACKET: u8 = 2;

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
    stop: UnixDatagram,
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
        let shared = Arc::new(Mutex::new(Shared { peers, endpoints }));
        Self { wire, id, address, device: device.to_owned(), shared, heard: watch::Sender::new(false), worker: Mutex::new(None) }
    }

    /// Makes the device, lays the rules and begins to relay.
    pub async fn start(&self) -> Result<()> {
        let device = Device::make(&self.wire, &self.device, MTU).await?;
        self.wire.address(&self.device, self.address, 32).await?;
        self.lay_rules().await?;
        let socket = self.socket()?;
        let (stop, stopped) = UnixDatagram::pair()?;
        let shared = self.shared.clone();
        let heard = self.heard.clone();
        let id = self.id;
        let thread = std::thread::Builder::new()
            .name(format!("ts-{}", self.wire.name))
            .spawn(move || Relay { device, socket, stopped, shared, heard, id, last_hello: None }.run())
            .context("relay thread")?;
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Worker { stop, thread });
        Ok(())
    }

    /// Ends as on SIGTERM: the device goes, with its children, and the rules and table 52 go.
    pub async fn stop(&self) -> Result<()> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            worker.stop.send(&[1]).context("stop the relay")?;
            let joined = tokio::task::spawn_blocking(move || worker.thread.join().is_ok()).await?;
            if !joined {
                bail!("{}: the relay thread panicked", self.wire.name);
            }
        }
        Device::remove(&self.wire, &self.device).await?;
        for priority in RULES.map(|r| r.priority) {
            self.wire.delete_rules(priority).await?;
        }
        self.wire.flush_table(TABLE).await
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
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn socket(&self) -> Result<UdpSocket> {
        let socket = self.wire.net.with(|| Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)))??;
        socket.set_mark(MARK.0).context("mark tailscaled's socket")?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).context("tailscaled's port")?;
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
    stopped: UnixDatagram,
    shared: Arc<Mutex<Shared>>,
    heard: watch::Sender<bool>,
    id: u8,
    last_hello: Option<Instant>,
}

impl Relay {
    fn run(mut self) {
        let mut buffer = vec![0_u8; MOST + 2];
        loop {
            self.greet();
            let patience = if *self.heard.borrow() { PollTimeout::from(1000_u16) } else { PollTimeout::from(50_u16) };
            let ready = {
                let mut fds = [
                    PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                ];
                let _ = poll(&mut fds, patience);
                fds.map(|fd| fd.any().unwrap_or(false))
            };
            if ready[0] {
                return;
            }
            // A bounded burst each, so that neither direction starves the other.
            (0..64).take_while(|_| ready[1] && self.send(&mut buffer)).count();
            (0..64).take_while(|_| ready[2] && self.receive(&mut buffer)).count();
        }
    }

    /// Speaks first to peers with a known endpoint, often until one answers, then to keep the NAT's mapping alive.
    fn greet(&mut self) {
        let pause = if *self.heard.borrow() { Duration::from_secs(5) } else { Duration::from_millis(40) };
        if self.last_hello.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last_hello = Some(Instant::now());
        for endpoint in self.shared.lock().unwrap_or_else(PoisonError::into_inner).endpoints.values() {
            let _ = self.socket.send_to(&[HELLO, self.id], endpoint);
        }
    }

    /// One packet from the device to the peer whose AllowedIPs hold its destination.
    fn send(&self, buffer: &mut [u8]) -> bool {
        let Ok(n) = self.device.read(&mut buffer[2..]) else { return false };
        let Some(destination) = address_at(&buffer[2..2 + n], 16) else { return true };
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(endpoint) = shared.owner(destination).and_then(|id| shared.endpoints.get(&id)) else { return true };
        buffer[0] = PACKET;
        buffer[1] = self.id;
        let _ = self.socket.send_to(&buffer[..n + 2], endpoint);
        true
    }

    /// One datagram from a peer; its packet is accepted only from the owner of its source address.
    fn receive(&self, buffer: &mut [u8]) -> bool {
        let Ok((n, from)) = self.socket.recv_from(buffer) else { return false };
        let [kind, sender, packet @ ..] = &buffer[..n] else { return true };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.peers.iter().any(|p| p.id == *sender) {
            return true;
        }
        shared.endpoints.insert(*sender, from);
        match *kind {
            HELLO => {
                let _ = self.socket.send_to(&[WELCOME, self.id], from);
                self.heard.send_replace(true);
            }
            WELCOME => {
                self.heard.send_replace(true);
            }
            PACKET if address_at(packet, 12).and_then(|source| shared.owner(source)) == Some(*sender) => self.device.write(packet),
            _ => {}
        }
        true
    }
}

impl Shared {
    /// The peer with the longest prefix that holds an address.
    fn owner(&self, address: Ipv4Addr) -> Option<u8> {
        let holds = self.peers.iter().flat_map(|p| p.allowed.iter().map(|net| (net, p.id))).filter(|(net, _)| net.contains(&address));
        holds.max_by_key(|(net, _)| net.prefix_len()).map(|(_, id)| id)
    }
}

/// The IPv4 address at an offset of an IPv4 packet.
fn address_at(packet: &[u8], offset: usize) -> Option<Ipv4Addr> {
    let is_ipv4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    is_ipv4.then(|| Ipv4Addr::new(packet[offset], packet[offset + 1], packet[offset + 2], packet[offset + 3]))
}
