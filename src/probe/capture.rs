//! Watching VXLAN packets on an underlay device with an AF_PACKET socket (packet(7)).
//!
//! The socket is of the cooked kind: a packet begins with its IPv4 header on Ethernet-like devices and on TUN alike. A
//! classic BPF filter lets nothing through but our own echoes inside UDP to the VXLAN port, so that busy devices cost nothing.

use super::net::errno_word;
use crate::vantage::Net;
use pnet::datalink::{self, Channel, ChannelType, Config, DataLinkReceiver, NetworkInterface};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::{IcmpPacket, IcmpType};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::udp::{UdpPacket, ipv4_checksum};
use pnet::packet::util::checksum;
use pnet::packet::vxlan::VxlanPacket;
use socket2::{Domain, SockFilter, Socket, Type};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of each packet that are kept: enough for both headers and the marker.
const SNAP: u32 = 160;
/// How long a read waits; also how soon the thread notices that it shall end.
const TICK: Duration = Duration::from_millis(50);
/// Longest time for emptying the socket after the end.
const DRAIN: Duration = Duration::from_millis(250);
/// Most packets kept.
const MOST: usize = 1024;
/// IPv4, UDP, VXLAN (RFC 7348), Ethernet: length of the headers without options.
const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;

/// One of our own ICMP packets inside a VXLAN packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outer {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) ttl: u8,
    /// The UDP checksum in a word; see [`checksum_of`].
    pub(super) checksum: &'static str,
    pub(super) vni: u32,
    /// Inner destination hardware address.
    pub(super) inner_mac: String,
    pub(super) inner_source: Ipv4Addr,
    pub(super) inner_destination: Ipv4Addr,
    pub(super) icmp: IcmpType,
}

/// A running capture; see [`Capture::finish`]. When it is dropped its thread ends within a moment.
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Outer>, String>>>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Capture {
    /// Starts to watch a device for VXLAN packets that carry an ICMP packet whose data begins with `marker`.
    /// The thread ends by `until` in any case. Errors: no such device, or the missing privilege.
    pub(super) fn start(net: &Net, device: &str, port: u16, marker: &[u8], until: Instant) -> Result<Self, String> {
        let opened = net.with(|| open(device, port, marker)).map_err(|e| format!("cannot enter the network: {e}"))?;
        let opened = opened?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, marker) = (stop.clone(), marker.to_vec());
        let thread = thread::Builder::new().name("capture".to_owned());
        let thread = thread.spawn(move || watch_all(opened, &marker, &flag, until)).map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the capture and gives what it saw. The socket is emptied first.
    pub(super) async fn finish(mut self) -> Result<Vec<Outer>, String> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(Vec::new()) };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(result)) => result,
            _ => Err("the capture thread ended badly".to_owned()),
        }
    }
}

/// A capture's socket, and what reads from it.
struct Opened {
    socket: Socket,
    packets: Box<dyn DataLinkReceiver>,
}

fn open(device: &str, port: u16, marker: &[u8]) -> Result<Opened, String> {
    let index = nix::net::if_::if_nametoindex(device).map_err(|_| format!("no device {device}"))?;
    socket(index, device, port, marker).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => "capturing packets needs CAP_NET_RAW".to_owned(),
        _ => format!("cannot capture on {device}: {}", errno_word(&error)),
    })
}

fn socket(index: u32, device: &str, port: u16, marker: &[u8]) -> io::Result<Opened> {
    // Protocol 0 receives nothing until pnet binds the socket, so nothing comes in before the filter is attached.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket.attach_filter(&filter(port, marker))?;
    // Only ETH_P_ALL sockets see packets that leave.
    let every = ChannelType::Layer3(libc::ETH_P_ALL as u16);
    let interface = NetworkInterface { name: device.to_owned(), description: String::new(), index, mac: None, ips: Vec::new(), flags: 0 };
    let config = Config {
        channel_type: every,
        read_timeout: Some(TICK),
        promiscuous: false,
        socket_fd: Some(socket.try_clone()?.into_raw_fd()),
        ..Config::default()
    };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(_, packets) => Ok(Opened { socket, packets }),
        _ => Err(io::Error::other("an unknown kind of channel")),
    }
}

