//! Changes of the network's state as the kernel announces them (rtnetlink(7) multicast groups), per vantage: no polling.

use crate::vantage::netlink::{find, receive};
use crate::vantage::{Net, Vantage};
use std::collections::HashMap;
use std::fmt;
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
    /// Name of the device, where the announcement is about one.
    pub device: Option<String>,
}

impl fmt::Display for Change {
    /// `flannel.1 deleted on calypso`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.as_deref();
        let named = |what: &str| device.map_or_else(|| what.to_owned(), |device| format!("{what} of {device}"));
        let verb = if self.gone { "deleted" } else { "set" };
        match self.what {
            What::Link => write!(f, "{} {}", device.unwrap_or("a device"), if self.gone { "deleted" } else { "changed" })?,
            What::Address => write!(f, "{} {verb}", named("an address"))?,
            What::Route => write!(f, "{} {verb}", named("a route"))?,
            What::Rule => write!(f, "a routing rule {verb}")?,
            What::Neighbour => write!(f, "{} {verb}", named("a neighbour"))?,
            What::Forwarding => write!(f, "{} {verb}", named("a forwarding entry"))?,
            What::Setting => write!(f, "{} changed", named("an IPv4 setting"))?,
            What::Overrun => f.write_str("more changes than could be read")?,
        }
        write!(f, " on {}", self.vantage)
    }
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
/// later change is missed. `overlay` is the VXLAN device: neighbours of other devices expire with the traffic and are no
/// state. The error names the vantage that cannot be watched.
#[expect(deprecated, reason = "AsyncFd's replacement is unsafe; the descriptor is owned for as long as it lives")]
pub fn changes(vantages: &[Arc<Vantage>], overlay: &str) -> Result<mpsc::Receiver<Change>, String> {
    let (announce, changes) = mpsc::channel(MOST);
    for vantage in vantages {
        let said = |e: io::Error| format!("{} cannot be watched: {e}", vantage.id);
        let socket = subscribe(&vantage.net).and_then(AsyncFd::new).map_err(said)?;
        // Read after subscribing: a device that appears in between is announced as well.
        let devices = vantage.net.with(devices).map_err(said)?;
        let watcher = Watcher { vantage: vantage.id.clone(), overlay: overlay.to_owned(), devices, announce: announce.clone() };
        tokio::spawn(watcher.watch(socket));
    }
    Ok(changes)
}

/// Devices by index. An announcement of an address or a neighbour has only the index.
fn devices() -> HashMap<u32, String> {
    let list = nix::net::if_::if_nameindex();
    list.iter().flat_map(|list| list.iter()).map(|i| (i.index(), i.name().to_string_lossy().into_owned())).collect()
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

/// One vantage's announcements, made into changes.
struct Watcher {
    vantage: String,
    overlay: String,
    devices: HashMap<u32, String>,
    announce: mpsc::Sender<Change>,
}

impl Watcher {
    async fn watch(mut self, socket: AsyncFd<OwnedFd>) {
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            let read = tokio::select! {
                () = self.announce.closed() => return,
                read = socket.async_io(Interest::READABLE, |fd| receive(fd, &mut buffer)) => read,
            };
            let seen = match read {
                Ok(length) => parse(&buffer[..length.min(buffer.len())]),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    vec![Seen { what: What::Overrun, gone: false, device: None, name: None }]
                }
                Err(_) => return,
            };
            for seen in seen {
                if let Some(change) = self.change(seen) {
                    // A full queue holds unread changes already.
                    let _ = self.announce.try_send(change);
                }
            }
        }
    }

    /// What an announcement means here; `None` if it is everyday business.
    fn change(&mut self, seen: Seen) -> Option<Change> {
        let Seen { what, gone, device, name } = seen;
        let device = name.clone().or_else(|| self.devices.get(&device?).cloned());
        if let (What::Link, Some(index), Some(name)) = (what, seen.device, name) {
            if gone {
                self.devices.remove(&index);
            } else if self.devices.len() < MOST_DEVICES {
                self.devices.insert(index, name);
            }
        }
        let everyday = match what {
            // The kernel's name for one end of a pair: pods come and go.
            What::Link | What::Address | What::Setting => device.as_deref().is_some_and(|name| name.starts_with("veth")),
            What::Neighbour => gone && device.as_ref() != Some(&self.overlay),
            _ => false,
        };
        (!everyday).then(|| Change { vantage: self.vantage.clone(), what, gone, device })
    }
}

/// Names that are remembered.
const MOST_DEVICES: usize = 4096;

