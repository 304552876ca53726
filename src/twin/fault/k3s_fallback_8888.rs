//! The nodes' resolver is on a loopback address only, which pods cannot use: K3s gives CoreDNS 8.8.8.8 instead.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where a forwarder such as dnsmasq or a stub of systemd-resolved listens.
const LOCAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// What K3s writes in place of a resolv.conf without a usable nameserver.
const FALLBACK: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

pub(super) static FAULT: Fault = Fault {
    id: "k3s-fallback-8888",
    layer: 3,
    title: "the nodes name only a loopback resolver, and CoreDNS forwards to K3s' substitute",
    expects: "k3s-fallback-8888",
    decided_from: &["calypso", "tethys", "all"],
    apply: |twin| Box::pin(apply(twin)),
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_resolv(|resolv| {
                resolv.nodes.clear();
                resolv.no_systemd = false;
            });
            twin.servers.stop_node_resolvers().await;
            twin.servers.restart_coredns(&twin.hosts, &twin.cluster, &twin.inventory).await
        })
    },
};

async fn apply(twin: &Twin) -> Result<()> {
    for overlay in &twin.overlays {
        twin.servers.start_local_resolver(&overlay.wire.net, SocketAddrV4::new(LOCAL, 53), &twin.inventory)?;
        let name = overlay.node.name.clone();
        twin.servers.set_resolv(|resolv| _ = resolv.nodes.insert(name, format!("nameserver {LOCAL}\n")));
    }
    twin.servers.set_resolv(|resolv| resolv.no_systemd = true);
    twin.servers.restart_coredns_with(&twin.hosts, &twin.cluster, &twin.inventory, &[FALLBACK]).await
}
