//! Netlink sockets inside a network and the attributes of their messages (netlink(7)), for what is asked and read byte by byte.
//!
//! What comes is parsed as if the kernel did not write it: every length is checked.

use super::Net;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How long netfilter's sockets wait for an answer. The kernel answers from memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A socket to netfilter's family, whose answers are waited for at most [`PATIENCE`].
pub(crate) fn netfilter(net: &Net) -> io::Result<OwnedFd> {
    net.with(|| {
        // SAFETY: socket(2) takes no pointers; the descriptor is owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let patience = libc::timeval { tv_sec: PATIENCE.as_secs().try_into().unwrap_or_default(), tv_usec: 0 };
        let size = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or_default();
        // SAFETY: the option's value outlives the call and has the size given.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const patience).cast(), size) };
        Ok(socket)
    })?
}

/// Sends one datagram.
pub(crate) fn send(socket: &OwnedFd, messages: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is valid for its length during the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), messages.as_ptr().cast(), messages.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one datagram, cut to the buffer's length; returns how many bytes of the buffer it fills.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length during the call.
    let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// One attribute, filled up to a multiple of four bytes. Its value has less than 64 KiB.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = [length.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes of a body: type without flags, and value. Ends at the first that does not fit.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(crate) fn find(body: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(body).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_and_cut_ones_end_the_list() {
        const NESTED: u16 = 0x8000;
        let body = [attribute(1, b"eth0\0"), attribute(2 | NESTED, &[7; 4]), attribute(1, &[])].concat();
        let all: Vec<_> = attributes(&body).collect();
        assert_eq!(all, [(1, b"eth0\0".as_slice()), (2, &[7; 4]), (1, &[])]);
        assert_eq!((find(&body, 2), find(&body, 1), find(&body, 3)), (Some([7; 4].as_slice()), Some(b"eth0\0".as_slice()), None));
        for length in 0..body.len() {
            assert!(attributes(&body[..length]).count() < 3, "{length}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0, 0, 0, 0, 0]).count(), 0, "shorter than its own head");
    }
}
