//! Packets that are garbage, to sockets that wait for answers.

use crate::probe::testnet::{self, CALYPSO, Node, Nodes, TETHYS, two_nodes};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Something that sends all the time, until it is dropped.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Sends one packet after the other from a node, 10,000 a second at most.
fn pour(node: &Node, packets: Vec<Vec<u8>>, send: impl Fn(&[u8]) -> bool + Send + 'static) -> Sender {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (stopped, count, ns) = (stop.clone(), sent.clone(), node.ns.clone());
    let thread = std::thread::spawn(move || {
        ns.enter().unwrap();
        for packet in packets.iter().cycle() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            count.fetch_add(usize::from(send(packet)), Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    Sender { stop, sent, thread: Some(thread) }
}

/// ICMP messages that look like answers and are none.
fn icmp_garbage() -> Vec<Vec<u8>> {
    let mut packets = vec![vec![0], vec![0; 4], vec![0; 8], vec![11, 0, 0, 0, 0, 0, 0, 0], vec![3, 1, 0, 0, 0, 0, 0, 0], vec![0xff; 1200]];
    // Time exceeded and unreachable that quote nonsense: a header that claims to be longer than what follows, another protocol.
    for kind in [3_u8, 11] {
        for quoted in [vec![0x4f; 20], vec![0x45; 28], [vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, 1, 0, 0], vec![0; 16]].concat()] {
            packets.push([vec![kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat());
        }
    }
    // Replies with right checksums and somebody else's identifier.
    for sequence in 0..8_u8 {
        packets.push(vec![0, 0, 0, 0, 0xde, 0xad, 0, sequence]);
    }
    packets.into_iter().map(checksummed).collect()
}

fn checksummed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet.len() >= 4 {
        packet[2..4].fill(0);
        let sum: u32 = packet.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p.get(1).copied().unwrap_or(0)]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[2..4].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
    }
    packet
}

/// Calypso does not answer, and sends garbage in place of answers.
fn pretend(nodes: &Nodes, to: Ipv4Addr) -> Sender {
    nodes.calypso.sysctl("net/ipv4/icmp_echo_ignore_all", "1");
    let socket = nodes.calypso.ns.with(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))).unwrap().unwrap();
    let to = SockAddr::from(SocketAddrV4::new(to, 0));
    pour(&nodes.calypso, icmp_garbage(), move |packet| socket.send_to(packet, &to).is_ok())
}

async fn timed(kind: &str, with: &str, from: &Node, most: Duration) -> Value {
    let began = Instant::now();
    let seen = testnet::observe(kind, with, from, None).await;
    assert!(began.elapsed() < most, "{kind} took {:?}", began.elapsed());
    seen.facts.to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_garbage_is_no_reply_to_any_kind_of_echo() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    let sender = pretend(&nodes, TETHYS);
    // A new network allows no datagram ICMP sockets: the first round goes through raw ones.
    for datagrams in [false, true] {
        if datagrams {
            nodes.tethys.sysctl("net/ipv4/ping_group_range", "0 0");
        }
        let address = format!("address = '{CALYPSO}'");
        let echo = timed("icmp", &address, &nodes.tethys, Duration::from_secs(4)).await;
        assert_eq!((&echo["received"], &echo["loss_percent"]), (&json!(0), &json!(100)), "{echo}");
        assert_eq!(echo["method"], if datagrams { "dgram" } else { "raw" });
        let path = timed("trace", &format!("{address}\nhops = 4"), &nodes.tethys, Duration::from_secs(4)).await;
        assert_eq!((&path["reached"], &path["last_ttl"], &path["refused"]), (&json!(false), &json!(0), &json!(false)), "{path}");
        let mtu = timed("pmtu", &address, &nodes.tethys, Duration::from_secs(6)).await;
        assert_eq!(mtu["reachable"], json!(false), "{mtu}");
    }
    assert!(sender.sent.load(Ordering::Relaxed) > 100, "the garbage was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_garbage_among_answers_changes_none_of_them() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    let sender = pretend(&nodes, TETHYS);
    nodes.calypso.sysctl("net/ipv4/icmp_echo_ignore_all", "0");
    let address = format!("address = '{CALYPSO}'");
    let echo = timed("icmp", &address, &nodes.tethys, Duration::from_secs(4)).await;
    assert_eq!((&echo["received"], &echo["loss_percent"]), (&json!(3), &json!(0)), "{echo}");
    let path = timed("trace", &address, &nodes.tethys, Duration::from_secs(4)).await;
    assert_eq!((&path["reached"], &path["distance"], &path["loss_percent"]), (&json!(true), &json!(1), &json!(0)), "{path}");
    let closed = timed("udp", &format!("{address}\nport = 9"), &nodes.tethys, Duration::from_secs(4)).await;
    assert_eq!((&closed["refused"], &closed["icmp_code"]), (&json!(true), &json!(3)), "{closed}");
    assert!(sender.sent.load(Ordering::Relaxed) > 10, "the garbage was sent");
}

/// Outer UDP packets to VXLAN's port: empty, cut short, of another VNI, with inner packets that lie about their lengths.
fn vxlan_garbage() -> Vec<Vec<u8>> {
    let frame = |inner: &[u8]| [&[8, 0, 0, 0, 0, 0, 1, 0][..], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], inner].concat();
    let mut packets: Vec<Vec<u8>> = (0..22).map(|n| frame(&[])[..n].to_vec()).collect();
    packets.extend([frame(&[0x4f; 20]), frame(&[0x45; 19]), frame(&[0x60; 40]), frame(&[0xff; 1100]), vec![0; 1200]]);
    let lying = [vec![0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, 1, 0, 0, 10, 42, 2, 0, 10, 42, 0, 0], vec![0, 0]].concat();
    packets.push(frame(&lying));
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_garbage_on_the_wire_is_not_counted() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let nodes = two_nodes().await;
    let socket = nodes.calypso.ns.with(|| UdpSocket::bind((CALYPSO, 0))).unwrap().unwrap();
    let sender = pour(&nodes.calypso, vxlan_garbage(), move |packet| socket.send_to(packet, (TETHYS, 8472)).is_ok());
    let with = "device = 'flannel.1'\nparent = 'tailscale0'\nport = 8472\nvni = 1\nto = '10.42.2.0'";
    let wire = timed("vxlan-wire", with, &nodes.tethys, Duration::from_secs(8)).await;
    assert_eq!((&wire["sent"], &wire["echoes"], &wire["left"], &wire["returned"]), (&json!(3), &json!(3), &json!(3), &json!(3)), "{wire}");
    assert!(sender.sent.load(Ordering::Relaxed) > 10, "the garbage was sent");
}
