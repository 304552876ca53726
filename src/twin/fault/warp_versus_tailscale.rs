//! WARP runs on calypso as a full tunnel, with a rule before Tailscale's: what tailscaled sends goes into a tunnel that does not carry it.

use super::Fault;
use crate::twin::Twin;
use crate::twin::tailscaled::Path;
use crate::twin::wire::Policy;
use anyhow::{Context, Result};
use ipnet::Ipv4Net;

/// A rule without a number gets the one before the lowest (ip-rule(8)): Tailscale's begin at 5210.
const RULE: u32 = 5209;
const TABLE: u32 = 65743;
const MTU: u32 = 1280;
/// What WARP's split tunnel leaves out by default, as far as this network has it.
const EXCLUDED: [&str; 4] = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"];

pub(super) static FAULT: Fault = Fault {
    id: "warp-versus-tailscale",
    layer: 1,
    title: "WARP on calypso takes tailscaled's own packets into its tunnel",
    expects: "warp-versus-tailscale",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let (wire, device) = (twin.host("calypso")?, device(twin)?);
            // A bridge without ports, to which nobody answers: what goes in is gone.
            wire.bridge(device, MTU).await?;
            wire.no_arp(device).await?;
            wire.route(Ipv4Net::default(), None, device, TABLE).await?;
            for range in EXCLUDED {
                wire.throw(range.parse()?, TABLE).await?;
            }
            wire.rule(Policy { priority: RULE, to: None, mark: None, table: Some(TABLE) }).await?;
            twin.overlay("calypso")?.until_paths(|p| p == Path::Lost).await?;
            twin.overlay("tethys")?.until_paths(|p| p == Path::Lost).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let wire = twin.host("calypso")?;
            wire.delete_rules(RULE).await?;
            wire.flush_table(TABLE).await?;
            wire.delete_link(device(twin)?).await?;
            twin.overlay("calypso")?.until_paths(|p| matches!(p, Path::Direct(_))).await?;
            twin.overlay("tethys")?.until_paths(|p| matches!(p, Path::Direct(_))).await
        })
    },
};

fn device(twin: &Twin) -> Result<&str> {
    Ok(&twin.inventory.warp.as_ref().context("the inventory has no WARP")?.device)
}
