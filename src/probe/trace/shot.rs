//! One packet with a small TTL on a socket of its own, and what came of it.

use crate::probe::errqueue::{self, Refusal};
use crate::probe::net::errno_word;
use crate::vantage::Net;
use futures::stream::{FuturesUnordered, StreamExt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest wait for an answer: less than the second after which the kernel would send a connection attempt again.
const PATIENCE: Duration = Duration::from_millis(900);
/// Between the packets for one distance.
const SPACING: Duration = Duration::from_millis(30);
/// Where datagrams go: traceroute's first port, on which nothing listens.
const UNUSED_PORT: u16 = 33_434;
/// Packets that are looked at for each time that a socket is ready.
const MOST_PACKETS: usize = 64;
/// Echo request and echo reply (RFC 792).
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Time exceeded and destination unreachable (RFC 792).
const TIME_EXCEEDED: u8 = 11;
const UNREACHABLE: u8 = 3;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Echo requests through a datagram ICMP socket (icmp(7)).
    Dgram,
    /// Echo requests through a raw socket.
    Raw,
    /// Datagrams to a port on which nothing listens.
    Udp,
    /// Connection attempts to a port.
    Tcp(u16),
}

impl Method {
    /// Connections if there is a port to connect to; else echo requests, if this user may send any.
    pub(super) fn choose(net: &Net, port: u16) -> Self {
        if port != 0 {
            return Self::Tcp(port);
        }
        let can = |kind| net.with(|| Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4))).and_then(|socket| socket).is_ok();
        if can(Type::DGRAM) {
            Self::Dgram
        } else if can(Type::RAW) {
            Self::Raw
        } else {
            Self::Udp
        }
    }

    /// Its name in facts.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Dgram => "dgram",
            Self::Raw => "raw",
            Self::Udp => "udp",
            Self::Tcp(_) => "tcp",
        }
    }

    fn socket(self) -> io::Result<Socket> {
        match self {
            Self::Dgram => Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)),
            Self::Raw => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
            Self::Udp => Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)),
            Self::Tcp(_) => Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)),
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Dgram | Self::Raw => 0,
            Self::Udp => UNUSED_PORT,
            Self::Tcp(port) => port,
        }
    }
}

/// What all packets of a trace have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) to: Ipv4Addr,
    pub(super) method: Method,
    /// Firewall mark; 0 for none.
    pub(super) mark: u32,
}

/// What came of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The target itself answered.
    Target,
    /// The TTL ran out at this hop.
    Expired(Ipv4Addr),
    /// Somebody does not pass it on, or does not take it.
    Refused(Refusal),
    /// Nobody said anything.
    Silence,
    /// The own kernel did not take it: the errno word.
    NotSent(String),
}

/// A packet and its answer.
#[derive(Clone, Debug)]
pub(super) struct Shot {
    pub(super) ttl: u8,
    pub(super) answer: Answer,
    pub(super) after: Duration,
}

impl Shot {
    /// Whether there is nothing to look for at greater distances.
    pub(super) fn ends_the_path(&self) -> bool {
        matches!(self.answer, Answer::Target | Answer::Refused(_) | Answer::NotSent(_))
    }
}

/// Sends `count` packets for each distance and waits for what comes. The error says which socket could not be opened.
pub(super) async fn volley(aim: &Aim, net: &Net, ttls: RangeInclusive<u8>, count: u16, deadline: Instant) -> Result<Vec<Shot>, String> {
    let began = Instant::now();
    let mut flying = FuturesUnordered::new();
    for ttl in ttls {
        for n in 0..count {
            let packet = Packet::open(aim, net, ttl)?;
            let at = (began + SPACING * u32::from(n)).min(deadline);
            flying.push(async move {
                sleep_until(at).await;
                packet.fire(deadline).await
            });
        }
    }
    let mut shots = Vec::new();
    while let Some(shot) = flying.next().await {
        shots.push(shot);
    }
    Ok(shots)
}

