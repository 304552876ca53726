//! Echo requests of a chosen size that may not be fragmented, on an ICMP datagram socket (icmp(7)) with its error queue, or
//! on a raw one where `net.ipv4.ping_group_range` forbids that (it does by default) and CAP_NET_RAW is there.

use crate::probe::errqueue::{self, Refusal};
use crate::probe::net::errno_word;
use crate::vantage::Net;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// IPv4 and ICMP headers.
pub(crate) const HEADERS: usize = 28;

/// What came of one echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The destination answered, after this time.
    Reply(Duration),
    /// A router (or the own kernel, without an address) sent it back.
    Refused(Refusal, Duration),
    /// The kernel did not take it: errno word.
    NotSent(String),
    Silence,
}

/// An ICMP socket for one destination at a time.
pub(crate) struct Prober {
    socket: AsyncFd<Socket>,
    /// Identifier of our requests on a raw socket, which sees everybody's; a datagram socket's is the kernel's business.
    raw: Option<u16>,
    next: u16,
}

impl Prober {
    /// Opens the socket; the error names the privilege that is missing.
    #[expect(deprecated, reason = "its replacement is unsafe; this type owns its descriptor for as long as it lives")]
    pub(crate) fn open(net: &Net) -> Result<Self, String> {
        /// Identifiers of this process: probes run side by side.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let create =
            |kind: Type| net.with(|| Socket::new(Domain::IPV4, kind.nonblocking(), Some(Protocol::ICMPV4))).and_then(|socket| socket);
        let (created, is_raw) = match create(Type::DGRAM) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (create(Type::RAW), true),
            other => (other, false),
        };
        let opened = created.and_then(|socket| {
            errqueue::enable(socket.as_fd())?;
            // PROBE sets DF and ignores what the kernel remembers of the path (ip(7)).
            errqueue::ip_option(socket.as_fd(), libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
            AsyncFd::new(socket)
        });
        let socket = opened.map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => "needs net.ipv4.ping_group_range to include the own group, or CAP_NET_RAW".to_owned(),
            _ => format!("cannot open an ICMP socket: {}", errno_word(&e)),
        })?;
        let raw = is_raw.then(|| (u16::from(std::process::id().to_le_bytes()[0]) << 8) ^ NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { socket, raw, next: 0 })
    }

    /// Sends echo requests of these total IPv4 lengths at once, and waits for what comes of each.
    pub(crate) async fn ask(&mut self, to: Ipv4Addr, lengths: &[usize], deadline: Instant) -> Vec<Answer> {
        let first = self.next.wrapping_add(1);
        let began = Instant::now();
        let mut answers = Vec::with_capacity(lengths.len());
        for length in lengths {
            self.next = self.next.wrapping_add(1);
            answers.push(self.send(to, *length, began));
        }
        while answers.contains(&Answer::Silence) {
            while let Some((number, answer)) = self.take(to, began) {
                if let Some(place) = answers.get_mut(usize::from(number.wrapping_sub(first)))
                    && *place == Answer::Silence
                {
                    *place = answer;
                }
            }
            if !answers.contains(&Answer::Silence) {
                break;
            }
            match timeout_at(deadline, self.socket.ready(Interest::READABLE | Interest::ERROR)).await {
                Ok(Ok(mut guard)) => guard.clear_ready(),
                _ => break,
            }
        }
        answers
    }

    fn send(&self, to: Ipv4Addr, length: usize, began: Instant) -> Answer {
        let mut packet = vec![0_u8; length.max(HEADERS) - 20];
        packet[0] = 8;
        packet[6..8].copy_from_slice(&self.next.to_be_bytes());
        if let Some(id) = self.raw {
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            let sum = pnet::packet::util::checksum(&packet, 1);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        match self.socket.get_ref().send_to(&packet, &SocketAddrV4::new(to, 0).into()) {
            Ok(_) => Answer::Silence,
            // The device's own MTU: the kernel says so at once, and queues the number.
            Err(error) => match errqueue::take(self.socket.get_ref().as_fd()) {
                Some((refusal, _)) => Answer::Refused(refusal, began.elapsed()),
                None => Answer::NotSent(errno_word(&error)),
            },
        }
    }

    /// One error or reply that has come for us, with the number of the request that it answers.
    fn take(&self, to: Ipv4Addr, began: Instant) -> Option<(u16, Answer)> {
        let socket = self.socket.get_ref();
        while let Some((refusal, packet)) = errqueue::take(socket.as_fd()) {
            if let Some(number) = self.number(&packet) {
                return Some((number, Answer::Refused(refusal, began.elapsed())));
            }
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 128];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).ok()?;
            // SAFETY: the kernel has written the first `length` bytes, at most as many as the buffer has.
            let bytes: Vec<u8> = buffer[..length.min(128)].iter().map(|b| unsafe { b.assume_init() }).collect();
            let icmp = if self.raw.is_some() { after_ip_header(&bytes) } else { &bytes };
            if icmp.first() == Some(&0)
                && from.as_socket_ipv4().is_some_and(|a| *a.ip() == to)
                && let Some(number) = self.number(icmp)
            {
                return Some((number, Answer::Reply(began.elapsed())));
            }
        }
    }

    fn number(&self, icmp: &[u8]) -> Option<u16> {
        sequence_number(icmp, self.raw)
    }
}

/// Sequence number of an echo (RFC 792), or of the echo that an error repeats; with an identifier only of one that has it.
pub(in crate::probe) fn sequence_number(icmp: &[u8], identifier: Option<u16>) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes(icmp.get(at..at + 2)?.try_into().ok()?));
    if identifier.is_some() && word(4) != identifier { None } else { word(6) }
}

/// What follows the IPv4 header, which a raw socket hands over too (raw(7)).
pub(in crate::probe) fn after_ip_header(packet: &[u8]) -> &[u8] {
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}
