//! The error queue of a socket (IP_RECVERR, ip(7)): what an ICMP error said, and which hop said it. Needs no privilege.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use std::io::{self, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An error that the kernel queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The hop that sent the ICMP error; `None` if the error is our own kernel's.
    pub(super) from: Option<Ipv4Addr>,
    /// ICMP type (RFC 792); 0 if local.
    pub(super) kind: u8,
    /// ICMP code.
    pub(super) code: u8,
    /// Next-hop MTU of a "too big".
    pub(super) mtu: u32,
    /// Errno.
    pub(super) errno: u32,
}

impl Refusal {
    /// Destination unreachable because of a port, a protocol or a prohibition (codes 2, 3, 9, 10, 13): somebody refuses. The other codes
    /// also say that a network or a host is out of reach.
    pub(super) fn is_refused(&self) -> bool {
        self.kind == 3 && matches!(self.code, 2 | 3 | 9 | 10 | 13)
    }
}

/// Asks the kernel to queue errors.
pub(super) fn enable(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4RecvErr, &true)?)
}

/// Sets an option of the IP layer.
pub(super) fn ip_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the value outlives the call and has the size given.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, option, (&raw const value).cast(), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes one error from the queue, with as much of the packet it is about as the kernel kept.
pub(super) fn take(socket: BorrowedFd<'_>) -> Option<(Refusal, Vec<u8>)> {
    let mut packet = [0_u8; 128];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in, [u8; 64]);
    let mut slices = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).ok()?;
    let length = message.bytes.min(128);
    let refusal = message.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::Ipv4RecvErr(error, offender) => Some(refusal(&error, offender)),
        _ => None,
    })?;
    Some((refusal, packet[..length].to_vec()))
}

fn refusal(error: &libc::sock_extended_err, offender: Option<libc::sockaddr_in>) -> Refusal {
    let icmp = error.ee_origin == libc::SO_EE_ORIGIN_ICMP;
    let from = offender.map(|a| Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr))).filter(|a| icmp && !a.is_unspecified());
    let (kind, code) = if icmp { (error.ee_type, error.ee_code) } else { (0, 0) };
    Refusal { from, kind, code, mtu: error.ee_info, errno: error.ee_errno }
}

/// Words for an ICMP error (RFC 792, RFC 1812).
pub(super) fn words(kind: u8, code: u8) -> String {
    let text = match (kind, code) {
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "too big",
        (3, 9) => "network prohibited",
        (3, 10) => "host prohibited",
        (3, 13) => "administratively prohibited",
        (11, _) => "time exceeded",
        _ => return format!("ICMP type {kind} code {code}"),
    };
    text.to_owned()
}
