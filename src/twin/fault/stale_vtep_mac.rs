//! A flannel.1 whose hardware address is not the one that the other node uses: rewritten on calypso (udev), or made anew
//! and published by tethys without calypso learning of it.

use super::Fault;
use crate::twin::Twin;
use crate::twin::overlay::mac_text;
use anyhow::{Context, Result};

/// Gives flannel.1 of a node an address. The kernel flushes the device's neighbours at that, permanent ones too; udev does it
/// before flannel lays them, so they are laid again.
async fn set(twin: &Twin, node: &str, mac: [u8; 6]) -> Result<()> {
    twin.host(node)?.set_mac(&twin.inventory.overlay.device, mac).await?;
    twin.overlay(node)?.lay_flannel_peers(&twin.overlays).await
}

fn publish(twin: &Twin, node: &str, mac: [u8; 6]) -> Result<()> {
    let node = &twin.overlay(node)?.node;
    twin.cluster.annotate_flannel(&node.kube_name, &mac_text(mac), node.tailscale.context("a node of the twin has a Tailscale address")?);
    Ok(())
}

const OTHER: [u8; 6] = [0xee, 0x8d, 0x12, 0x34, 0x56, 0x78];

pub(super) static REWRITTEN: Fault = Fault {
    id: "stale-vtep-mac",
    layer: 2,
    title: "flannel.1 on calypso has another hardware address than flannel published",
    expects: "stale-vtep-mac",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| Box::pin(set(twin, "calypso", OTHER)),
    undo: |twin| Box::pin(async move { set(twin, "calypso", twin.overlay("calypso")?.vtep_mac).await }),
};

pub(super) static NOT_LEARNT: Fault = Fault {
    id: "stale-vtep-mac-not-learnt",
    layer: 2,
    title: "tethys published a new hardware address of flannel.1, and calypso still uses the old one",
    expects: "stale-vtep-mac",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            set(twin, "tethys", OTHER).await?;
            publish(twin, "tethys", OTHER)
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let mac = twin.overlay("tethys")?.vtep_mac;
            set(twin, "tethys", mac).await?;
            publish(twin, "tethys", mac)
        })
    },
};
