//! Reading the kernel's network configuration by rtnetlink(7), inside a vantage's network.
//!
//! Only dumps and `RTM_GETROUTE`: nothing here can change anything. Every call ends by the deadline that the handle was
//! opened with, and no list grows without bound.

mod message;
mod policy;

pub(super) use policy::{Rule, selected};

#[cfg(test)]
pub(in crate::probe) use hostile::sample;
pub(in crate::probe) use message::understood;

use crate::vantage::Net;
use futures::{Stream, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::Stats64;
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Routing table `main` (rtnetlink(7), RT_TABLE_MAIN).
pub(super) const TABLE_MAIN: u32 = 254;

/// The kernel answers from memory: longer than this means that something is wrong.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most entries of one list. A cluster node has some hundreds; a list that is cut would make "not found" a lie, so a
/// longer one is an error.
const MOST: usize = 20_000;

/// An open netlink socket. It keeps the network namespace in which it was opened.
pub(super) struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
    deadline: Instant,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A network device.
#[derive(Clone, Debug, Default)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// `vxlan`, `veth`, `tun`, ...; empty for devices without link info, such as a physical one.
    pub(super) kind: String,
    pub(super) mtu: u32,
    /// Lower case with colons; empty where the device has no Ethernet address.
    pub(super) mac: String,
    /// Administratively up and the layer below too. The operational state is no help: VXLAN and TUN report UNKNOWN.
    pub(super) up: bool,
    /// Index of the device below, within the same namespace.
    pub(super) parent: Option<u32>,
    pub(super) vxlan: Option<Vxlan>,
    pub(super) stats: Stats64,
}

/// What a VXLAN device was created with.
#[derive(Clone, Debug, Default)]
pub(super) struct Vxlan {
    pub(super) vni: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) local: Option<Ipv4Addr>,
    pub(super) learning: Option<bool>,
}

/// An IPv4 route, as a table holds it or as `RTM_GETROUTE` answers.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) kind: RouteType,
    pub(super) table: u32,
    pub(super) prefix: Ipv4Net,
    /// Outgoing device; of the first next hop if there are several.
    pub(super) device: Option<u32>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) source: Option<Ipv4Addr>,
    pub(super) metric: u32,
    /// The kernel does not use it at present (its device is down).
    pub(super) dead: bool,
}

/// A neighbour (ARP) entry, or a forwarding entry (FDB) of a bridge or VXLAN device.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) device: u32,
    /// The neighbour's address; for a forwarding entry the outer destination.
    pub(super) address: Option<Ipv4Addr>,
    /// Lower case with colons; empty if not resolved.
    pub(super) mac: String,
    pub(super) permanent: bool,
}

/// A question for `RTM_GETROUTE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) to: Ipv4Addr,
    pub(super) from: Option<Ipv4Addr>,
    /// Index of the device by which the packet would come in.
    pub(super) iif: Option<u32>,
    pub(super) mark: Option<u32>,
}

impl Netlink {
    /// Opens a netlink socket in a network.
    pub(super) fn open(net: &Net, deadline: Instant) -> Result<Self, String> {
        let (connection, handle, _) =
            net.with(rtnetlink::new_connection).and_then(|opened| opened).map_err(|e| format!("cannot open a netlink socket: {e}"))?;
        Ok(Self { handle, task: tokio::spawn(connection), deadline })
    }

    /// Every network device.
    pub(super) async fn devices(&self) -> Result<Vec<Device>, String> {
        let messages = self.all("devices", self.handle.link().get().execute()).await?;
        Ok(messages.into_iter().map(message::device).collect())
    }

    /// IPv4 addresses of a device.
    pub(super) async fn addresses(&self, device: u32) -> Result<Vec<Ipv4Net>, String> {
        let messages = self.all("addresses", self.handle.address().get().set_link_index_filter(device).execute()).await?;
        Ok(messages.iter().filter_map(|m| message::address(&m.attributes, m.header.prefix_len)).collect())
    }

