//! Tailscale has written 100.100.100.100 into the nodes' resolv.conf, has no upstream itself, and CoreDNS has inherited it.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};

const MAGIC_DNS: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);

pub(super) static FAULT: Fault = Fault {
    id: "magicdns-in-node-resolv",
    layer: 3,
    title: "the nodes and CoreDNS ask 100.100.100.100, which has no upstream",
    expects: "magicdns-in-node-resolv",
    decided_from: &["calypso", "tethys", "all"],
    apply: |twin| Box::pin(apply(twin)),
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_resolv(|resolv| resolv.nodes.clear());
            twin.servers.set_upstreams(twin.inventory.dns.upstream.iter().map(|ip| SocketAddrV4::new(*ip, 53)).collect());
            twin.servers.stop_node_resolvers().await;
            Ok(())
        })
    },
};

async fn apply(twin: &Twin) -> Result<()> {
    for overlay in &twin.overlays {
        overlay.wire.address("lo", MAGIC_DNS, 32).await?;
        twin.servers.start_magic_dns(&overlay.wire.net, SocketAddrV4::new(MAGIC_DNS, 53))?;
        let name = overlay.node.name.clone();
        twin.servers.set_resolv(|resolv| _ = resolv.nodes.insert(name, format!("nameserver {MAGIC_DNS}\n")));
    }
    twin.servers.set_upstreams(vec![SocketAddrV4::new(MAGIC_DNS, 53)]);
    Ok(())
}