/// One announcement as the kernel wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    what: What,
    gone: bool,
    device: Option<u32>,
    name: Option<String>,
}

/// The announcements of one datagram. Anything may come: every length is checked.
fn parse(mut rest: &[u8]) -> Vec<Seen> {
    let mut changes = Vec::new();
    while let Some(head) = rest.get(..16) {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let Some(body) = rest.get(16..length) else { break };
        changes.extend(announcement(kind, body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    changes
}

fn announcement(kind: u16, body: &[u8]) -> Option<Seen> {
    let seen = |what, last, device, name| Some(Seen { what, gone: kind == last, device, name });
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link(kind == libc::RTM_DELLINK, body),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => seen(What::Address, libc::RTM_DELADDR, word(body, 4), None),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let device = attribute(body, ROUTE_HEADER, libc::RTA_OIF).and_then(|value| word(value, 0));
            seen(What::Route, libc::RTM_DELROUTE, device, None)
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE => seen(What::Rule, libc::RTM_DELRULE, None, None),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour(kind == libc::RTM_DELNEIGH, body),
        // Its deletion comes with the device's.
        RTM_NEWNETCONF => {
            let device = attribute(body, NETCONF_HEADER, NETCONFA_IFINDEX).and_then(|value| word(value, 0));
            seen(What::Setting, RTM_DELNETCONF, device, None)
        }
        _ => None,
    }
}

const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const NETCONFA_IFINDEX: u16 = 1;
/// Bytes before the attributes: struct ifinfomsg, struct rtmsg, struct netconfmsg.
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const NETCONF_HEADER: usize = 4;
/// struct ndmsg, `ndm_flags`: the entry is the device's own and not its bridge's.
const NTF_SELF: u8 = 2;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The first attribute of a kind, after a header.
fn attribute(body: &[u8], header: usize, wanted: u16) -> Option<&[u8]> {
    find(body.get(header..)?, wanted)
}

/// A bridge announces the loss of a port as the deletion of a link of its own family: the device is still there.
fn link(gone: bool, body: &[u8]) -> Option<Seen> {
    if i32::from(*body.first()?) == libc::AF_BRIDGE {
        return None;
    }
    let name = attribute(body, LINK_HEADER, libc::IFLA_IFNAME).map(|name| {
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    });
    Some(Seen { what: What::Link, gone, device: word(body, 4), name })
}

/// Ordinary neighbours come and go with the traffic, and a bridge learns: only what is permanent, or is deleted, is state.
fn neighbour(gone: bool, body: &[u8]) -> Option<Seen> {
    let family = i32::from(*body.first()?);
    let device = word(body, 4)?;
    let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    let own = body.get(10)? & NTF_SELF != 0;
    let what = if family == libc::AF_BRIDGE { What::Forwarding } else { What::Neighbour };
    let matters = (gone || state & PERMANENT != 0) && (what == What::Neighbour || own);
    matters.then_some(Seen { what, gone, device: Some(device), name: None })
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
        node.forget_neighbour().await;
        took.push(after(changes, began, What::Neighbour, true).await);
        let began = Instant::now();
        node.rule(5270, None, 52, None).await;
        took.push(after(changes, began, What::Rule, false).await);
        let began = Instant::now();
        node.address("tailscale0", [100, 64, 9, 9].into(), 32).await;
        took.push(after(changes, began, What::Address, false).await);
        let began = Instant::now();
        node.sysctl("net/ipv4/conf/tailscale0/rp_filter", "1");
        took.push(after(changes, began, What::Setting, false).await);
        let began = Instant::now();
        // Announced for each device; so it comes last of its kind.
        node.sysctl("net/ipv4/ip_forward", "0");
        took.push(after(changes, began, What::Setting, false).await);
        let began = Instant::now();
        node.down("flannel.1").await;
        took.push(after(changes, began, What::Link, false).await);
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
        let mut changes = changes(&[nodes.calypso.vantage.clone(), nodes.tethys.vantage.clone()], "flannel.1").unwrap();
        let took = all(&nodes.tethys, &mut changes).await;
        assert!(took.iter().all(|t| *t < Duration::from_millis(200)), "{took:?}");
        assert!(What::Forwarding.concerns().contains(&"flannel"));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let neighbour =
            [28_u32.to_ne_bytes().as_slice(), &29_u16.to_ne_bytes(), &[0; 10], &[7, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, NTF_SELF, 0]].concat();
        assert_eq!(parse(&neighbour), [Seen { what: What::Forwarding, gone: true, device: Some(3), name: None }]);
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
