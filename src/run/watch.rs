//! Changes of the network's state as the kernel announces them (rtnetlink(7) multicast groups), per vantage: no polling.

use crate::vantage::{Net, Vantage};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A device appeared, went, or has another state, MTU or hardware address.
    Link,
    /// An address.
    Address,
    /// A route.
    Route,
    /// A rule of the routing policy.
    Rule,
    /// A permanent neighbour.
    Neighbour,
    /// A forwarding entry (FDB).
    Forwarding,
    /// IPv4 forwarding, rp_filter or another setting that the kernel announces (RTNLGRP_IPV4_NETCONF).
    Setting,
    /// The kernel had more to say than could be read: anything may have changed.
    Overrun,
}

/// One announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Vantage id.
    pub vantage: String,
    /// What.
    pub what: What,
    /// Whether it is gone.
    pub gone: bool,
    /// Index of the device, where the announcement names one.
    pub device: Option<u32>,
}

impl What {
    /// The probe kinds whose facts may differ now.
    pub fn concerns(self) -> &'static [&'static str] {
        match self {
            Self::Link => &["link", "flannel", "route", "vxlan-wire", "pmtu"],
            Self::Address => &["link", "route"],
            Self::Route => &["route", "flannel", "vxlan-wire"],
            Self::Rule => &["route"],
            Self::Neighbour | Self::Forwarding => &["flannel", "vxlan-wire"],
            Self::Setting => &["sysctl", "route"],
            Self::Overrun => &["link", "flannel", "route", "vxlan-wire", "pmtu", "sysctl"],
        }
    }
}

/// Groups of rtnetlink(7) and include/uapi/linux/rtnetlink.h.
const GROUPS: [libc::c_uint; 6] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    24, // RTNLGRP_IPV4_NETCONF
];
/// Announcements that nobody has read yet; beyond that they are dropped, as one says as much as many.
const MOST: usize = 256;
const PERMANENT: u16 = 0x80;

/// Announces the changes of these vantages' networks until the receiver is dropped. It has subscribed when it returns: no
/// later change is missed. The error names the vantage that cannot be watched.
#[expect(deprecated, reason = "AsyncFd's replacement is unsafe; the descriptor is owned for as long as it lives")]
pub fn changes(vantages: &[Arc<Vantage>]) -> Result<mpsc::Receiver<Change>, String> {
    let (announce, changes) = mpsc::channel(MOST);
    for vantage in vantages {
        let socket = subscribe(&vantage.net).and_then(AsyncFd::new).map_err(|e| format!("{} cannot be watched: {e}", vantage.id))?;
        tokio::spawn(watch(socket, vantage.id.clone(), announce.clone()));
    }
    Ok(changes)
}

