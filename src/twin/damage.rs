//! Breaking what flannel laid in one namespace, entry by entry.

use super::wire::Wire;
use anyhow::{Context, Result};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

impl Wire {
    /// Gives a device another hardware address, as a udev policy may.
    pub async fn set_mac(&self, device: &str, mac: [u8; 6]) -> Result<()> {
        let link = LinkUnspec::new_with_name(device).address(mac.to_vec()).build();
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: hardware address of {device}", self.name))
    }

    /// Gives a device another MTU.
    pub async fn set_mtu(&self, device: &str, mtu: u32) -> Result<()> {
        let link = LinkUnspec::new_with_name(device).mtu(mtu).build();
        self.handle.link().set(link).execute().await.with_context(|| format!("{}: MTU of {device}", self.name))
    }

    /// Removes the route of a prefix through a device; there must be one.
    pub async fn delete_device_route(&self, prefix: Ipv4Net, device: &str) -> Result<()> {
        let index = self.index(device).await?;
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Vec<RouteMessage> = self.handle.route().get(every).execute().try_collect().await?;
        let route =
            all.into_iter().find(|r| goes(r, prefix, index)).with_context(|| format!("{}: no route {prefix} by {device}", self.name))?;
        self.handle.route().del(route).execute().await.with_context(|| format!("{}: delete route {prefix}", self.name))
    }

    /// Removes the permanent neighbour of an address.
    pub async fn delete_neighbour(&self, device: &str, address: Ipv4Addr) -> Result<()> {
        self.delete_entries(
            device,
            AddressFamily::Inet,
            |a| matches!(a, NeighbourAttribute::Destination(NeighbourAddress::Inet(d)) if *d == address),
        )
        .await
    }

    /// Removes the forwarding entry of a hardware address.
    pub async fn delete_forwarding(&self, device: &str, mac: [u8; 6]) -> Result<()> {
        self.delete_entries(device, AddressFamily::Bridge, |a| matches!(a, NeighbourAttribute::LinkLayerAddress(m) if m[..] == mac[..]))
            .await
    }

    /// Sends what is for a hardware address to another outer address.
    pub async fn redirect_forwarding(&self, device: &str, mac: [u8; 6], to: Ipv4Addr) -> Result<()> {
        let index = self.index(device).await?;
        let entry = self.handle.neighbours().add_bridge(index, &mac).destination(IpAddr::V4(to)).flags(NeighbourFlags::Own);
        let laid = entry.state(NeighbourState::Permanent).replace().execute().await;
        laid.with_context(|| format!("{}: forwarding entry to {to}", self.name))
    }

    async fn delete_entries(&self, device: &str, family: AddressFamily, is: impl Fn(&NeighbourAttribute) -> bool) -> Result<()> {
        let index = self.index(device).await?;
        let all: Vec<_> = self.handle.neighbours().get().set_address_family(family).execute().try_collect().await?;
        for entry in all.into_iter().filter(|e| e.header.ifindex == index && e.attributes.iter().any(&is)) {
            self.handle.neighbours().del(entry).execute().await.with_context(|| format!("{}: delete an entry of {device}", self.name))?;
        }
        Ok(())
    }
}

fn goes(route: &RouteMessage, prefix: Ipv4Net, index: u32) -> bool {
    let to = |a: &RouteAttribute| matches!(a, RouteAttribute::Destination(RouteAddress::Inet(d)) if *d == prefix.network());
    let by = |a: &RouteAttribute| matches!(a, RouteAttribute::Oif(i) if *i == index);
    route.header.destination_prefix_length == prefix.prefix_len() && route.attributes.iter().any(to) && route.attributes.iter().any(by)
}