/// Classic BPF (Documentation/networking/filter.rst): whole IPv4 UDP packets to a port that carry, behind the headers of VXLAN,
/// Ethernet and IPv4 without options, an ICMP echo whose data begins with the marker's whole words. Somebody else's traffic to
/// that port would fill the socket and push ours out.
fn filter(port: u16, marker: &[u8]) -> Vec<SockFilter> {
    const PROTOCOL: u32 = 0xffff_f000; // SKF_AD_OFF + SKF_AD_PROTOCOL
    const ICMP: u32 = (UDP_HEADER + VXLAN_HEADER + ETHERNET_HEADER + IPV4_HEADER) as u32;
    let op = |code: u32, yes, no, value| SockFilter::new(code as u16, yes, no, value);
    let (half, byte, word) = (libc::BPF_LD | libc::BPF_H, libc::BPF_LD | libc::BPF_B, libc::BPF_LD | libc::BPF_W);
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let set = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let (absolute, indexed) = (libc::BPF_ABS, libc::BPF_IND);
    // Load, comparison, value; a packet that does not match (for a set bit: that does) is dropped.
    let mut tests = vec![
        (half | absolute, PROTOCOL, equal, libc::ETH_P_IP as u32),
        (byte | absolute, 9, equal, libc::IPPROTO_UDP as u32),
        (half | absolute, 6, set, 0x1fff), // fragment offset: a later fragment has no ports
        (half | indexed, 2, equal, u32::from(port)),
        (byte | indexed, ICMP - 11, equal, libc::IPPROTO_ICMP as u32),
    ];
    for (n, bytes) in (0_u32..).zip(marker.chunks_exact(4)) {
        let value = bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        tests.push((word | indexed, ICMP + ICMP_HEADER as u32 + 4 * n, equal, value));
    }
    // The length of the outer IPv4 header, by which the indexed loads go.
    let header = op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0);
    let mut program = vec![header];
    let drop = 2 * tests.len() + 2;
    for (load, at, compare, value) in tests {
        program.push(op(load, 0, 0, at));
        let to_drop = u8::try_from(drop - program.len() - 1).unwrap_or(u8::MAX);
        let (yes, no) = if compare == set { (to_drop, 0) } else { (0, to_drop) };
        program.push(op(compare, yes, no, value));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, SNAP));
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program
}

/// How many packets have passed the filter, and how many of them found no room in the socket (PACKET_STATISTICS, packet(7)).
fn passed_and_lost(socket: &Socket) -> io::Result<(u32, u32)> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the structure is plain data, as long as `size` says, and outlives the call.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut statistics).cast(), &raw mut size)
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok((statistics.tp_packets, statistics.tp_drops)) }
}

/// Watches, and knows nothing if packets were lost: which ones, nobody can tell.
fn watch_all(mut opened: Opened, marker: &[u8], stop: &AtomicBool, until: Instant) -> Result<Vec<Outer>, String> {
    let seen = watch(opened.packets.as_mut(), marker, stop, until)?;
    match passed_and_lost(&opened.socket) {
        Ok((_, 0)) => Ok(seen),
        Ok((_, lost)) => Err(format!("the capture lost {lost} packets")),
        Err(error) => Err(format!("the capture does not tell whether it lost packets: {}", errno_word(&error))),
    }
}

fn watch(packets: &mut dyn DataLinkReceiver, marker: &[u8], stop: &AtomicBool, until: Instant) -> Result<Vec<Outer>, String> {
    let mut seen = Vec::new();
    let mut until = until;
    let mut ending = false;
    loop {
        let quiet = match packets.next() {
            Ok(packet) => {
                seen.extend(parse(packet, marker).filter(|_| seen.len() < MOST));
                false
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) => return Err(format!("the capture broke off: {}", errno_word(&error))),
        };
        if ending && quiet || Instant::now() >= until {
            return Ok(seen);
        }
        if !ending && stop.load(Ordering::Relaxed) {
            ending = true;
            until = until.min(Instant::now() + DRAIN);
        }
    }
}

/// Takes a packet apart; `None` unless it is one of ours. Any bytes may come: every slice is checked.
fn parse(packet: &[u8], marker: &[u8]) -> Option<Outer> {
    let outer = Ipv4Packet::new(packet)?;
    let vxlan = VxlanPacket::new(packet.get(header_length(&outer) + UDP_HEADER..)?)?;
    let frame = EthernetPacket::new(packet.get(header_length(&outer) + UDP_HEADER + VXLAN_HEADER..)?)?;
    let inner_bytes = packet.get(header_length(&outer) + UDP_HEADER + VXLAN_HEADER + ETHERNET_HEADER..)?;
    let inner = Ipv4Packet::new(inner_bytes)?;
    let icmp_bytes = inner_bytes.get(header_length(&inner)..)?;
    let icmp = IcmpPacket::new(icmp_bytes)?;
    let ours = frame.get_ethertype() == EtherTypes::Ipv4
        && inner.get_next_level_protocol() == IpNextHeaderProtocols::Icmp
        && icmp_bytes.get(ICMP_HEADER..)?.starts_with(marker);
    ours.then(|| Outer {
        source: outer.get_source(),
        destination: outer.get_destination(),
        ttl: outer.get_ttl(),
        checksum: checksum_of(&outer, packet.get(header_length(&outer)..).unwrap_or_default()),
        vni: vxlan.get_vni(),
        inner_mac: frame.get_destination().to_string(),
        inner_source: inner.get_source(),
        inner_destination: inner.get_destination(),
        icmp: icmp.get_icmp_type(),
    })
}

