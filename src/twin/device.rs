//! The `tailscale0` device of a node and its other end in our hands: a TUN device where `/dev/net/tun` can be opened,
//! else one end of a veth pair whose other end we read and write with AF_PACKET.

use super::wire::Wire;
use crate::vantage::{Net, NetNs};
use anyhow::{Context, Result};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Our end of the device.
#[derive(Debug)]
pub(super) enum Device {
    /// The TUN descriptor; the device goes when it is closed.
    Tun(OwnedFd),
    /// A packet socket on the other end of a veth pair.
    Packet {
        /// The socket, in cooked mode: packets begin with the IP header.
        socket: OwnedFd,
        /// Where packets are sent to: the node's end.
        to: Box<libc::sockaddr_ll>,
        /// The namespace that holds the other end; the pair goes with it.
        _hub: NetNs,
    },
}

impl Device {
    /// Makes the device in a node's namespace and brings it up.
    pub(super) async fn make(wire: &Wire, name: &str, mtu: u32) -> Result<Self> {
        let device = match wire.net.with(|| open_tun(name))? {
            Ok(tun) => Self::Tun(tun),
            Err(_) => Self::packet(wire, name, mtu).await?,
        };
        wire.up_with_mtu(name, mtu).await?;
        Ok(device)
    }

    /// Makes sure that the device is gone: a TUN is, once its descriptor is closed; a veth goes with the namespace of its other
    /// end, which the kernel clears in its own time, and may go while it is being deleted.
    pub(super) async fn remove(wire: &Wire, name: &str) -> Result<()> {
        match wire.delete_link(name).await {
            Err(e) if !Wire::is_missing(&e) => Err(e),
            _ => Ok(()),
        }
    }

    async fn packet(wire: &Wire, name: &str, mtu: u32) -> Result<Self> {
        let hub_ns = NetNs::create(&format!("hub-{}", wire.name))?;
        let hub = Wire::open(&format!("hub-{}", wire.name), Net::Ns(hub_ns.clone())).await?;
        hub.veth("peer", wire, name, mtu).await?;
        wire.no_arp(name).await?;
        // Checksums (and so segments) must be finished by the kernel: the packet socket would see them half done.
        wire.net.with(|| finish_checksums(name))?.with_context(|| format!("{}: checksum offload of {name}", wire.name))?;
        let mac = wire.mac(name).await?;
        let index = hub.index("peer").await?;
        let (socket, to) = hub.net.with(|| open_packet(index, mac))?.context("packet socket")?;
        Ok(Self::Packet { socket, to: Box::new(to), _hub: hub_ns })
    }

    /// Reads one packet.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its length during the call.
        let n = unsafe { libc::read(self.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Writes one packet; a device that is down loses it, as a wire does.
    pub(super) fn write(&self, packet: &[u8]) {
        match self {
            // SAFETY: the packet is valid for its length during the call.
            Self::Tun(fd) => unsafe {
                libc::write(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len());
            },
            Self::Packet { socket, to, .. } => {
                let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
                let address: *const libc::sockaddr_ll = &raw const **to;
                // SAFETY: packet and address are valid for their lengths during the call.
                unsafe {
                    libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, address.cast(), size);
                }
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(fd) => fd.as_fd(),
            Self::Packet { socket, .. } => socket.as_fd(),
        }
    }
}

fn interface_name(request: &mut libc::ifreq, name: &str) {
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
}

fn open_tun(name: &str) -> io::Result<OwnedFd> {
    // SAFETY: the path is a constant C string; the descriptor is owned at once.
    let fd = unsafe {
        let fd = libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: ifreq is plain data, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    interface_name(&mut request, name);
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

fn open_packet(index: u32, mac: [u8; 6]) -> io::Result<(OwnedFd, libc::sockaddr_ll)> {
    // SAFETY: socket(2) takes no pointers; the descriptor is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let one: libc::c_int = 1;
    let size = |n: usize| libc::socklen_t::try_from(n).unwrap_or_default();
    // SAFETY: sockaddr_ll is plain data, for which zero is a valid value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    to.sll_protocol = u16::try_from(libc::ETH_P_IP).unwrap_or_default().to_be();
    to.sll_ifindex = i32::try_from(index).unwrap_or_default();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&mac);
    // SAFETY: option value and address outlive the calls and have the sizes given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const one).cast(),
            size(size_of_val(&one)),
        ) < 0
            || libc::bind(socket.as_raw_fd(), (&raw const to).cast(), size(size_of_val(&to))) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok((socket, to)) }
}

/// Leaves no checksum of a device unfinished: SIOCETHTOOL with ETHTOOL_STXCSUM = 0 (include/uapi/linux/ethtool.h).
pub(crate) fn finish_checksums(name: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let mut value: [u32; 2] = [ETHTOOL_STXCSUM, 0];
    // SAFETY: ifreq is plain data, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    interface_name(&mut request, name);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request and the value it points to outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
