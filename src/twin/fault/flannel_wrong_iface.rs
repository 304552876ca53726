//! Flannel on tethys took the public interface: its annotation and the others' forwarding entries hold that address.

use super::Fault;
use crate::twin::{Twin, overlay};
use anyhow::{Context, Result};
use std::net::Ipv4Addr;

pub(super) static FAULT: Fault = Fault {
    id: "flannel-wrong-iface",
    layer: 1,
    title: "flannel on tethys uses eth0 and its public address instead of tailscale0",
    expects: "flannel-wrong-iface-or-stale-public-ip",
    decided_from: &["calypso", "tethys", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let tethys = twin.overlay("tethys")?;
            let public = tethys.node.public.context("tethys has a public address")?;
            tethys.move_flannel("eth0", public).await?;
            publish(twin, public).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let tethys = twin.overlay("tethys")?;
            tethys.wire.delete_link(&twin.inventory.overlay.device).await?;
            tethys.make_flannel().await?;
            publish(twin, tethys.node.tailscale.context("tethys has a Tailscale address")?).await
        })
    },
};

async fn publish(twin: &Twin, address: Ipv4Addr) -> Result<()> {
    let (tethys, calypso) = (twin.overlay("tethys")?, twin.overlay("calypso")?);
    tethys.lay_flannel_peers(&twin.overlays).await?;
    twin.cluster.annotate_flannel(&tethys.node.kube_name, &overlay::mac_text(tethys.vtep_mac), address);
    calypso.lay_flannel_peer(tethys, address).await
}
