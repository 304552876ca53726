//! Two nodes in two network namespaces, for the tests of the probes: `tailscale0` is a veth, `flannel.1` a VXLAN device
//! with the entries that flannel writes. Everything is held by file descriptors and goes away with the test.

use super::{Context, Kind};
use crate::check::Observation;
use crate::def::Inventory;
use crate::vantage::{HostFiles, Net, NetNs, Transport, Vantage, VantageKind};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const TETHYS: Ipv4Addr = Ipv4Addr::new(100, 95, 51, 125);
pub(crate) const CALYPSO: Ipv4Addr = Ipv4Addr::new(100, 83, 53, 38);
const MAC_TETHYS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_CALYPSO: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SUBNET_TETHYS: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 0);
const SUBNET_CALYPSO: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 0);

/// The pair. Healthy at first.
pub(crate) struct Nodes {
    pub(crate) tethys: Node,
    pub(crate) calypso: Node,
}

/// One node: its namespace, a netlink handle in it, and the vantage that probes get.
pub(crate) struct Node {
    pub(crate) ns: NetNs,
    pub(crate) vantage: Arc<Vantage>,
    handle: Handle,
}

/// Builds both nodes.
pub(crate) async fn two_nodes() -> Nodes {
    let (tethys, calypso) = (Node::create("tethys"), Node::create("calypso"));
    for node in [&tethys, &calypso] {
        node.up("lo").await;
        node.sysctl("net/ipv4/ip_forward", "1");
    }
    tethys.veth("tailscale0", &calypso).await;
    tethys.underlay(TETHYS).await;
    calypso.underlay(CALYPSO).await;
    tethys.overlay(TETHYS, MAC_TETHYS, SUBNET_TETHYS).await;
    calypso.overlay(CALYPSO, MAC_CALYPSO, SUBNET_CALYPSO).await;
    tethys.peer(SUBNET_CALYPSO, MAC_CALYPSO, CALYPSO).await;
    calypso.peer(SUBNET_TETHYS, MAC_TETHYS, TETHYS).await;
    Nodes { tethys, calypso }
}

/// Runs a probe from a node, with an optional witness.
pub(crate) async fn observe(kind: &str, with: &str, from: &Node, witness: Option<&Node>) -> Observation {
    observe_with(kind, with, context(from.vantage.clone(), witness.map(|w| w.vantage.clone()))).await
}

/// Runs a probe from any vantage.
pub(crate) async fn observe_at(kind: &str, with: &str, from: Arc<Vantage>) -> Observation {
    observe_with(kind, with, context(from, None)).await
}

async fn observe_with(kind: &str, with: &str, cx: Context) -> Observation {
    let table: toml::Table = with.parse().expect("arguments are TOML");
    let probe = (Kind::find(kind).expect("a kind").decode)(&table).expect("arguments decode");
    probe.observe(&cx).await
}

/// The context of a probe that may take ten seconds.
pub(crate) fn context(vantage: Arc<Vantage>, witness: Option<Arc<Vantage>>) -> Context {
    Context { vantage, witness, inventory: Arc::new(inventory()), deadline: Instant::now() + Duration::from_secs(10) }
}

fn inventory() -> Inventory {
    toml::from_str(
        r#"
        name = "test"
        document = "none"
        [cluster]
        version = "v1.33.4+k3s1"
        domain = "cluster.local"
        pod_cidr = "10.42.0.0/16"
        service_cidr = "10.43.0.0/16"
        api = "10.43.0.1:443"
        api_endpoint = "100.95.51.125:6443"
        [overlay]
        device = "flannel.1"
        vni = 1
        port = 8472
        parent = "tailscale0"
        overhead_bytes = 50
        bridge = "cni0"
        [tailnet]
        name = "test"
        cidr = "100.64.0.0/10"
        device = "tailscale0"
        table = 52
        [dns]
        nameserver = "10.43.0.10"
        search = []
        ndots = 5
        upstream = []
        internal_name = "a"
        internal_answer = "a"
        external_name = "a"
        [egress]
        address = "157.173.210.123"
        echoes = []
        "#,
    )
    .expect("a small inventory")
}

/// A vantage of any kind in a network.
pub(crate) fn vantage(id: &str, kind: VantageKind, net: Net, files: HostFiles) -> Arc<Vantage> {
    Arc::new(Vantage {
        id: id.to_owned(),
        kind,
        transport: Transport::Netns,
        why: "test".to_owned(),
        node: Some(id.to_owned()),
        net,
        files,
    })
}

impl Node {
    fn create(name: &str) -> Self {
        let ns = NetNs::create(name).expect("tests that make namespaces need CAP_SYS_ADMIN");
        let (connection, handle, _) = ns.with(rtnetlink::new_connection).expect("enter").expect("netlink");
        tokio::spawn(connection);
        let vantage = vantage(name, VantageKind::Node, Net::Ns(ns.clone()), HostFiles::default());
        Self { ns, vantage, handle }
    }

    pub(crate) async fn index(&self, device: &str) -> u32 {
        let found = self.handle.link().get().match_name(device.to_owned()).execute().try_next().await;
        found.expect("a device").expect("a device").header.index
    }

    async fn up(&self, device: &str) {
        self.handle.link().set(LinkUnspec::new_with_name(device).up().build()).execute().await.expect("up");
    }

