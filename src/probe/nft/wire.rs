//! Dumps of nf_tables by netlink (include/uapi/linux/netfilter/nf_tables.h), without the `nft` binary. Read-only.
//!
//! Integers in attributes are big-endian. Answers come from the kernel, and are parsed as if they did not: every length
//! is checked, and there is a bound on everything.

use crate::vantage::Net;
use crate::vantage::netlink::{self, PATIENCE, attribute};
pub(super) use crate::vantage::netlink::{attributes, find};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

const SUBSYS: u16 = 10;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// NLM_F_DUMP_INTR.
const TORN: u16 = 0x10;
/// How often a list is asked for that changed meanwhile.
const TRIES: usize = 4;
const HEADER: usize = 20;
/// Most bytes of one dump: a node with some thousands of services has less.
const MOST: usize = 64 << 20;

/// What can be listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Chains = 4,
    Rules = 7,
    Sets = 10,
    Elements = 13,
    Objects = 19,
}

/// One message of a dump.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Address family: 1 inet, 2 IPv4, ...
    pub(super) family: u8,
    pub(super) body: Vec<u8>,
}

/// A text attribute that is one of a few words; empty if it is none.
pub(super) fn keyword(body: &[u8], kind: u16) -> &str {
    let value = find(body, kind).unwrap_or_default();
    value.split(|b| *b == 0).next().and_then(|word| std::str::from_utf8(word).ok()).unwrap_or_default()
}

/// A text attribute.
pub(super) fn text(body: &[u8], kind: u16) -> Option<String> {
    let value = find(body, kind)?;
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// A 32-bit attribute.
pub(super) fn number(body: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(body, kind)?.try_into().ok()?))
}

/// A 64-bit attribute.
pub(super) fn long(body: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(body, kind)?.try_into().ok()?))
}

/// Lists chains, rules, sets or objects of all families. Blocks for at most two seconds.
pub(super) fn dump(net: &Net, what: What) -> io::Result<Vec<Message>> {
    ask(net, what, 0, &[])
}

/// Lists the elements of a set: family, table and name. Blocks for at most two seconds.
pub(super) fn dump_set(net: &Net, (family, table, set): &(u8, String, String)) -> io::Result<Vec<Message>> {
    let named = |kind, name: &str| attribute(kind, &[name.as_bytes(), &[0]].concat());
    ask(net, What::Elements, *family, &[named(1, table), named(2, set)].concat())
}

fn ask(net: &Net, what: What, family: u8, body: &[u8]) -> io::Result<Vec<Message>> {
    let socket = netlink::netfilter(net)?;
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(((SUBSYS << 8) | what as u16).to_ne_bytes());
    request.extend((REQUEST | DUMP).to_ne_bytes());
    // Sequence, port (8 bytes), then nfgenmsg: family, version, resource (4 bytes).
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(body);
    for _ in 0..TRIES {
        netlink::send(&socket, &request)?;
        let dump = receive(&socket)?;
        if !dump.torn {
            return Ok(dump.messages);
        }
    }
    Err(io::Error::other("the rules change faster than they can be read"))
}

/// What one request gave.
#[derive(Default)]
pub(super) struct Dump {
    pub(super) messages: Vec<Message>,
    /// It changed while it was listed, so it is a list of nothing that ever was.
    torn: bool,
}

fn receive(socket: &OwnedFd) -> io::Result<Dump> {
    let until = Instant::now() + PATIENCE;
    let mut buffer = vec![0_u8; 1 << 16];
    let mut dump = Dump::default();
    let mut total = 0;
    while Instant::now() < until && total < MOST {
        let n = netlink::receive(socket, &mut buffer)?;
        total += n;
        if take(&buffer[..n.min(buffer.len())], &mut dump)? {
            return Ok(dump);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nf_tables did not end its list"))
}

/// Takes the messages of one datagram; true at the end of the dump.
pub(super) fn take(mut rest: &[u8], dump: &mut Dump) -> io::Result<bool> {
    while let Some(head) = rest.get(..16) {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let Some(message) = rest.get(..length).filter(|m| m.len() >= 16) else { return Err(io::ErrorKind::InvalidData.into()) };
        dump.torn |= u16::from_ne_bytes([head[6], head[7]]) & TORN != 0;
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(libc::EPROTO, |b| -i32::from_ne_bytes(b));
                return Err(io::Error::from_raw_os_error(code));
            }
            _ if message.len() >= HEADER => dump.messages.push(Message { family: message[16], body: message[HEADER..].to_vec() }),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The messages of a file: their types, and they.
#[cfg(test)]
pub(super) fn kept(mut bytes: &[u8]) -> Vec<(u16, Message)> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        let mut dump = Dump::default();
        take(&bytes[..length], &mut dump).unwrap();
        let kind = u16::from_ne_bytes(bytes[4..6].try_into().unwrap()) & 0xff;
        messages.extend(dump.messages.into_iter().map(|message| (kind, message)));
        bytes = &bytes[length.next_multiple_of(4)..];
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_it_panic() {
        let mut list = Dump::default();
        let chain = [24_u32.to_ne_bytes().as_slice(), &[3, 10, 0, 0], &[0; 8], &[2, 0, 0, 0], &[4, 0, 0, 0]].concat();
        assert!(!take(&chain, &mut list).unwrap() && list.messages.len() == 1 && !list.torn);
        for length in 0..chain.len() {
            let _ = take(&chain[..length], &mut list);
            attributes(&chain[..length]).count();
        }
        for at in 0..chain.len() {
            for value in [0, 1, 2, 3, 0x7f, 0xff] {
                let mut broken = chain.clone();
                broken[at] = value;
                let _ = take(&broken, &mut Dump::default());
                attributes(&broken).count();
            }
        }
    }
}
