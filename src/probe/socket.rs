//! `socket`: sockets bound to a port, as `/proc/net/tcp` and `/proc/net/udp` list them (proc_net(5)), kernel sockets such as a VXLAN device's too.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest list that is read: some 25,000 sockets.
const MOST: u64 = 4 << 20;
/// Between two pieces of a list the kernel finds its place by counting, so while other sockets go a line may be passed over: only
/// what several readings lack is absent.
const READINGS: usize = 3;
/// Most addresses told.
const SHOWN: usize = 16;
/// States that mean that a socket waits for whoever comes (net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE of UDP, which is not connected.
const TCP_LISTEN: u8 = 10;
const TCP_ESTABLISHED: u8 = 1;
const UDP_UNCONNECTED: u8 = 7;

/// Sockets bound to a port, as `/proc/net/tcp` and `/proc/net/udp` list them.
pub(super) static KIND: Kind = Kind {
    name: "socket",
    root: "socket",
    about: "Sockets bound to a port, as `/proc/net/tcp` and `/proc/net/udp` list them",
    privilege: None,
    args: &[("port", "local port"), ("protocol", "`tcp` or `udp`")],
    facts: &[
        fact("listening", "bool", "a socket waits at the port for whoever comes"),
        fact("addresses", "list of addresses", "local addresses of those sockets; 0.0.0.0 or :: means every one"),
        fact("connected", "count", "sockets at the port that are connected to somebody"),
        fact(
            "waiting_bytes",
            "bytes",
            "received and not yet taken by the program, of the fullest of them; of a TCP listener connections, not bytes",
        ),
        fact("dropped", "count", "datagrams that they had no room for since they exist (UDP only)"),
    ],
    decode: decode::<Sockets>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sockets {
    port: u16,
    protocol: Protocol,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    address: IpAddr,
    port: u16,
    state: u8,
    waiting: u64,
    dropped: Option<u64>,
}

#[async_trait]
impl Probe for Sockets {
    async fn observe(&self, cx: &Context) -> Observation {
        let files = match self.protocol {
            Protocol::Tcp => ["tcp", "tcp6"],
            Protocol::Udp => ["udp", "udp6"],
        };
        let (net, port) = (cx.vantage.net.clone(), self.port);
        // A long list takes the kernel a while.
        let lists = tokio::task::spawn_blocking(move || lists(&net, files, port)).await;
        match lists.unwrap_or_else(|_| Err("the reader of the list ended badly".to_owned())) {
            Ok(lines) => self.facts(&lines),
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn target(&self) -> String {
        format!("{} port {}", if self.protocol == Protocol::Tcp { "TCP" } else { "UDP" }, self.port)
    }
}

impl Sockets {
    fn facts(&self, lines: &[Line]) -> Observation {
        let mut seen = Observation::default();
        let open = if self.protocol == Protocol::Tcp { TCP_LISTEN } else { UDP_UNCONNECTED };
        let ours: Vec<&Line> = lines.iter().filter(|l| l.port == self.port).collect();
        let waiting: Vec<&Line> = ours.iter().copied().filter(|l| l.state == open).collect();
        let addresses: BTreeSet<String> = waiting.iter().map(|l| l.address.to_string()).collect();
        let addresses: Vec<String> = addresses.into_iter().take(SHOWN).collect();
        let connected = ours.iter().filter(|l| l.state == TCP_ESTABLISHED).count();
        seen.note("procfs", format!("{}: open at [{}], {connected} connected", self.target(), addresses.join(" ")));
        seen.facts.set("listening", !waiting.is_empty()).set("addresses", addresses).set("connected", connected);
        seen.facts.set("waiting_bytes", waiting.iter().map(|l| l.waiting).max().unwrap_or(0));
        let dropped = (self.protocol == Protocol::Udp).then(|| ours.iter().filter_map(|l| l.dropped).fold(0, u64::saturating_add));
        seen.facts.set_or_unknown("dropped", dropped, "only counted for UDP");
        seen
    }
}

/// Both lists, read until the port is in them.
fn lists(net: &Net, files: [&str; 2], port: u16) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for _ in 0..READINGS {
        lines = [list(net, files[0])?, list(net, files[1])?].concat();
        if lines.iter().any(|l| l.port == port) {
            break;
        }
    }
    Ok(lines)
}

/// The list of the namespace of the thread that reads it. Without IPv6 there is none of it.
fn list(net: &Net, file: &str) -> Result<Vec<Line>, String> {
    let read = net.with(|| read(file)).and_then(|read| read);
    match read {
        Ok(text) if text.len() as u64 >= MOST => Err(format!("/proc/net/{file} is longer than {MOST} bytes")),
        Ok(text) => Ok(text.lines().skip(1).filter_map(line).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.ends_with('6') => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read /proc/net/{file}: {error}")),
    }
}

fn read(file: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(format!("/proc/thread-self/net/{file}"))?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

/// For fuzzers: lines of a list that are understood.
pub(super) fn kept(text: &str) -> usize {
    text.lines().filter_map(line).count()
}

/// `sl: local remote state tx:rx timer retransmits uid timeout inode ..`, of UDP with the drops at its end.
fn line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let (_, waiting) = words.get(4)?.split_once(':')?;
    Some(Line {
        address: self::address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(words.get(3)?, 16).ok()?,
        waiting: u64::from_str_radix(waiting, 16).ok()?,
        dropped: words.get(12).and_then(|d| d.parse().ok()),
    })
}

/// Words of 32 bits as they lie in memory, each written as a number.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (i, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(i * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    #[test]
    fn lines_of_the_kernels_lists() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 26523 1 0000000000000000 100 0 0 10 0";
        let expected = Line { address: Ipv4Addr::LOCALHOST.into(), port: 8080, state: TCP_LISTEN, waiting: 3, dropped: None };
        // Word 12 of a TCP line is a number too; it is not asked for.
        assert_eq!(line(tcp).map(|l| Line { dropped: None, ..l }), Some(expected));
        let udp = "  714: 00000000:2118 00000000:0000 07 00000000:00000200 00:00000000 00000000     0        0 0 2 0000000000000000 41";
        let expected = Line { address: Ipv4Addr::UNSPECIFIED.into(), port: 8472, state: UDP_UNCONNECTED, waiting: 512, dropped: Some(41) };
        assert_eq!(line(udp), Some(expected));
        assert_eq!(address("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        for broken in ["", "0:", "0: x:y", "0: 0100007F:1F90 0:0 0A", "0: 0100007F:1F90 0:0 ZZ 0:0", "0: 0100:1F90 0:0 0A 0:0"] {
            assert_eq!(line(broken), None, "{broken}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_the_socket_of_a_vxlan_device_and_a_listener_are_found_in_their_namespace() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let look = async |with: &str| testnet::observe("socket", with, &nodes.tethys, None).await.facts.to_json();
        let vxlan = look("port = 8472\nprotocol = 'udp'").await;
        assert_eq!((&vxlan["listening"], &vxlan["addresses"], &vxlan["dropped"]), (&json!(true), &json!(["0.0.0.0"]), &json!(0)));
        let address = (testnet::TETHYS, 9999);
        let listener = nodes.tethys.vantage.net.with(|| std::net::TcpListener::bind(address)).unwrap().unwrap();
        let here = look("port = 9999\nprotocol = 'tcp'").await;
        assert_eq!((&here["listening"], &here["addresses"], &here["connected"]), (&json!(true), &json!([address.0]), &json!(0)));
        assert!(here["dropped"]["unknown"].is_string());
        assert_eq!(look("port = 9999\nprotocol = 'udp'").await["listening"], false);
        let elsewhere = testnet::observe("socket", "port = 9999\nprotocol = 'tcp'", &nodes.calypso, None).await;
        assert_eq!(elsewhere.facts.get("listening"), Some(&json!(false)));
        drop(listener);
        nodes.tethys.delete("flannel.1").await;
        assert_eq!(look("port = 8472\nprotocol = 'udp'").await["listening"], false);
    }
}
