//! Laying links, addresses, routes and rules in one namespace, by netlink.

use crate::vantage::Net;
use anyhow::{Context, Result};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

/// A namespace of the twin with a netlink connection into it.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Host name, for messages.
    pub name: String,
    /// The namespace.
    pub net: Net,
    pub(super) handle: Handle,
}

/// A VXLAN device to make.
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// Device name.
    pub name: String,
    /// Device below.
    pub parent: String,
    /// Network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Outer source address.
    pub local: Ipv4Addr,
    /// Hardware address.
    pub mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
}

/// A policy routing rule.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Priority; lower is asked first.
    pub priority: u32,
    /// Only packets to this range.
    pub to: Option<Ipv4Net>,
    /// Only packets with this mark (value, mask).
    pub mark: Option<(u32, u32)>,
    /// The table to look up; `None` means unreachable.
    pub table: Option<u32>,
}

impl Wire {
    /// Opens a netlink connection inside the namespace and brings its loopback up.
    pub async fn open(name: &str, net: Net) -> Result<Self> {
        let (connection, handle, _) = net.with(rtnetlink::new_connection)?.with_context(|| format!("{name}: netlink"))?;
        tokio::spawn(connection);
        let wire = Self { name: name.to_owned(), net, handle };
        wire.up("lo").await?;
        // One ICMP error a second (the default) would hide every second refusal from a probe.
        wire.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        wire.sysctl("net/ipv4/ping_group_range", "0 0")?;
        wire.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        wire.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        Ok(wire)
    }

