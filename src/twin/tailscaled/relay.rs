//! The worker of a [`super::Tailscaled`]: reads its device and its sockets, and greets the other nodes.

use super::{Path, Shared, address_at};
use crate::twin::derp;
use crate::twin::device::Device;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, VecDeque};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Largest datagram between nodes.
const MOST: usize = 65_536;
/// Kind, sender, receiver.
const HEADER: usize = 3;
const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const PACKET: u8 = 2;
/// Between two greetings.
const GREETING: Duration = Duration::from_millis(250);
/// What the relay adds to every packet.
const RELAY_DELAY: Duration = Duration::from_millis(30);
/// Packets that may wait for their time.
const MOST_WAITING: usize = 4096;

/// flannel's port, whose packets trains are made of.
const VXLAN: u16 = 8472;
/// Packets that follow each other within this time belong to one train.
const TRAIN: Duration = Duration::from_millis(1);
/// Flows that are remembered.
const MOST_FLOWS: usize = 256;
/// What offload merges is longer than this.
const FULL_SIZE: usize = 1000;

/// What it reads.
pub(super) struct Sockets {
    /// To the others' endpoints.
    pub(super) direct: UdpSocket,
    /// To the DERP relay.
    pub(super) by_derp: UdpSocket,
    /// Readable once the other end is closed: time to end.
    pub(super) stopped: UnixStream,
}

/// The worker thread.
pub(super) struct Relay {
    device: Device,
    sockets: Sockets,
    shared: Arc<Mutex<Shared>>,
    heard: watch::Sender<bool>,
    id: u8,
    last_hello: Option<Instant>,
    waiting: VecDeque<(Instant, u8, Vec<u8>)>,
    /// When the last full-size VXLAN packet of a flow (by outer source port) came, and its length.
    trains: HashMap<u16, (Instant, usize)>,
}

impl Relay {
    pub(super) fn new(id: u8, device: Device, sockets: Sockets, shared: Arc<Mutex<Shared>>, heard: watch::Sender<bool>) -> Self {
        Self { device, sockets, shared, heard, id, last_hello: None, waiting: VecDeque::new(), trains: HashMap::new() }
    }

    pub(super) fn run(mut self) {
        let mut buffer = vec![0_u8; MOST + HEADER];
        loop {
            self.greet();
            self.release();
            let ready = {
                let mut fds = [
                    PollFd::new(self.sockets.stopped.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.sockets.direct.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.sockets.by_derp.as_fd(), PollFlags::POLLIN),
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
                let _ = self.sockets.direct.send_to(&[HELLO, self.id, peer.id], endpoint);
            }
            let _ = self.sockets.by_derp.send_to(&[HELLO, self.id, peer.id], derp::ADDRESS);
        }
    }

    /// One packet from the device to the peer whose AllowedIPs hold its destination.
    fn send(&mut self, buffer: &mut [u8]) -> bool {
        let Ok(n) = self.device.read(&mut buffer[HEADER..]) else { return false };
        let Some(destination) = address_at(&buffer[HEADER..HEADER + n], 16) else { return true };
        let follows = self.follows(&buffer[HEADER..HEADER + n]);
        let mut shared = self.shared();
        let Some(peer) = shared.owner(destination).filter(|_| !shared.quiet) else { return true };
        let impairment = shared.impairments.entry(peer).or_default();
        if impairment.loses() || impairment.loses_trains && follows {
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

    /// Whether a packet is a full-size VXLAN packet that follows another of its length at once.
    fn follows(&mut self, packet: &[u8]) -> bool {
        const UDP: u8 = 17;
        let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let port = |at: usize| packet.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
        let (Some(flow), Some(VXLAN)) = (port(header), port(header + 2)) else { return false };
        if packet.len() < FULL_SIZE || packet.get(9) != Some(&UDP) {
            return false;
        }
        if self.trains.len() > MOST_FLOWS {
            self.trains.clear();
        }
        let now = Instant::now();
        let before = self.trains.insert(flow, (now, packet.len()));
        before.is_some_and(|(at, length)| length == packet.len() && now.duration_since(at) < TRAIN)
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
            Path::Direct(endpoint) => self.sockets.direct.send_to(datagram, endpoint),
            Path::Relayed => self.sockets.by_derp.send_to(datagram, derp::ADDRESS),
            Path::Lost => return,
        };
    }

    /// One datagram from a peer; its packet is accepted only from the owner of its source address.
    fn receive(&self, buffer: &mut [u8], relayed: bool) -> bool {
        let socket = if relayed { &self.sockets.by_derp } else { &self.sockets.direct };
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
