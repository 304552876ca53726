//! A DERP-like relay on the internet: passes datagrams on between nodes that cannot speak to each other directly.
//!
//! Tailscale's DERP is a TCP service; here it is a UDP one on another port than tailscaled's, which a filter on UDP 41641
//! does not touch either. A datagram is kind, sender, receiver, contents; who has sent something can be sent to.

use super::wire::Wire;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Where it listens (an RFC 5737 address).
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 5), 443);

/// A running relay; it ends when this is dropped.
#[derive(Debug)]
pub struct Derp {
    _stop: UnixStream,
}

/// Starts the relay on the host that has its address.
pub fn start(internet: &Wire) -> Result<Derp> {
    let socket = internet.net.with(|| UdpSocket::bind(ADDRESS))?.context("the relay's port")?;
    socket.set_nonblocking(true)?;
    let (stop, stopped) = UnixStream::pair()?;
    std::thread::Builder::new().name("derp".to_owned()).spawn(move || pass_on(&socket, &stopped)).context("relay thread")?;
    Ok(Derp { _stop: stop })
}

fn pass_on(socket: &UdpSocket, stopped: &UnixStream) {
    let mut known: HashMap<u8, SocketAddr> = HashMap::new();
    let mut buffer = vec![0_u8; 65_536];
    loop {
        let mut fds = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[0].any().unwrap_or(true) {
            return;
        }
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let [_, sender, receiver, ..] = buffer[..n] else { continue };
            known.insert(sender, from);
            if let Some(to) = known.get(&receiver) {
                let _ = socket.send_to(&buffer[..n], to);
            }
        }
    }
}
