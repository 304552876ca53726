//! Which documented place this machine is, by its own addresses.

use super::{HostFiles, Net, Source, Transport, UnixAddress, Vantage, VantageKind};
use crate::def::Inventory;
use crate::def::inventory::Node;
use std::net::Ipv4Addr;

/// tailscaled's socket on Linux (FORMATS: `/var/run` is `/run`).
const TAILSCALE_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// The vantage that fathom runs in.
pub fn here(inventory: &Inventory) -> Vantage {
    place(inventory, &local_addresses(), std::env::var_os("CI").is_some())
}

/// IPv4 addresses of this network namespace.
fn local_addresses() -> Vec<Ipv4Addr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces.filter_map(|i| Some(i.address?.as_sockaddr_in()?.ip())).filter(|ip| !ip.is_loopback()).collect()
}

fn place(inventory: &Inventory, addresses: &[Ipv4Addr], ci: bool) -> Vantage {
    if let Some((node, ip)) = inventory.nodes.iter().find_map(|n| Some((n, node_address(n, addresses)?))) {
        let files = HostFiles { tailscale_socket: Some(tailscale_socket(node)), ..HostFiles::default() };
        let why = format!("this machine has {ip}, an address of {}", node.name);
        return Vantage { files, ..local(node.name.clone(), VantageKind::Node, why, Some(node.name.clone())) };
    }
    if let Some(ip) = addresses.iter().find(|ip| inventory.cluster.pod_cidr.contains(*ip)) {
        let pod = inventory.pods.iter().find(|p| p.address == *ip);
        let id = pod.map_or_else(|| format!("pod:{ip}"), |p| format!("pod:{}/{}", p.namespace, p.name));
        let node = inventory.nodes.iter().find(|n| n.pod_cidr.contains(ip)).map(|n| n.name.clone());
        return local(id, VantageKind::Pod, format!("{ip} lies in the pod network {}", inventory.cluster.pod_cidr), node);
    }
    if ci {
        return local("ci".to_owned(), VantageKind::Ci, "the environment variable CI is set".to_owned(), None);
    }
    local("workstation".to_owned(), VantageKind::Workstation, "no address of this machine belongs to a node or a pod".to_owned(), None)
}

fn local(id: String, kind: VantageKind, why: String, node: Option<String>) -> Vantage {
    Vantage {
        id,
        kind,
        transport: Transport::Local,
        why,
        node,
        net: Net::Here,
        files: HostFiles { resolv_conf: Source::default(), ..HostFiles::default() },
    }
}

fn node_address(node: &Node, addresses: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    [node.tailscale, node.tailscale_also, node.public, node.lan].into_iter().flatten().find(|ip| addresses.contains(ip))
}

/// The socket of a node's tailscaled: as the inventory says, or the usual one.
pub(super) fn tailscale_socket(node: &Node) -> UnixAddress {
    UnixAddress::parse(node.tailscale_socket.as_deref().unwrap_or(TAILSCALE_SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{Catalog, Sources};

    #[test]
    fn places_are_told_by_their_addresses() {
        let catalog = Catalog::load(&Sources::default()).unwrap();
        let id = |ip: &str, ci| place(&catalog.inventory, &[ip.parse().unwrap()], ci).id;
        assert_eq!(id("192.168.2.110", false), "calypso");
        assert_eq!(id("100.95.51.125", false), "tethys");
        assert_eq!(id("10.42.0.234", false), "pod:apps/csv-ingestion-worker");
        assert_eq!(id("10.42.2.99", false), "pod:10.42.2.99");
        assert_eq!(id("192.0.2.1", false), "workstation");
        assert_eq!(id("192.0.2.1", true), "ci");
    }
}
