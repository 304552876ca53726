//! Tailscale and flannel on the twin's nodes.

use super::tailscaled::{Peer, Routing, TABLE, Tailscaled};
use super::topology::{ETHERNET_MTU, Hosts, POD_MTU};
use super::wire::{Policy, Vxlan, Wire};
use crate::def::Inventory;
use crate::def::inventory::{Declared, Node};
use crate::vantage::Source;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Mutex, PoisonError};

/// What the tailnet's preferences are, on a node that uses the exit node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// An exit node is selected.
    pub exit_node: bool,
    /// ExitNodeAllowLANAccess.
    pub lan_access: bool,
}

/// What tailscaled does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Daemon {
    /// It works.
    #[default]
    Running,
    /// `tailscale down`.
    Stopped,
    /// The node key has expired: it needs a login.
    KeyExpired,
    /// The process hangs.
    Hung,
    /// The process is gone.
    Gone,
}

/// A node's Tailscale and flannel.
#[derive(Debug)]
pub struct Overlay {
    /// The node as documented.
    pub node: Node,
    /// Its namespace.
    pub wire: Wire,
    /// Its tailscaled.
    pub tailscaled: Tailscaled,
    /// Hardware address of its flannel.1.
    pub vtep_mac: [u8; 6],
    preferences: Mutex<Preferences>,
    daemon: Mutex<Daemon>,
    subnet_env: std::sync::atomic::AtomicBool,
    inventory: std::sync::Arc<Inventory>,
}

/// The exceptions that keep cluster ranges out of table 52: priorities 5268 (services) and 5269 (pods).
pub const EXCEPTIONS: [u32; 2] = [5268, 5269];

fn active(inv: &Inventory) -> Vec<(u8, &Node, Ipv4Addr)> {
    let up = inv.nodes.iter().filter(|n| n.state == Declared::Up);
    up.zip(1_u8..).filter_map(|(node, id)| Some((id, node, node.tailscale?))).collect()
}

/// Brings Tailscale and flannel up on every node.
pub async fn build(hosts: &Hosts, inv: &std::sync::Arc<Inventory>) -> Result<Vec<Overlay>> {
    let mut overlays = Vec::new();
    for (id, node, address) in active(inv) {
        let wire = hosts[&node.name].clone();
        let peers = active(inv)
            .into_iter()
            .filter(|(other, _, _)| *other != id)
            .map(|(other, peer, ip)| Peer {
                id: other,
                endpoint: peer.public.map(|p| SocketAddrV4::new(p, 41641)),
                allowed: vec![Ipv4Net::from(ip)],
            })
            .collect();
        let tailscaled = Tailscaled::new(wire.clone(), id, address, &inv.tailnet.device, peers);
        tailscaled.start().await.with_context(|| format!("{}: tailscaled", node.name))?;
        let exit_node = inv.tailnet.exit_node.as_deref().is_some_and(|exit| exit != node.name);
        let overlay = Overlay {
            node: node.clone(),
            wire,
            tailscaled,
            vtep_mac: vtep_mac(id),
            subnet_env: std::sync::atomic::AtomicBool::new(true),
            preferences: Mutex::new(Preferences { exit_node, lan_access: exit_node }),
            daemon: Mutex::default(),
            inventory: inv.clone(),
        };
        overlay.set_preferences(overlay.preferences()).await?;
        if exit_node {
            overlay.lay_exceptions().await?;
        }
        overlay.make_flannel().await?;
        overlays.push(overlay);
    }
    for overlay in &overlays {
        overlay.lay_flannel_peers(&overlays).await?;
        overlay.tailscaled.ready().await?;
    }
    Ok(overlays)
}

/// A locally administered address, different on every node.
fn vtep_mac(id: u8) -> [u8; 6] {
    [0x6a, 0x7c, 0x8c, 0xdf, 0x23, 0x20 + id]
}

/// A hardware address as `ip link` prints it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

