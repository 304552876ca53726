//! Dumps of nf_tables by netlink (include/uapi/linux/netfilter/nf_tables.h), without the `nft` binary. Read-only.
//!
//! Integers in attributes are big-endian. Answers come from the kernel, and are parsed as if they did not: every length
//! is checked, and there is a bound on everything.

use crate::vantage::Net;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

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
/// The kernel answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// The attributes of a body: type without flags, and value. Ends at the first that does not fit.
pub(in crate::probe) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(in crate::probe) fn find(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body).find(|(k, _)| *k == kind).map(|(_, value)| value)
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
    let mut body = Vec::new();
    for (kind, name) in [(1_u16, table), (2, set)] {
        let length = name.len() + 5;
        body.extend(u16::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(name.as_bytes());
        body.resize((body.len() + 1).next_multiple_of(4), 0);
    }
    ask(net, What::Elements, *family, &body)
}

fn ask(net: &Net, what: What, family: u8, body: &[u8]) -> io::Result<Vec<Message>> {
    let socket = open(net)?;
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(((SUBSYS << 8) | what as u16).to_ne_bytes());
    request.extend((REQUEST | DUMP).to_ne_bytes());
    // Sequence, port (8 bytes), then nfgenmsg: family, version, resource (4 bytes).
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(body);
    for _ in 0..TRIES {
        // SAFETY: the request is valid for its length during the call.
        if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
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
        // SAFETY: the buffer is valid for its length during the call.
        let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Ok(n) = usize::try_from(n) else { return Err(io::Error::last_os_error()) };
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

/// A socket to netfilter's netlink family, whose answers are waited for at most [`PATIENCE`].
pub(in crate::probe) fn open(net: &Net) -> io::Result<OwnedFd> {
    net.with(|| {
        // SAFETY: socket(2) takes no pointers; the descriptor is owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let patience = libc::timeval { tv_sec: 2, tv_usec: 0 };
        let size = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or_default();
        // SAFETY: the option's value outlives the call and has the size given.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const patience).cast(), size) };
        Ok(socket)
    })?
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