/// `none` (0: not used, RFC 7348), `right`, `unfinished`: only the pseudo header is summed up and the device shall do the rest
/// (CHECKSUM_PARTIAL), `wrong`, or `cut` where the packet is not there as a whole.
fn checksum_of(outer: &Ipv4Packet, datagram: &[u8]) -> &'static str {
    let (from, to) = (outer.get_source(), outer.get_destination());
    let length = UdpPacket::new(datagram).map_or(0, |udp| usize::from(udp.get_length()));
    let Some(udp) = datagram.get(..length).and_then(UdpPacket::new) else { return "cut" };
    let right = match ipv4_checksum(&udp, &from, &to) {
        0 => u16::MAX,
        sum => sum,
    };
    match udp.get_checksum() {
        0 => "none",
        sum if sum == right => "right",
        sum if sum == pseudo_header(from, to, udp.get_length()) => "unfinished",
        _ => "wrong",
    }
}

/// Sum of the pseudo header (RFC 768), not complemented.
fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> u16 {
    let [a, b] = length.to_be_bytes();
    let header = [&from.octets()[..], &to.octets(), &[0, IpNextHeaderProtocols::Udp.0, a, b]].concat();
    // No word is left out: there are six of them.
    !checksum(&header, usize::MAX)
}

/// For fuzzers: whether a packet is one of ours.
pub(super) fn kept(packet: &[u8]) -> usize {
    usize::from(parse(packet, b"fathom-1").is_some())
}

fn header_length(packet: &Ipv4Packet) -> usize {
    usize::from(packet.get_header_length()) * 4
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A VXLAN packet as flannel sends it: echo request 10.42.0.0 -> 10.42.2.7.
    pub(in crate::probe) fn packet(marker: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 100, 95, 51, 125, 100, 83, 53, 38];
        bytes.extend([0xd4, 0x19, 0x21, 0x18, 0, 0, 0, 0]);
        bytes.extend([8, 0, 0, 0, 0, 0, 1, 0]);
        bytes.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        bytes.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 42, 0, 0, 10, 42, 2, 7]);
        bytes.extend([8, 0, 0, 0, 0, 1, 0, 1]);
        bytes.extend(marker);
        bytes
    }

    #[test]
    fn our_own_packets_are_told_by_their_marker() {
        let seen = parse(&packet(b"fathom-1"), b"fathom-1").unwrap();
        assert_eq!((seen.source.to_string(), seen.destination.to_string()), ("100.95.51.125".to_owned(), "100.83.53.38".to_owned()));
        assert_eq!((seen.vni, seen.inner_mac.as_str(), seen.icmp.0), (1, "02:00:00:00:00:02", 8));
        assert_eq!(seen.inner_destination, Ipv4Addr::new(10, 42, 2, 7));
        assert_eq!(parse(&packet(b"fathom-2"), b"fathom-1"), None);
    }

    /// The payload of a datagram: what is behind the outer headers.
    fn payload(marker: &[u8]) -> Vec<u8> {
        packet(marker).split_off(20 + UDP_HEADER)
    }

    #[test]
    fn ns_nothing_but_our_own_packets_gets_into_the_socket() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let marker = b"fathom-1 and more of it";
        let opened = open("lo", 8472, marker).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |port: u16, bytes: &[u8]| assert_eq!(sender.send_to(bytes, ("127.0.0.1", port)).unwrap(), bytes.len());
        let mut no_icmp = payload(marker);
        no_icmp[VXLAN_HEADER + ETHERNET_HEADER + 9] = 17;
        for other in [payload(b"fathom-2 and more of it"), payload(b"fathom-1"), no_icmp, vec![0; 1200], Vec::new()] {
            send(8472, &other);
        }
        send(8473, &payload(marker));
        assert_eq!(passed_and_lost(&opened.socket).unwrap(), (0, 0));
        send(8472, &payload(marker));
        // On the loopback device a packet is seen when it leaves and when it arrives.
        let until = Instant::now() + Duration::from_secs(5);
        let mut passed = 0;
        while passed < 2 && Instant::now() < until {
            passed += passed_and_lost(&opened.socket).unwrap().0;
        }
        assert_eq!(passed, 2);
        let stop = AtomicBool::new(true);
        assert_eq!(watch_all(opened, marker, &stop, until).unwrap().len(), 2);
    }

    #[test]
    fn the_outer_checksum_is_told_in_a_word() {
        let sum = |length: Option<u16>, sum: [u8; 2]| {
            let mut bytes = packet(b"fathom-1");
            let whole = u16::try_from(bytes.len() - 20).unwrap();
            bytes[24..26].copy_from_slice(&length.unwrap_or(whole).to_be_bytes());
            bytes[26..28].copy_from_slice(&sum);
            parse(&bytes, b"fathom-1").unwrap().checksum
        };
        assert_eq!((sum(None, [0, 0]), sum(Some(999), [0, 0]), sum(Some(7), [0, 0])), ("none", "cut", "cut"));
        // Computed by another program: the sum of the pseudo header, and the checksum of the whole.
        assert_eq!((sum(None, [0x31, 0xa9]), sum(None, [0xa9, 0x18])), ("unfinished", "right"));
        assert_eq!((sum(None, [1, 2]), sum(None, [0x99, 0x99])), ("wrong", "wrong"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = packet(b"fathom-1");
        for length in 0..whole.len() {
            parse(&whole[..length], b"fathom-1");
        }
        for at in 0..whole.len() {
            for value in [0, 0x40, 0x4f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                parse(&broken, b"fathom-1");
            }
        }
    }
}
