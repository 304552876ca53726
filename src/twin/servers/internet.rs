//! The internet of the twin: outside names, and who answers there.

use crate::def::Inventory;
use crate::twin::service::dns::{OutsideHandle, serve_outside};
use crate::twin::service::pki::Authority;
use crate::twin::service::{ServerHandle, apps, stun};
use crate::vantage::Net;
use anyhow::{Context, Result};
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// Addresses for outside names that the inventory states without one (RFC 5737 documentation ranges).
const FIRST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// What github.com resolves to in the architecture document (line 732).
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(140, 82, 121, 4);

/// Outside names of the inventory with their addresses.
pub(super) fn names(inv: &Inventory) -> BTreeMap<String, Ipv4Addr> {
    let mut names = BTreeMap::from([(inv.dns.external_name.clone(), EXTERNAL)]);
    for database in &inv.databases {
        names.extend(database.address.map(|a| (database.host.clone(), a)));
    }
    let mut next = u32::from(FIRST_OUTSIDE);
    for host in outside_hosts(inv) {
        names.entry(host).or_insert_with(|| {
            next += 1;
            Ipv4Addr::from(next)
        });
    }
    names
}

fn outside_hosts(inv: &Inventory) -> impl Iterator<Item = String> {
    let urls = inv.egress.echoes.iter().chain(inv.https.iter().map(|h| &h.url));
    let of_urls = urls.filter_map(|url| reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned));
    of_urls.chain(inv.egress.stun.iter().map(|server| server.host.clone()))
}

/// Addresses of servers on the internet that the twin's internet router stands for.
pub fn public_addresses(inv: &Inventory) -> Vec<Ipv4Addr> {
    let databases: Vec<Ipv4Addr> = inv.databases.iter().filter_map(|d| d.address).collect();
    let mut all = inv.dns.upstream.clone();
    all.extend(names(inv).into_values().filter(|a| !databases.contains(a)));
    all.sort_unstable();
    all.dedup();
    all
}

/// Address echoes and portals on the internet, over TLS as documented.
pub(super) fn serve(internet: &Net, inv: &Inventory, authority: &Authority, portals: &mut Vec<apps::Switch>) -> Result<Vec<ServerHandle>> {
    let names = names(inv);
    let listen = |url: &str| -> Result<(SocketAddrV4, Option<Arc<ServerConfig>>)> {
        let url = reqwest::Url::parse(url).with_context(|| format!("URL {url}"))?;
        let host = url.host_str().unwrap_or_default();
        let address = *names.get(host).with_context(|| format!("{host} has no address in the twin"))?;
        let tls = (url.scheme() == "https").then(|| authority.server(&[host], &[address])).transpose()?;
        Ok((SocketAddrV4::new(address, url.port_or_known_default().unwrap_or(443)), tls))
    };
    let mut servers = Vec::new();
    for url in &inv.egress.echoes {
        let (address, tls) = listen(url)?;
        servers.push(apps::echo(internet, address, tls)?);
    }
    for server in &inv.egress.stun {
        let address = *names.get(&server.host).with_context(|| format!("{} has no address in the twin", server.host))?;
        servers.push(stun::serve(internet, SocketAddrV4::new(address, server.port))?);
    }
    for endpoint in &inv.https {
        let (address, tls) = listen(&endpoint.url)?;
        let app = apps::App::new(&endpoint.name, "cloudflare");
        if endpoint.status == 200 {
            portals.push(app.switch.clone());
        } else {
            // One that is there to be known: it always answers this, with nothing.
            app.switch.set(Some(apps::Instead { status: endpoint.status, server: "cloudflare", headers: Vec::new(), body: String::new() }));
        }
        servers.push(app.serve(internet, address, tls)?);
    }
    Ok(servers)
}

/// The resolvers that the cluster's DNS asks.
pub(super) fn resolvers(internet: &Net, inv: &Inventory) -> Result<Vec<OutsideHandle>> {
    let serve = |ip: &Ipv4Addr| -> Result<OutsideHandle> {
        let resolver = serve_outside(internet, SocketAddrV4::new(*ip, 53), names(inv))?;
        resolver.set_six(super::six::names(inv));
        Ok(resolver)
    };
    inv.dns.upstream.iter().map(serve).collect()
}
