//! Something between the workstation and the internet answers in the place of the real servers.

use super::Fault;
use crate::twin::Twin;
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::service::apps::{App, Instead};
use crate::twin::service::pki::Authority;
use crate::twin::topology::WORKSTATION;
use anyhow::{Context, Result};
use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The table that holds the fault.
const TABLE: &str = "gateway";

pub(super) static CAPTIVE_PORTAL: Fault = Fault {
    id: "captive-portal-or-mitm",
    layer: 4,
    title: "a captive portal answers the workstation in the place of every web server",
    expects: "captive-portal-or-mitm",
    decided_from: &["workstation,calypso", "all"],
    apply: |twin| Box::pin(async move { divert(twin, "Hotspot Login CA", Some(login())) }),
    undo: mend,
};

pub(super) static PLAIN_PORTAL: Fault = Fault {
    id: "captive-portal-plain",
    layer: 4,
    title: "a captive portal answers the workstation's plain HTTP with its login page, and drops its HTTPS",
    expects: "captive-portal-or-mitm",
    decided_from: &["workstation", "workstation,calypso", "all"],
    apply: |twin| Box::pin(async move { divert_plain(twin) }),
    undo: mend,
};

pub(super) static TLS_INSPECTION: Fault = Fault {
    id: "warp-gateway-policy-or-tls-inspection",
    layer: 4,
    title: "Cloudflare Gateway re-signs the workstation's TLS with a root that the workstation does not trust",
    expects: "warp-gateway-policy-or-tls-inspection",
    decided_from: &["workstation,calypso", "all"],
    apply: |twin| Box::pin(async move { divert(twin, "Gateway CA - Cloudflare Managed G1 00000000000000000000000000000000", None) }),
    undo: mend,
};

/// Translates the workstation's HTTPS connections to a server with certificates of its own authority.
fn divert(twin: &Twin, issuer: &str, instead: Option<Instead>) -> Result<()> {
    let internet = twin.host("internet")?;
    let here: Ipv4Addr = *twin.inventory.dns.upstream.first().context("the inventory has no upstream resolver")?;
    let hosts: Vec<String> =
        twin.inventory.https.iter().filter_map(|h| Some(reqwest::Url::parse(&h.url).ok()?.host_str()?.to_owned())).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let app = App::new("middle", "cloudflare");
    app.switch.set(instead);
    let tls = Authority::new(issuer)?.server(&names, &[here])?;
    let server = app.serve(&internet.net, SocketAddrV4::new(here, 0), Some(tls))?;
    let port = server.address().context("the server in the middle has no address")?.port();
    let rule = Rule::new().from(Ipv4Net::from(WORKSTATION), true).protocol(6).port(443).dnat(here, port);
    Ok(Batch::replace(TABLE).fresh().chain("prerouting", "nat", Hook::Prerouting, -100).rule("prerouting", rule).commit(&internet.net)?)
}

/// Answers the workstation's plain HTTP with its login page, and lets nothing else through.
fn divert_plain(twin: &Twin) -> Result<()> {
    let internet = twin.host("internet")?;
    let here: Ipv4Addr = *twin.inventory.dns.upstream.first().context("the inventory has no upstream resolver")?;
    let app = App::new("middle", "nginx");
    app.switch.set(Some(login()));
    let server = app.serve(&internet.net, SocketAddrV4::new(here, 0), None)?;
    let port = server.address().context("the server in the middle has no address")?.port();
    let from = || Rule::new().from(Ipv4Net::from(WORKSTATION), true).protocol(6);
    let batch = Batch::replace(TABLE).fresh().chain("prerouting", "nat", Hook::Prerouting, -100).chain("input", "filter", Hook::Input, 0);
    Ok(batch.rule("prerouting", from().port(80).dnat(here, port)).rule("input", from().port(443).drop()).commit(&internet.net)?)
}

fn login() -> Instead {
    Instead { status: 302, server: "nginx", headers: vec![("location", "http://login.hotspot.example/".to_owned())], body: String::new() }
}

fn mend(twin: &Twin) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("internet")?.net)?) })
}
