//! IPv6 on a wire: addresses, and a way out.

use super::wire::Wire;
use anyhow::{Context, Result};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv6Addr};

impl Wire {
    /// Whether the kernel speaks IPv6.
    pub(super) fn has_six(&self) -> bool {
        self.has_sysctl("net/ipv6/conf/lo/disable_ipv6")
    }

    /// Adds an IPv6 address, which counts at once: nobody else here could have it (no duplicate address detection).
    pub(super) async fn address_six(&self, device: &str, address: Ipv6Addr, prefix: u8) -> Result<()> {
        self.sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0")?;
        self.sysctl(&format!("net/ipv6/conf/{device}/accept_dad"), "0")?;
        let index = self.index(device).await?;
        let added = self.handle.address().add(index, IpAddr::V6(address), prefix).execute().await;
        added.with_context(|| format!("{}: {address}/{prefix} on {device}", self.name))
    }

    /// The default route over IPv6.
    pub(super) async fn way_out_six(&self, gateway: Ipv6Addr, device: &str) -> Result<()> {
        let index = self.index(device).await?;
        let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(gateway).build();
        let added = self.handle.route().add(route).execute().await;
        added.with_context(|| format!("{}: default route by {gateway}", self.name))
    }

    /// Takes every IPv6 address and route of a device away.
    pub(super) fn without_six(&self, device: &str) -> Result<()> {
        self.sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1")
    }
}