    /// IPv4 routes of one table.
    pub(super) async fn routes(&self, table: u32) -> Result<Vec<Route>, String> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages = self.all("routes", self.handle.route().get(every).execute()).await?;
        Ok(messages.into_iter().map(message::route).filter(|r| r.table == table).collect())
    }

    /// IPv4 neighbours of a device.
    pub(super) async fn neighbours(&self, device: u32) -> Result<Vec<Neighbour>, String> {
        self.entries(device, AddressFamily::Inet).await
    }

    /// Forwarding entries (FDB) of a device.
    pub(super) async fn forwarding(&self, device: u32) -> Result<Vec<Neighbour>, String> {
        self.entries(device, AddressFamily::Bridge).await
    }

    async fn entries(&self, device: u32, family: AddressFamily) -> Result<Vec<Neighbour>, String> {
        let messages = self.all("neighbours", self.handle.neighbours().get().set_address_family(family).execute()).await?;
        Ok(messages.iter().map(message::neighbour).filter(|n| n.device == device).collect())
    }

    /// IPv4 rules of the routing policy.
    pub(super) async fn rules(&self) -> Result<Vec<Rule>, String> {
        let messages = self.all("rules", self.handle.rule().get(IpVersion::V4).execute()).await?;
        Ok(messages.iter().map(message::rule).collect())
    }

    /// What the kernel would do with a packet. The inner error is the kernel's own refusal, such as ENETUNREACH.
    pub(super) async fn lookup(&self, question: Question) -> Result<Result<Route, io::Error>, String> {
        let answers = self.handle.route().get(message::request(question)).execute();
        let mut answers = std::pin::pin!(answers);
        match timeout(self.patience(), answers.try_next()).await {
            Err(_) => Err("netlink did not answer in time".to_owned()),
            Ok(Ok(Some(answer))) => Ok(Ok(message::route(answer))),
            Ok(Ok(None)) => Err("netlink gave no answer about the route".to_owned()),
            Ok(Err(rtnetlink::Error::NetlinkError(refusal))) => Ok(Err(refusal.to_io())),
            Ok(Err(error)) => Err(format!("netlink: {error}")),
        }
    }

    fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(PATIENCE)
    }

    async fn all<T>(&self, what: &str, stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, String> {
        let gather = async {
            let mut stream = std::pin::pin!(stream);
            let mut items = Vec::new();
            while let Some(item) = stream.try_next().await.map_err(|e| format!("netlink cannot list {what}: {e}"))? {
                if items.len() == MOST {
                    return Err(format!("netlink lists more than {MOST} {what}"));
                }
                items.push(item);
            }
            Ok(items)
        };
        timeout(self.patience(), gather).await.unwrap_or_else(|_| Err(format!("netlink did not list {what} in time")))
    }
}

/// A hardware address as text; empty unless it is an Ethernet one.
pub(super) fn mac_text(bytes: &[u8]) -> String {
    match bytes {
        [a, b, c, d, e, f] => format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        _ => String::new(),
    }
}

/// The route that the longest prefix decides, among routes of one table (RFC 1812, section 5.2.4.3; on a tie the lower
/// metric).
pub(super) fn longest_match(routes: &[Route], to: Ipv4Addr) -> Option<&Route> {
    routes
        .iter()
        .filter(|r| !r.dead && r.prefix.contains(&to))
        .max_by_key(|r| (r.prefix.prefix_len(), std::cmp::Reverse(r.metric)))
        .filter(|r| r.kind != RouteType::Throw)
}

#[cfg(test)]
mod captured;
#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    fn to(prefix: &str, device: u32, metric: u32) -> Route {
        Route {
            kind: RouteType::Unicast,
            table: TABLE_MAIN,
            prefix: prefix.parse().unwrap(),
            device: Some(device),
            gateway: None,
            source: None,
            metric,
            dead: false,
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lower_metric() {
        let routes = [to("0.0.0.0/0", 1, 0), to("10.42.0.0/16", 2, 0), to("10.42.2.0/24", 3, 100), to("10.42.2.0/24", 4, 50)];
        let device = |address: &str| longest_match(&routes, address.parse().unwrap()).and_then(|r| r.device);
        assert_eq!(device("10.42.2.7"), Some(4));
        assert_eq!(device("10.42.3.1"), Some(2));
        assert_eq!(device("8.8.8.8"), Some(1));
        assert!(longest_match(&routes[1..], "8.8.8.8".parse().unwrap()).is_none());
    }

    #[test]
    fn only_ethernet_addresses_become_text() {
        assert_eq!(mac_text(&[0xb6, 0x49, 0xe4, 0xe5, 0x43, 0xbe]), "b6:49:e4:e5:43:be");
        assert_eq!(mac_text(&[127, 0, 0, 1]), "");
    }
}
