//! One connection as the kernel tracks it, asked for by its own addresses (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use crate::vantage::Net;
use crate::vantage::netlink::{self, attribute, attributes, find};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

/// NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_GET.
const GET: u16 = 1 << 8 | 1;
/// IPCTNL_MSG_CT_NEW, which is also what tells of an entry.
const ENTRY: u16 = 1 << 8;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const NESTED: u16 = 0x8000;
const HEADER: usize = 20;
const TCP: u8 = 6;
/// CTA_TUPLE_ORIG and CTA_TUPLE_REPLY.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

/// The address under which a TCP connection goes on from here: the one to which its answers come. `None` if it is not tracked.
/// Blocks for at most two seconds; reads one entry, however many there are.
pub(super) fn leaves_as(net: &Net, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<Ipv4Addr>> {
    let socket = netlink::netfilter(net)?;
    let mut answer = vec![0_u8; 8192];
    netlink::send(&socket, &request(from, to))?;
    let length = netlink::receive(&socket, &mut answer)?;
    read(answer.get(..length).unwrap_or_default())
}

fn request(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let addresses = [attribute(1, &from.ip().octets()), attribute(2, &to.ip().octets())].concat();
    let ports = [attribute(1, &[TCP]), attribute(2, &from.port().to_be_bytes()), attribute(3, &to.port().to_be_bytes())].concat();
    let tuple = [attribute(1 | NESTED, &addresses), attribute(2 | NESTED, &ports)].concat();
    let body = attribute(ORIGINAL | NESTED, &tuple);
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let family = u8::try_from(libc::AF_INET).unwrap_or_default();
    [length.to_ne_bytes().as_slice(), &GET.to_ne_bytes(), &REQUEST.to_ne_bytes(), &[0; 8], &[family, 0, 0, 0], &body].concat()
}

/// The answer, whatever its bytes are.
fn read(answer: &[u8]) -> io::Result<Option<Ipv4Addr>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(invalid)?;
    if kind == ERROR {
        let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(invalid)?;
        return if -code == libc::ENOENT { Ok(None) } else { Err(io::Error::from_raw_os_error(-code)) };
    }
    let body = answer.get(HEADER..).filter(|_| kind == ENTRY).ok_or_else(invalid)?;
    let reply = attributes(body).find(|(kind, _)| *kind == REPLY).and_then(|(_, tuple)| find(find(tuple, 1)?, 2));
    let octets: [u8; 4] = reply.and_then(|b| b.try_into().ok()).ok_or_else(invalid)?;
    Ok(Some(octets.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(answers_to: Ipv4Addr) -> Vec<u8> {
        let tuple = attribute(1 | NESTED, &[attribute(1, &[10, 0, 0, 1]), attribute(2, &answers_to.octets())].concat());
        let body = attribute(REPLY | NESTED, &tuple);
        let length = u32::try_from(HEADER + body.len()).unwrap();
        [length.to_ne_bytes().as_slice(), &ENTRY.to_ne_bytes(), &[0; 10], &[2, 0, 0, 0], &body].concat()
    }

    #[test]
    fn an_entry_tells_where_answers_go_and_no_bytes_make_it_panic() {
        let address = Ipv4Addr::new(157, 173, 210, 123);
        let bytes = entry(address);
        assert_eq!(read(&bytes).unwrap(), Some(address));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                let _ = read(&broken);
            }
        }
        let error = |code: i32| [&36_u32.to_ne_bytes()[..], &ERROR.to_ne_bytes(), &[0; 10], &(-code).to_ne_bytes(), &[0; 16]].concat();
        assert_eq!(read(&error(libc::ENOENT)).unwrap(), None);
        assert_eq!(read(&error(libc::EPERM)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