fn subscribe(net: &Net) -> io::Result<OwnedFd> {
    net.with(|| {
        // SAFETY: socket(2) takes no pointers; the descriptor is owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // Without a port of its own a socket gets no announcements: port 0 is the kernel's, and senders are left out.
        // SAFETY: sockaddr_nl is plain data, for which zero is a valid value; it outlives the call.
        let bound = unsafe {
            let mut own: libc::sockaddr_nl = std::mem::zeroed();
            own.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or_default();
            let size = libc::socklen_t::try_from(size_of_val(&own)).unwrap_or_default();
            libc::bind(socket.as_raw_fd(), (&raw const own).cast(), size)
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        for group in GROUPS {
            let size = libc::socklen_t::try_from(size_of_val(&group)).unwrap_or_default();
            // SAFETY: the option's value outlives the call and has the size given.
            let joined = unsafe {
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, (&raw const group).cast(), size)
            };
            if joined < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(socket)
    })?
}

async fn watch(socket: AsyncFd<OwnedFd>, vantage: String, announce: mpsc::Sender<Change>) {
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let read = tokio::select! {
            () = announce.closed() => return,
            read = socket.async_io(Interest::READABLE, |fd| receive(fd, &mut buffer)) => read,
        };
        let seen = match read {
            Ok(length) => parse(&buffer[..length.min(buffer.len())]),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => vec![(What::Overrun, false, None)],
            Err(_) => return,
        };
        for (what, gone, device) in seen {
            // A full queue holds unread changes already.
            let _ = announce.try_send(Change { vantage: vantage.clone(), what, gone, device });
        }
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length during the call.
    let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// The announcements of one datagram. Anything may come: every length is checked.
fn parse(mut rest: &[u8]) -> Vec<(What, bool, Option<u32>)> {
    let mut changes = Vec::new();
    while let Some(head) = rest.get(..16) {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let Some(body) = rest.get(16..length) else { break };
        changes.extend(change(kind, body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    changes
}

fn change(kind: u16, body: &[u8]) -> Option<(What, bool, Option<u32>)> {
    let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    Some(match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => (What::Link, kind == libc::RTM_DELLINK, word(4)),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => (What::Address, kind == libc::RTM_DELADDR, word(4)),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => (What::Route, kind == libc::RTM_DELROUTE, None),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => (What::Rule, kind == libc::RTM_DELRULE, None),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour(kind == libc::RTM_DELNEIGH, body)?,
        RTM_NEWNETCONF | RTM_DELNETCONF => (What::Setting, kind == RTM_DELNETCONF, None),
        _ => return None,
    })
}

const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;

/// Ordinary neighbours come and go with the traffic: only permanent ones, and what is deleted, are state.
fn neighbour(gone: bool, body: &[u8]) -> Option<(What, bool, Option<u32>)> {
    let family = i32::from(*body.first()?);
    let device = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    let what = if family == libc::AF_BRIDGE { What::Forwarding } else { What::Neighbour };
    (gone || state & PERMANENT != 0).then_some((what, gone, Some(device)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{Node, two_nodes};
    use std::time::{Duration, Instant};

    /// Waits for an announcement; the time since the change began.
    async fn after(changes: &mut mpsc::Receiver<Change>, began: Instant, what: What, gone: bool) -> Duration {
        let wanted = async {
            while let Some(change) = changes.recv().await {
                if (change.what, change.gone) == (what, gone) {
                    return began.elapsed();
                }
            }
            panic!("the watch ended");
        };
        let took = tokio::time::timeout(Duration::from_secs(5), wanted).await.unwrap_or_else(|_| panic!("{what:?} was not announced"));
        println!("{what:?} gone={gone}: announced after {took:?}");
        took
    }

    async fn all(node: &Node, changes: &mut mpsc::Receiver<Change>) -> Vec<Duration> {
        let mut took = Vec::new();
        let began = Instant::now();
        node.forget_route().await;
        took.push(after(changes, began, What::Route, true).await);
        let began = Instant::now();
        node.forget_forwarding().await;
        took.push(after(changes, began, What::Forwarding, true).await);
        let began = Instant::now();
        node.rule(5270, None, 52, None).await;
        took.push(after(changes, began, What::Rule, false).await);
        let began = Instant::now();
        node.address("tailscale0", [100, 64, 9, 9].into(), 32).await;
        took.push(after(changes, began, What::Address, false).await);
        let began = Instant::now();
        node.sysctl("net/ipv4/ip_forward", "0");
        took.push(after(changes, began, What::Setting, false).await);
        let began = Instant::now();
        node.delete("flannel.1").await;
        took.push(after(changes, began, What::Link, true).await);
        took
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_every_change_of_state_is_announced_within_200_ms() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let mut changes = changes(&[nodes.calypso.vantage.clone(), nodes.tethys.vantage.clone()]).unwrap();
        let took = all(&nodes.tethys, &mut changes).await;
        assert!(took.iter().all(|t| *t < Duration::from_millis(200)), "{took:?}");
        assert!(What::Forwarding.concerns().contains(&"flannel"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let neighbour =
            [28_u32.to_ne_bytes().as_slice(), &29_u16.to_ne_bytes(), &[0; 10], &[7, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, 0, 0]].concat();
        assert_eq!(parse(&neighbour), [(What::Forwarding, true, Some(3))]);
        for length in 0..neighbour.len() {
            parse(&neighbour[..length]);
        }
        for at in 0..neighbour.len() {
            for value in [0, 1, 16, 0xff] {
                let mut broken = neighbour.clone();
                broken[at] = value;
                parse(&broken);
            }
        }
    }

    #[test]
    fn every_concern_is_a_probe_kind() {
        for what in [What::Link, What::Address, What::Route, What::Rule, What::Neighbour, What::Forwarding, What::Setting, What::Overrun] {
            assert!(what.concerns().iter().all(|kind| crate::probe::Kind::find(kind).is_some()), "{what:?}");
        }
    }
}