/// A packet that is ready to go.
struct Packet {
    socket: Socket,
    aim: Aim,
    ttl: u8,
    /// Identifier and sequence number of an echo request.
    mark: [u8; 4],
}

impl Packet {
    fn open(aim: &Aim, net: &Net, ttl: u8) -> Result<Self, String> {
        let failed = |what: &str, e: &io::Error| format!("{what}: {}", errno_word(e));
        let socket = net.with(|| aim.method.socket()).and_then(|s| s).map_err(|e| failed("cannot open a socket", &e))?;
        if aim.mark != 0 {
            socket.set_mark(aim.mark).map_err(|e| failed("a firewall mark needs CAP_NET_ADMIN", &e))?;
        }
        let prepared = socket.set_nonblocking(true).and_then(|()| socket.set_ttl_v4(u32::from(ttl)));
        prepared.and_then(|()| errqueue::enable(socket.as_fd())).map_err(|e| failed("cannot prepare a socket", &e))?;
        if aim.method == Method::Raw {
            // ICMP_FILTER (raw(7)): only echo replies; errors come by the queue. Other packets would take their place.
            only_echo_replies(&socket).map_err(|e| failed("cannot prepare a socket", &e))?;
        }
        Ok(Self { socket, aim: *aim, ttl, mark: echo_mark() })
    }

    /// Sends it and waits. The clock starts before the send.
    async fn fire(self, deadline: Instant) -> Shot {
        let began = Instant::now();
        let answer = match self.send() {
            Ok(()) => timeout_at(deadline.min(began + PATIENCE), self.answer()).await.unwrap_or(Answer::Silence),
            Err(error) => Answer::NotSent(errno_word(&error)),
        };
        Shot { ttl: self.ttl, answer, after: began.elapsed() }
    }

    fn send(&self) -> io::Result<()> {
        let socket = &self.socket;
        let to = SockAddr::from(SocketAddrV4::new(self.aim.to, self.aim.method.port()));
        match socket.connect(&to) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        match self.aim.method {
            Method::Tcp(_) => Ok(()),
            Method::Udp => socket.send(&[0; 32]).map(|_| ()),
            Method::Dgram | Method::Raw => socket.send(&echo(self.mark)).map(|_| ()),
        }
    }

    /// The socket is watched only now: one that never was connected counts as hung up, and tokio keeps that for good.
    #[expect(deprecated, reason = "AsyncFd's replacement is unsafe; the descriptor outlives the watching of it")]
    async fn answer(&self) -> Answer {
        let wanted = if matches!(self.aim.method, Method::Tcp(_)) { Interest::WRITABLE } else { Interest::READABLE } | Interest::ERROR;
        let Ok(watched) = AsyncFd::with_interest(self.socket.as_fd(), wanted) else { return Answer::Silence };
        loop {
            let Ok(mut ready) = watched.ready(wanted).await else { return Answer::Silence };
            if let Some(answer) = self.queued().or_else(|| self.received()) {
                return answer;
            }
            if ready.ready().is_write_closed() {
                return Answer::Silence;
            }
            ready.clear_ready();
        }
    }

    /// An error from the queue, if it is about this packet: a raw socket gets those of all that go to the target.
    fn queued(&self) -> Option<Answer> {
        for _ in 0..MOST_PACKETS {
            let (refusal, packet) = errqueue::take(self.socket.as_fd())?;
            if self.aim.method != Method::Raw || packet.get(4..8) == Some(&self.mark[..]) {
                return Some(self.read(refusal));
            }
        }
        None
    }

    fn read(&self, refusal: Refusal) -> Answer {
        match (refusal.kind, refusal.from) {
            (TIME_EXCEEDED, Some(hop)) => Answer::Expired(hop),
            // The port is closed: the datagram got there.
            (UNREACHABLE, Some(from)) if refusal.code == 3 && from == self.aim.to => Answer::Target,
            (_, Some(_)) => Answer::Refused(refusal),
            // The own kernel's: a neighbour that does not answer.
            (_, None) => Answer::NotSent(errno_word(&io::Error::from_raw_os_error(refusal.errno.cast_signed()))),
        }
    }