impl Overlay {
    /// Present preferences.
    pub fn preferences(&self) -> Preferences {
        *self.preferences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tailscaled does now.
    pub fn daemon(&self) -> Daemon {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops tailscaled, expires its key, hangs it, kills it, or brings it back to work.
    pub async fn set_daemon(&self, daemon: Daemon) -> Result<()> {
        let before = std::mem::replace(&mut *self.daemon.lock().unwrap_or_else(PoisonError::into_inner), daemon);
        match (before, daemon) {
            (_, Daemon::Stopped | Daemon::KeyExpired) => return self.tailscaled.withdraw().await,
            (_, Daemon::Gone) => return self.tailscaled.kill().await,
            (_, Daemon::Hung) => self.tailscaled.hang(true),
            (Daemon::Stopped | Daemon::KeyExpired, Daemon::Running) => {
                self.tailscaled.resume().await?;
                self.lay_routes().await?;
            }
            (Daemon::Gone, Daemon::Running) => {
                self.tailscaled.start().await?;
                self.lay_routes().await?;
            }
            (_, Daemon::Running) => self.tailscaled.hang(false),
        }
        Ok(())
    }

    /// Impairs what this node sends to another one through the tailnet.
    pub fn impair(&self, peer: &str, impairment: super::tailscaled::Impairment) {
        for (id, ..) in active(&self.inventory).into_iter().filter(|(_, node, _)| node.name == peer) {
            self.tailscaled.impair(id, impairment);
        }
    }

    /// Waits until every peer is reached straight.
    pub async fn until_direct(&self) -> Result<()> {
        self.until_paths(|path| matches!(path, super::tailscaled::Path::Direct(_))).await
    }

    /// Waits until every path is lost, relayed or direct, as wanted.
    pub async fn until_paths(&self, wanted: impl Fn(super::tailscaled::Path) -> bool + Copy) -> Result<()> {
        for (_, peer, address) in active(&self.inventory) {
            if peer.name != self.node.name {
                self.tailscaled.until(address, wanted).await?;
            }
        }
        Ok(())
    }

    /// Whether the exit node's offer is approved by control: without it no packet for the outside is accepted as the peer's.
    pub fn approve_exit(&self, approved: bool) {
        let exit = self.inventory.tailnet.exit_node.clone();
        for (id, peer, ip) in active(&self.inventory) {
            if exit.as_ref() == Some(&peer.name) && peer.name != self.node.name {
                let every = approved.then(Ipv4Net::default);
                self.tailscaled.allow(id, [Ipv4Net::from(ip)].into_iter().chain(every).collect());
            }
        }
    }

    /// Takes preferences over, as `tailscale set` does: AllowedIPs and table 52 follow.
    pub async fn set_preferences(&self, preferences: Preferences) -> Result<()> {
        *self.preferences.lock().unwrap_or_else(PoisonError::into_inner) = preferences;
        let exit = self.inventory.tailnet.exit_node.clone();
        for (id, peer, ip) in active(&self.inventory).into_iter().filter(|(_, n, _)| n.name != self.node.name) {
            let mut allowed = vec![Ipv4Net::from(ip)];
            if preferences.exit_node && exit.as_ref() == Some(&peer.name) {
                allowed.push(Ipv4Net::default());
            }
            self.tailscaled.allow(id, allowed);
        }
        self.lay_routes().await
    }

    async fn lay_routes(&self) -> Result<()> {
        let preferences = self.preferences();
        let peers = active(&self.inventory).into_iter().filter(|(_, n, _)| n.name != self.node.name).map(|(_, _, ip)| ip).collect();
        let attached = [Some(self.node.pod_cidr), self.node.lan_cidr].into_iter().flatten().collect();
        self.tailscaled.lay_routes(&Routing { peers, exit_node: preferences.exit_node, lan_access: preferences.lan_access, attached }).await
    }

    /// Lays the rules that keep the cluster's ranges in table main.
    pub async fn lay_exceptions(&self) -> Result<()> {
        self.drop_exceptions().await?;
        for (priority, to) in EXCEPTIONS.into_iter().zip([self.inventory.cluster.service_cidr, self.inventory.cluster.pod_cidr]) {
            self.wire.rule(Policy { priority, to: Some(to), mark: None, table: Some(254) }).await?;
        }
        Ok(())
    }

    /// Removes them.
    pub async fn drop_exceptions(&self) -> Result<()> {
        for priority in EXCEPTIONS {
            self.wire.delete_rules(priority).await?;
        }
        Ok(())
    }

    /// Restarts tailscaled: `tailscale0` is made anew, and flannel.1, which hangs on it, is gone afterwards.
    pub async fn restart_tailscaled(&self) -> Result<()> {
        self.tailscaled.stop().await?;
        self.tailscaled.start().await?;
        self.lay_routes().await?;
        self.tailscaled.ready().await
    }

    /// Whether flannel has written its subnet.env.
    pub fn set_subnet_env(&self, written: bool) {
        self.subnet_env.store(written, std::sync::atomic::Ordering::Relaxed);
    }

    /// flannel's subnet.env; a file that does not exist where it was not written.
    pub fn subnet_env(&self) -> Source {
        if !self.subnet_env.load(std::sync::atomic::Ordering::Relaxed) {
            return Source::File("/nonexistent/subnet.env".into());
        }
        let network = self.inventory.cluster.pod_cidr;
        let subnet = self.node.pod_cidr;
        let gateway = subnet.hosts().next().unwrap_or(subnet.network());
        Source::Text(format!(
            "FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={gateway}/{}\nFLANNEL_MTU={POD_MTU}\nFLANNEL_IPMASQ=true\n",
            subnet.prefix_len()
        ))
    }

    /// The address of its tunnel endpoint, as the inventory states it.
    pub fn vtep(&self) -> Result<Ipv4Addr> {
        self.inventory.vtep(&self.node).with_context(|| format!("{} has no address on the overlay's underlay", self.node.name))
    }

    /// Makes flannel.1 with its address, and nothing else.
    pub async fn make_flannel(&self) -> Result<()> {
        let overlay = &self.inventory.overlay;
        let local = self.vtep()?;
        let vxlan = Vxlan {
            name: overlay.device.clone(),
            parent: overlay.parent.clone(),
            vni: overlay.vni,
            port: overlay.port,
            local,
            mac: self.vtep_mac,
            mtu: if overlay.parent == self.inventory.tailnet.device { POD_MTU } else { ETHERNET_MTU - overlay.overhead_bytes },
        };
        self.wire.vxlan(&vxlan).await?;
        self.wire.address(&overlay.device, self.node.pod_cidr.network(), 32).await
    }

    /// Makes flannel.1 anew on another device and address, as a flannel without `--flannel-iface` does.
    pub async fn move_flannel(&self, parent: &str, local: Ipv4Addr) -> Result<()> {
        let overlay = &self.inventory.overlay;
        self.wire.delete_link(&overlay.device).await?;
        let vxlan = Vxlan {
            name: overlay.device.clone(),
            parent: parent.to_owned(),
            vni: overlay.vni,
            port: overlay.port,
            local,
            mac: self.vtep_mac,
            mtu: ETHERNET_MTU - overlay.overhead_bytes,
        };
        self.wire.vxlan(&vxlan).await?;
        self.wire.address(&overlay.device, self.node.pod_cidr.network(), 32).await
    }

    /// Programs the entries for one other node, which is reached at an address.
    pub async fn lay_flannel_peer(&self, peer: &Self, public_ip: Ipv4Addr) -> Result<()> {
        self.wire.flannel_peer(&self.inventory.overlay.device, peer.node.pod_cidr, peer.vtep_mac, public_ip).await
    }

    /// Programs route, neighbour and forwarding entry for every other node.
    pub async fn lay_flannel_peers(&self, all: &[Self]) -> Result<()> {
        for peer in all.iter().filter(|p| p.node.name != self.node.name) {
            let public_ip = peer.vtep()?;
            self.wire.flannel_peer(&self.inventory.overlay.device, peer.node.pod_cidr, peer.vtep_mac, public_ip).await?;
        }
        Ok(())
    }

    /// What a restart of K3s does: flannel.1 anew, with everything on it.
    pub async fn restart_k3s(&self, all: &[Self]) -> Result<()> {
        if self.wire.index(&self.inventory.overlay.device).await.is_err() {
            self.make_flannel().await?;
        }
        self.lay_flannel_peers(all).await
    }

    /// The routing table that Tailscale fills.
    pub fn table(&self) -> u32 {
        TABLE
    }
}