    /// Writes a setting of the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.net.with(|| std::fs::write(&path, value))?.with_context(|| format!("{}: {path} = {value}", self.name))
    }

    /// Whether a setting exists.
    pub fn has_sysctl(&self, key: &str) -> bool {
        let path = format!("/proc/sys/{key}");
        self.net.with(|| std::fs::exists(&path).unwrap_or(false)).unwrap_or(false)
    }

    /// Interface index by name.
    pub async fn index(&self, device: &str) -> Result<u32> {
        let found = self.handle.link().get().match_name(device.to_owned()).execute().try_next().await;
        let link = found
            .with_context(|| format!("{}: device {device}", self.name))?
            .with_context(|| format!("{}: no device {device}", self.name))?;
        Ok(link.header.index)
    }

    /// Whether an operation failed because its device does not exist.
    pub(super) fn is_missing(error: &anyhow::Error) -> bool {
        let kernel = error.downcast_ref::<rtnetlink::Error>();
        matches!(kernel, Some(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV)
    }

    /// Hardware address by name.
    pub async fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let found = self.handle.link().get().match_name(device.to_owned()).execute().try_next().await?;
        found
            .and_then(|link| {
                link.attributes.into_iter().find_map(|a| if let LinkAttribute::Address(mac) = a { mac.try_into().ok() } else { None })
            })
            .with_context(|| format!("{}: {device} has no hardware address", self.name))
    }

    /// Brings a device up.
    pub async fn up(&self, device: &str) -> Result<()> {
        let link = LinkUnspec::new_with_name(device).up().build();
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: bring {device} up", self.name))
    }

    /// Sets MTU and brings a device up.
    pub async fn up_with_mtu(&self, device: &str, mtu: u32) -> Result<()> {
        let link = LinkUnspec::new_with_name(device).mtu(mtu).up().build();
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: {device} mtu {mtu}", self.name))
    }

    /// Switches address resolution off, as on a TUN device.
    pub async fn no_arp(&self, device: &str) -> Result<()> {
        let mut link = LinkUnspec::new_with_name(device).build();
        link.header.flags |= LinkFlags::Noarp;
        link.header.change_mask |= LinkFlags::Noarp;
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: {device} arp off", self.name))
    }

    /// Removes a device; its children go with it.
    pub async fn delete_link(&self, device: &str) -> Result<()> {
        let index = self.index(device).await?;
        self.handle.link().del(index).execute().await.with_context(|| format!("{}: delete {device}", self.name))
    }

    /// Adds an address.
    pub async fn address(&self, device: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let index = self.index(device).await?;
        let added = self.handle.address().add(index, IpAddr::V4(address), prefix).execute().await;
        added.with_context(|| format!("{}: {address}/{prefix} on {device}", self.name))
    }

    /// Removes every IPv4 address of a device.
    pub async fn flush_addresses(&self, device: &str) -> Result<()> {
        let index = self.index(device).await?;
        let all: Vec<_> = self.handle.address().get().set_link_index_filter(index).execute().try_collect().await?;
        for address in all.into_iter().filter(|a| a.header.family == AddressFamily::Inet && a.header.index == index) {
            self.handle.address().del(address).execute().await.with_context(|| format!("{}: addresses of {device}", self.name))?;
        }
        Ok(())
    }

    /// Makes a pair of connected devices: `device` here, `peer_device` in the other namespace, both up.
    pub async fn veth(&self, device: &str, peer: &Self, peer_device: &str, mtu: u32) -> Result<()> {
        let Net::Ns(peer_ns) = &peer.net else { anyhow::bail!("{}: the twin has no host in the outer namespace", peer.name) };
        // `.up()` in the peer's part of the message is ENOTCONN; it is brought up in its own namespace afterwards.
        let other =
            LinkUnspec::new_with_name(peer_device).mtu(mtu).append_extra_attribute(LinkAttribute::NetNsFd(peer_ns.raw_fd())).build();
        let message = LinkMessageBuilder::<LinkVeth>::new(device, peer_device)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .mtu(mtu)
            .up()
            .build();
        self.handle.link().add(message).execute().await.with_context(|| format!("{}: veth {device} to {}", self.name, peer.name))?;
        peer.up(peer_device).await
    }

    /// Makes a bridge.
    pub async fn bridge(&self, device: &str, mtu: u32) -> Result<()> {
        let message = LinkBridge::new(device).mtu(mtu).up().build();
        self.handle.link().add(message).execute().await.with_context(|| format!("{}: bridge {device}", self.name))
    }

    /// Puts a device into a bridge.
    pub async fn enslave(&self, device: &str, bridge: &str) -> Result<()> {
        let controller = self.index(bridge).await?;
        let link = LinkUnspec::new_with_name(device).controller(controller).build();
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: {device} into {bridge}", self.name))
    }

    /// Lets a bridge send a packet back out of the port it came in by, as the CNI plugin does: a pod may be its own backend.
    pub async fn hairpin(&self, device: &str) -> Result<()> {
        let index = self.index(device).await?;
        let port = LinkBridgePort::new(index).hairpin(true).build();
        self.handle.link().set_port(port).execute().await.with_context(|| format!("{}: hairpin on {device}", self.name))
    }

    /// Makes a VXLAN device, up.
    pub async fn vxlan(&self, vxlan: &Vxlan) -> Result<()> {
        let parent = self.index(&vxlan.parent).await?;
        let message = LinkVxlan::new(&vxlan.name, vxlan.vni)
            .dev(parent)
            .local(vxlan.local)
            .port(vxlan.port)
            .learning(false)
            .address(vxlan.mac.to_vec())
            .mtu(vxlan.mtu)
            .up()
            .build();
        self.handle.link().add(message).execute().await.with_context(|| format!("{}: vxlan {}", self.name, vxlan.name))
    }

    /// What flannel programs for one peer: permanent neighbour, forwarding entry, onlink route.
    pub async fn flannel_peer(&self, device: &str, pod_cidr: Ipv4Net, mac: [u8; 6], public_ip: Ipv4Addr) -> Result<()> {
        let index = self.index(device).await?;
        let subnet = pod_cidr.network();
        let neighbours = self.handle.neighbours();
        let context = || format!("{}: flannel entries for {pod_cidr}", self.name);
        neighbours
            .add(index, IpAddr::V4(subnet))
            .link_layer_address(&mac)
            .state(NeighbourState::Permanent)
            .kind(RouteType::Unicast)
            .replace()
            .execute()
            .await
            .with_context(context)?;
        neighbours
            .add_bridge(index, &mac)
            .destination(IpAddr::V4(public_ip))
            .flags(NeighbourFlags::Own)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .with_context(context)?;
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(subnet, pod_cidr.prefix_len())
            .gateway(subnet)
            .output_interface(index)
            .protocol(RouteProtocol::Boot)
            .scope(RouteScope::Universe)
            .build();
        route.header.flags |= RouteFlags::Onlink;
        self.handle.route().add(route).replace().execute().await.with_context(context)
    }

    /// Adds a route in a table: through a gateway or straight out of a device.
    pub async fn route(&self, to: Ipv4Net, via: Option<Ipv4Addr>, device: &str, table: u32) -> Result<()> {
        let index = self.index(device).await?;
        let builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(RouteProtocol::Boot);
        let builder = match via {
            Some(gateway) => builder.gateway(gateway),
            None => builder,
        };
        self.handle
            .route()
            .add(builder.build())
            .replace()
            .execute()
            .await
            .with_context(|| format!("{}: route {to} dev {device} table {table}", self.name))
    }

    /// Removes a route of a table.
    pub async fn delete_route(&self, to: Ipv4Net, table: u32) -> Result<()> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Vec<RouteMessage> = self.handle.route().get(every).execute().try_collect().await?;
        let is_it = |r: &RouteMessage| {
            let network =
                r.attributes.iter().any(|a| matches!(a, RouteAttribute::Destination(RouteAddress::Inet(d)) if *d == to.network()));
            table_of(r) == table && r.header.destination_prefix_length == to.prefix_len() && network
        };
        for route in all.into_iter().filter(is_it) {
            self.handle.route().del(route).execute().await.with_context(|| format!("{}: delete route {to}", self.name))?;
        }
        Ok(())
    }

    /// Adds a `throw` route: the lookup goes on with the next rule.
    pub async fn throw(&self, to: Ipv4Net, table: u32) -> Result<()> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .table_id(table)
            .protocol(RouteProtocol::Boot)
            .build();
        route.header.kind = RouteType::Throw;
        self.handle.route().add(route).replace().execute().await.with_context(|| format!("{}: throw {to} table {table}", self.name))
    }

    /// Removes every route of a table.
    pub async fn flush_table(&self, table: u32) -> Result<()> {
        let all: Vec<RouteMessage> =
            self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute().try_collect().await?;
        for route in all.into_iter().filter(|r| table_of(r) == table) {
            self.handle.route().del(route).execute().await.with_context(|| format!("{}: flush table {table}", self.name))?;
        }
        Ok(())
    }

    /// Adds a policy routing rule.
    pub async fn rule(&self, policy: Policy) -> Result<()> {
        let mut request = self.handle.rule().add().v4().priority(policy.priority);
        if let Some(to) = policy.to {
            request = request.destination_prefix(to.network(), to.prefix_len());
        }
        let mut request = match policy.table {
            Some(table) => request.table_id(table).action(RuleAction::ToTable),
            None => request.table_id(0).action(RuleAction::Unreachable),
        };
        if let Some((mark, mask)) = policy.mark {
            let attributes = &mut request.message_mut().attributes;
            attributes.push(RuleAttribute::FwMark(mark));
            attributes.push(RuleAttribute::FwMask(mask));
        }
        request.execute().await.with_context(|| format!("{}: rule {}", self.name, policy.priority))
    }

    /// Removes every rule of a priority.
    pub async fn delete_rules(&self, priority: u32) -> Result<()> {
        let rules: Vec<_> = self.handle.rule().get(rtnetlink::IpVersion::V4).execute().try_collect().await?;
        for rule in rules.into_iter().filter(|r| r.attributes.iter().any(|a| matches!(a, RuleAttribute::Priority(p) if *p == priority))) {
            self.handle.rule().del(rule).execute().await.with_context(|| format!("{}: delete rule {priority}", self.name))?;
        }
        Ok(())
    }
}

fn table_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|a| if let RouteAttribute::Table(t) = a { Some(*t) } else { None })
        .unwrap_or(u32::from(route.header.table))
}
