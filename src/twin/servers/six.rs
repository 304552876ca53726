//! Address echoes that have IPv6 addresses: nobody reaches them in the healthy twin, where nothing has a way out over IPv6.

use crate::def::Inventory;
use crate::twin::service::ServerHandle;
use crate::twin::service::apps;
use crate::twin::service::pki::Authority;
use crate::vantage::Net;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

/// The echoes' network, of the documentation range (RFC 3849).
const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xec, 0, 0, 0, 0, 0);

/// The names of such services with their addresses.
pub(in crate::twin) fn names(inv: &Inventory) -> BTreeMap<String, Ipv6Addr> {
    let hosts = inv.egress.echoes_ipv6.iter().filter_map(|url| reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned));
    hosts.zip(1..).map(|(host, n)| (host, Ipv6Addr::from(u128::from(FIRST) + n))).collect()
}

/// Starts them.
pub(super) fn echoes(internet: &Net, inv: &Inventory, authority: &Authority) -> Result<Vec<ServerHandle>> {
    let names = names(inv);
    let start = |url: &String| {
        let url = reqwest::Url::parse(url).with_context(|| format!("URL {url}"))?;
        let host = url.host_str().unwrap_or_default();
        let address = *names.get(host).with_context(|| format!("{host} has no address in the twin"))?;
        let tls = (url.scheme() == "https").then(|| authority.server(&[host], &[])).transpose()?;
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(apps::echo(internet, SocketAddr::new(address.into(), port), tls)?)
    };
    inv.egress.echoes_ipv6.iter().map(start).collect()
}
