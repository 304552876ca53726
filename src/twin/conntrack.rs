//! Entries in a namespace's connection tracking table, by ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use super::nft::Attrs;
use crate::vantage::Net;
use crate::vantage::netlink;
use anyhow::{Context, Result, bail};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

const SUBSYS: u16 = 1;
const NEW: u16 = 0;
const DELETE: u16 = 2;
/// REQUEST | ACK.
const ACKED: u16 = 5;
/// CREATE | EXCL.
const CREATE: u16 = 0x600;
const ERROR: u16 = 2;
/// IPS_CONFIRMED | IPS_ASSURED | IPS_SEEN_REPLY: such entries are never thrown out to make room.
const LASTING: u32 = 14;
/// More than a machine of the usual size allows: filling that would take the machine's memory.
const MOST: u64 = 1 << 20;

/// Takes every free place of the table, as thousands of clients do, and returns how many that were.
pub(super) fn fill(net: &Net) -> Result<u64> {
    let max = net.with(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max"))??;
    let max: u64 = max.trim().parse().context("nf_conntrack_max")?;
    if max > MOST {
        bail!("nf_conntrack_max is {max} on this machine: the twin fills no table of more than {MOST} entries");
    }
    let socket = netlink::netfilter(net)?;
    for n in 0..=u32::try_from(max)? {
        match ask(&socket, NEW, CREATE, &entry(n).0) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => return Ok(n.into()),
            Err(error) => return Err(error).context("an entry of conntrack"),
        }
    }
    bail!("the table took {max} entries and is not full")
}

/// Empties the table.
pub(super) fn flush(net: &Net) -> Result<()> {
    ask(&netlink::netfilter(net)?, DELETE, 0, &[]).context("flush conntrack")
}

fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(20 + body.len()).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend((SUBSYS << 8 | kind).to_ne_bytes());
    request.extend((ACKED | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_INET as u8, 0, 0, 0]);
    request.extend(body);
    let mut answer = [0_u8; 256];
    netlink::send(socket, &request)?;
    let received = netlink::receive(socket, &mut answer)?;
    if received < 20 || u16::from_ne_bytes([answer[4], answer[5]]) != ERROR {
        return Err(io::ErrorKind::InvalidData.into());
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// A UDP flow between addresses that are kept for benchmarks (RFC 2544): no packet of the twin belongs to it.
fn entry(n: u32) -> Attrs {
    let client = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (n >> 15));
    let (server, port) = (Ipv4Addr::new(198, 19, 0, 1), u16::try_from(1024 + (n & 0x7fff)).unwrap_or_default());
    let tuple = |from: Ipv4Addr, to: Ipv4Addr, source: u16, target: u16| {
        let addresses = Attrs::default().raw(1, &from.octets()).raw(2, &to.octets());
        let ports = Attrs::default().raw(1, &[17]).raw(2, &source.to_be_bytes()).raw(3, &target.to_be_bytes());
        Attrs::default().nest(1, &addresses).nest(2, &ports)
    };
    let (there, back) = (tuple(client, server, port, 9), tuple(server, client, 9, port));
    Attrs::default().nest(1, &there).nest(2, &back).u32(3, LASTING).u32(7, 86_400)
}
