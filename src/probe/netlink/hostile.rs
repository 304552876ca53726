//! Replies of the kernel that break off or are garbage, as far as parsers see them.

use super::message;
use super::message::understood as parse;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use std::net::Ipv4Addr;

/// A reply about a device.
pub(in crate::probe) fn sample() -> Vec<u8> {
    replies().swap_remove(0)
}

fn replies() -> Vec<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName("flannel.1".to_owned()),
        LinkAttribute::Mtu(1230),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::Id(1),
                InfoVxlan::Port(8472),
                InfoVxlan::Local(Ipv4Addr::new(100, 95, 51, 125)),
            ])),
        ]),
    ];
    let mut route = RouteMessage::default();
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(10, 42, 2, 0))),
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 42, 2, 0))),
        RouteAttribute::Oif(4),
        RouteAttribute::Table(52),
    ];
    route.header.destination_prefix_length = 24;
    let mut neighbour = NeighbourMessage::default();
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 42, 2, 0))),
        NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 2]),
    ];
    let mut rule = RuleMessage::default();
    rule.attributes = vec![RuleAttribute::Table(52), RuleAttribute::Priority(5270), RuleAttribute::FwMark(0x80000)];
    let payloads = [
        RouteNetlinkMessage::NewLink(link),
        RouteNetlinkMessage::NewRoute(route),
        RouteNetlinkMessage::NewNeighbour(neighbour),
        RouteNetlinkMessage::NewRule(rule),
    ];
    payloads.into_iter().map(bytes).collect()
}

fn bytes(payload: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn replies_that_break_off_are_errors_and_none_makes_a_parser_panic() {
    for whole in replies() {
        assert!(parse(&whole), "the whole reply is understood");
        for length in 0..whole.len() {
            assert!(!parse(&whole[..length]), "{length} of {} bytes are no reply", whole.len());
        }
    }
}

#[test]
fn garbage_in_any_place_is_survived() {
    for whole in replies() {
        // The first four bytes are the length, which the socket's own framing has checked.
        for at in 4..whole.len() {
            for value in [0, 1, 3, 4, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                parse(&broken);
            }
        }
    }
}

#[test]
fn a_device_of_garbage_has_no_wrong_facts() {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::Address(vec![1; 300]), LinkAttribute::IfName("\u{1b}[31m".repeat(50))];
    let device = message::device(link);
    assert_eq!((device.mac.as_str(), device.up, device.vxlan.is_none(), device.parent), ("", false, true, None));
}