    /// The target's own answer.
    fn received(&self) -> Option<Answer> {
        if matches!(self.aim.method, Method::Tcp(_)) {
            return self.handshake();
        }
        // An error that waits is told by the receive that it keeps from receiving: the next one gets the packet.
        for _ in 0..MOST_PACKETS {
            match self.receive() {
                Ok(packet) if self.is_reply(&packet) => return Some(Answer::Target),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 128];
        let n = self.socket.recv(&mut buffer)?;
        // SAFETY: recv has initialised the first `n` bytes of the buffer, and `n` is at most its length.
        Ok(buffer[..n.min(128)].iter().map(|b| unsafe { b.assume_init() }).collect())
    }

    fn is_reply(&self, packet: &[u8]) -> bool {
        match self.aim.method {
            Method::Udp => true,
            // The kernel chose the identifier and looked at it.
            Method::Dgram => packet.first() == Some(&ECHO_REPLY),
            _ => is_echo_reply(packet, self.mark),
        }
    }

    /// A connection made, or refused by a reset, is an answer of the target.
    fn handshake(&self) -> Option<Answer> {
        let socket = &self.socket;
        match socket.take_error() {
            Ok(None) => socket.peer_addr().is_ok().then_some(Answer::Target),
            Ok(Some(error)) | Err(error) => Some(match error.raw_os_error() {
                Some(libc::ECONNREFUSED | libc::ECONNRESET) => Answer::Target,
                Some(libc::ETIMEDOUT) => Answer::Silence,
                _ => Answer::NotSent(errno_word(&error)),
            }),
        }
    }
}

fn only_echo_replies(socket: &Socket) -> io::Result<()> {
    const SOL_RAW: libc::c_int = 255;
    const ICMP_FILTER: libc::c_int = 1;
    let refused: u32 = !(1 << ECHO_REPLY);
    let size = libc::socklen_t::try_from(size_of_val(&refused)).unwrap_or_default();
    // SAFETY: the value outlives the call and has the size given.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), SOL_RAW, ICMP_FILTER, (&raw const refused).cast(), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a whole packet, as a raw socket hands it over, is the reply to the echo request with this mark.
pub(in crate::probe) fn is_echo_reply(packet: &[u8], mark: [u8; 4]) -> bool {
    icmp_of(packet).is_some_and(|icmp| icmp.first() == Some(&ECHO_REPLY) && icmp.get(4..8) == Some(&mark[..]))
}

/// What follows the IPv4 header.
fn icmp_of(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    (first >> 4 == 4).then(|| packet.get(usize::from(first & 0xf) * 4..))?
}

/// Identifier and sequence number that no other packet of this process has.
fn echo_mark() -> [u8; 4] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let [c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [a, b, c, d]
}

/// An echo request with its checksum (RFC 792, RFC 1071).
fn echo(mark: [u8; 4]) -> [u8; 64] {
    let mut packet = [0_u8; 64];
    packet[0] = ECHO;
    packet[4..8].copy_from_slice(&mark);
    let sum: u32 = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_up_to_all_ones() {
        let packet = echo([0xab, 0xcd, 0xff, 0xfe]);
        let sum: u32 = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn what_is_no_ipv4_packet_holds_no_icmp() {
        assert_eq!(icmp_of(&[]), None);
        assert_eq!(icmp_of(&[0x60; 64]), None);
        // The header claims to be longer than the packet.
        assert_eq!(icmp_of(&[0x4f; 20]), None);
        let mut packet = [0_u8; 28];
        packet[0] = 0x45;
        packet[20] = 11;
        assert_eq!(icmp_of(&packet), Some(&[11, 0, 0, 0, 0, 0, 0, 0][..]));
    }
}
