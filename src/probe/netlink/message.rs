//! From rtnetlink messages to what probes need of them.

use super::{Device, Neighbour, Question, Route, Rule, Vxlan, mac_text};
use crate::check::clean;
use ipnet::Ipv4Net;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use std::net::{IpAddr, Ipv4Addr};

/// For fuzzers: takes a reply apart as the probes do; true if anything came of it.
pub(in crate::probe) fn understood(bytes: &[u8]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { return false };
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) => drop(device(m)),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(m)) => drop(route(m)),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(m)) => drop(neighbour(&m)),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRule(m)) => drop(rule(&m)),
        _ => return false,
    }
    true
}

pub(super) fn device(message: LinkMessage) -> Device {
    let flags = message.header.flags;
    let mut device = Device { index: message.header.index, up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp), ..Device::default() };
    let mut elsewhere = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::Address(mac) => device.mac = mac_text(&mac),
            LinkAttribute::Stats64(stats) => device.stats = stats,
            LinkAttribute::Link(index) if device.parent.is_none() => device.parent = Some(index),
            // The index below belongs to another namespace and means nothing here.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => link_info(&mut device, infos),
            _ => {}
        }
    }
    // The "link" of a veth is its other end, which is not below it.
    if elsewhere || device.kind == "veth" {
        device.parent = None;
    }
    device.parent = device.parent.filter(|p| *p != 0 && *p != device.index);
    device
}

fn link_info(device: &mut Device, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => device.kind = clean(&kind.to_string(), 32),
            LinkInfo::Data(InfoData::Vxlan(attributes)) => {
                let mut vxlan = Vxlan::default();
                for attribute in attributes {
                    match attribute {
                        InfoVxlan::Id(vni) => vxlan.vni = Some(vni),
                        InfoVxlan::Port(port) => vxlan.port = Some(port),
                        InfoVxlan::Local(local) => vxlan.local = Some(local),
                        InfoVxlan::Learning(learning) => vxlan.learning = Some(learning),
                        InfoVxlan::Link(index) => device.parent = Some(index),
                        _ => {}
                    }
                }
                device.vxlan = Some(vxlan);
            }
            _ => {}
        }
    }
}

/// `IFA_LOCAL` is the own address; `IFA_ADDRESS` would be the other end's on a point-to-point device.
pub(super) fn address(attributes: &[AddressAttribute], prefix: u8) -> Option<Ipv4Net> {
    let own = attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(own, prefix).ok()
}

fn inet(address: &RouteAddress) -> Option<Ipv4Addr> {
    match address {
        RouteAddress::Inet(address) => Some(*address),
        _ => None,
    }
}

pub(super) fn route(message: RouteMessage) -> Route {
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut route = Route {
        kind: message.header.kind,
        table: u32::from(message.header.table),
        prefix: Ipv4Net::default(),
        device: None,
        gateway: None,
        source: None,
        metric: 0,
        dead: message.header.flags.contains(RouteFlags::Dead),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = inet(to).unwrap_or(destination),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Gateway(via) => route.gateway = inet(via),
            RouteAttribute::PrefSource(source) => route.source = inet(source),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(hops) => {
                let hop = hops.first();
                route.device = route.device.or(hop.map(|h| h.interface_index));
                route.gateway = route.gateway.or_else(|| hop.and_then(gateway));
            }
            _ => {}
        }
    }
    route.prefix = Ipv4Net::new(destination, message.header.destination_prefix_length).unwrap_or_default();
    route
}

fn gateway(hop: &RouteNextHop) -> Option<Ipv4Addr> {
    hop.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(via) => inet(via),
        _ => None,
    })
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Neighbour {
    let mut found = Neighbour {
        device: message.header.ifindex,
        address: None,
        mac: String::new(),
        permanent: message.header.state == NeighbourState::Permanent,
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => found.address = Some(*address),
            // An outer destination of the AF_BRIDGE family comes as plain bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                found.address = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            NeighbourAttribute::LinkLayerAddress(mac) => found.mac = mac_text(mac),
            _ => {}
        }
    }
    found
}

pub(super) fn rule(message: &RuleMessage) -> Rule {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut rule = Rule {
        inverted: header.flags.contains(RuleFlags::Invert),
        more: header.tos > 0,
        goes_to: header.action == RuleAction::Goto,
        ..Rule::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(id) => table = *id,
            RuleAttribute::Destination(IpAddr::V4(to)) => rule.to = Ipv4Net::new(*to, header.dst_len).ok(),
            RuleAttribute::Source(IpAddr::V4(from)) => rule.from = Ipv4Net::new(*from, header.src_len).ok(),
            RuleAttribute::Iifname(name) => rule.iif.clone_from(name),
            RuleAttribute::Oifname(name) => rule.oif.clone_from(name),
            RuleAttribute::FwMark(mark) => rule.mark.0 = *mark,
            RuleAttribute::FwMask(mask) => rule.mark.1 = *mask,
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(_) | RuleAttribute::SuppressIfGroup(_) => rule.suppresses = true,
            RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::TunId(_)
            | RuleAttribute::L3MDev(true)
            | RuleAttribute::Other(_) => rule.more = true,
            _ => {}
        }
    }
    rule.table = (header.action == RuleAction::ToTable).then_some(table);
    rule
}

pub(super) fn request(question: Question) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(question.to, 32);
    if let Some(from) = question.from {
        builder = builder.source_prefix(from, 32);
    }
    if let Some(index) = question.iif {
        builder = builder.input_interface(index);
    }
    let mut message = builder.build();
    // Without this flag the kernel always answers "table main" (RTM_F_LOOKUP_TABLE, rtnetlink(7)).
    message.header.flags |= RouteFlags::LookupTable;
    if let Some(mark) = question.mark {
        message.attributes.push(RouteAttribute::Mark(mark));
    }
    message
}