    pub(crate) async fn down(&self, device: &str) {
        self.handle.link().set(LinkUnspec::new_with_name(device).down().build()).execute().await.expect("down");
    }

    pub(crate) async fn delete(&self, device: &str) {
        self.handle.link().del(self.index(device).await).execute().await.expect("delete");
    }

    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.ns.with(|| std::fs::write(format!("/proc/sys/{path}"), value)).expect("enter").expect("a writable setting");
    }

    async fn veth(&self, name: &str, other: &Self) {
        let peer = LinkUnspec::new_with_name(name).mtu(1280).append_extra_attribute(LinkAttribute::NetNsFd(other.ns.raw_fd())).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(name, name).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).mtu(1280).up();
        self.handle.link().add(pair.build()).execute().await.expect("veth");
        other.up(name).await;
    }

    async fn underlay(&self, own: Ipv4Addr) {
        self.address("tailscale0", own, 32).await;
        let index = self.index("tailscale0").await;
        let tailnet = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::new(100, 64, 0, 0), 10);
        self.add_route(tailnet.output_interface(index).scope(RouteScope::Link).build()).await;
    }

    pub(crate) async fn address(&self, device: &str, address: Ipv4Addr, prefix: u8) {
        let index = self.index(device).await;
        self.handle.address().add(index, IpAddr::V4(address), prefix).execute().await.expect("address");
    }

    async fn overlay(&self, local: Ipv4Addr, mac: [u8; 6], subnet: Ipv4Addr) {
        let parent = self.index("tailscale0").await;
        let device = LinkVxlan::new("flannel.1", 1).dev(parent).local(local).port(8472).learning(false);
        self.handle.link().add(device.address(mac.to_vec()).mtu(1230).up().build()).execute().await.expect("vxlan");
        self.address("flannel.1", subnet, 32).await;
    }

    async fn peer(&self, subnet: Ipv4Addr, mac: [u8; 6], vtep: Ipv4Addr) {
        let index = self.index("flannel.1").await;
        let neighbour = self.handle.neighbours().add(index, IpAddr::V4(subnet)).link_layer_address(&mac);
        neighbour.state(NeighbourState::Permanent).kind(RouteType::Unicast).execute().await.expect("neighbour");
        let entry = self.handle.neighbours().add_bridge(index, &mac).destination(IpAddr::V4(vtep));
        entry.flags(NeighbourFlags::Own).state(NeighbourState::Permanent).execute().await.expect("FDB");
        let pods = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(subnet, 24).gateway(subnet).output_interface(index);
        let mut route = pods.protocol(RouteProtocol::Boot).scope(RouteScope::Universe).build();
        route.header.flags |= RouteFlags::Onlink;
        self.add_route(route).await;
    }

    async fn add_route(&self, route: RouteMessage) {
        self.handle.route().add(route).execute().await.expect("route");
    }

    pub(crate) async fn default_route_in_table(&self, table: u32, device: &str) {
        let index = self.index(device).await;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(table).output_interface(index).scope(RouteScope::Link);
        self.add_route(route.build()).await;
    }

    pub(crate) async fn unreachable(&self, prefix: &str) {
        let prefix: Ipv4Net = prefix.parse().expect("a prefix");
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(prefix.network(), prefix.prefix_len());
        self.add_route(route.kind(RouteType::Unreachable).build()).await;
    }

    pub(crate) async fn rule(&self, priority: u32, to: Option<&str>, table: u32, mark: Option<u32>) {
        let mut request = self.handle.rule().add().v4().priority(priority).table_id(table).action(RuleAction::ToTable);
        if let Some(to) = to {
            let to: Ipv4Net = to.parse().expect("a prefix");
            request = request.destination_prefix(to.network(), to.prefix_len());
        }
        if let Some(mark) = mark {
            request.message_mut().attributes.push(RuleAttribute::FwMark(mark));
        }
        request.execute().await.expect("rule");
    }

    /// Deletes the forwarding entry of the peer's VXLAN device.
    pub(crate) async fn forget_forwarding(&self) {
        let mac = if self.vantage.id == "tethys" { MAC_CALYPSO } else { MAC_TETHYS };
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = self.index("flannel.1").await;
        entry.header.flags = NeighbourFlags::Own;
        entry.header.state = NeighbourState::Permanent;
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.handle.neighbours().del(entry).execute().await.expect("FDB entry");
    }

    /// Deletes the permanent neighbour for the peer's VXLAN device.
    pub(crate) async fn forget_neighbour(&self) {
        let subnet = if self.vantage.id == "tethys" { SUBNET_CALYPSO } else { SUBNET_TETHYS };
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Inet;
        entry.header.ifindex = self.index("flannel.1").await;
        entry.header.state = NeighbourState::Permanent;
        entry.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(subnet)));
        self.handle.neighbours().del(entry).execute().await.expect("neighbour");
    }

    /// Deletes the route to the peer's pods.
    pub(crate) async fn forget_route(&self) {
        let subnet = if self.vantage.id == "tethys" { SUBNET_CALYPSO } else { SUBNET_TETHYS };
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(subnet, 24).protocol(RouteProtocol::Boot);
        self.handle.route().del(route.scope(RouteScope::Universe).build()).execute().await.expect("route");
    }
}
