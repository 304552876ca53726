//! Offload features of a device, as `ethtool -k` shows them: by ioctl (SIOCETHTOOL, linux/ethtool.h), of the kind that only reads.

use crate::vantage::Net;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
/// Length of a name, and of the words that it fills.
const NAME: usize = 32;
const NAME_WORDS: usize = NAME / 4;
/// More features than any kernel has.
const MOST: u32 = 512;

/// Fact and the kernel's name of the feature.
pub(super) const FEATURES: [(&str, &str); 6] = [
    ("offload.tx_checksum", "tx-checksum-ip-generic"),
    ("offload.tx_generic_segmentation", "tx-generic-segmentation"),
    ("offload.tx_tcp_segmentation", "tx-tcp-segmentation"),
    ("offload.tx_udp_segmentation", "tx-udp-segmentation"),
    ("offload.rx_gro", "rx-gro"),
    ("offload.rx_udp_gro_forwarding", "rx-udp-gro-forwarding"),
];

/// Whether each of [`FEATURES`] is on; `None` for one that the kernel does not know. The error is a clause.
pub(super) fn read(net: &Net, device: &str) -> Result<[Option<bool>; 6], String> {
    let read = net.with(|| active(device)).and_then(|active| active);
    let active = read.map_err(|e| format!("the offload features of {device} cannot be read: {e}"))?;
    Ok(FEATURES.map(|(_, wanted)| active.iter().find(|(name, _)| name == wanted).map(|(_, on)| *on)))
}

/// Every feature by its name.
fn active(device: &str) -> io::Result<Vec<(String, bool)>> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let count = count(&socket, device)?;
    let names = names(&socket, device, count)?;
    let blocks = count.div_ceil(32);
    let mut request = vec![0; 2 + 4 * blocks as usize];
    request[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks]);
    call(&socket, device, &mut request)?;
    // Of each block of 32: available, requested, active, never changed.
    let on = |i: usize| request.get(2 + i / 32 * 4 + 2).is_some_and(|active| active >> (i % 32) & 1 == 1);
    Ok(names.into_iter().enumerate().map(|(i, name)| (name, on(i))).collect())
}

fn count(socket: &UdpSocket, device: &str) -> io::Result<u32> {
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([mask[at], mask[at + 1], mask[at + 2], mask[at + 3]]);
    let mut request = [ETHTOOL_GSSET_INFO, 0, half(0), half(4), 0];
    call(socket, device, &mut request)?;
    // An empty mask: the kernel has no such set.
    if request[2] | request[3] == 0 { Ok(0) } else { Ok(request[4].min(MOST)) }
}

fn names(socket: &UdpSocket, device: &str, count: u32) -> io::Result<Vec<String>> {
    // The kernel fills in as many as it has, whatever is asked for: there is room for them all.
    let mut request = vec![0; 3 + MOST as usize * NAME_WORDS];
    request[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
    call(socket, device, &mut request)?;
    let bytes: Vec<u8> = request[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = |name: &[u8]| String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
    Ok(bytes.chunks_exact(NAME).take(count as usize).map(text).collect())
}

fn call(socket: &UdpSocket, device: &str, data: &mut [u32]) -> io::Result<()> {
    if device.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is plain data, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: the request and the data it points to outlive the call, and the data has room for what the commands above write.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
