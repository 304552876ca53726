//! What a newer flannel leaves after that restart: the device is back, without routes, neighbours and forwarding entries.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "flannel-recreated-bare",
    layer: 1,
    title: "flannel.1 on calypso was made anew, without any route, neighbour or FDB entry",
    expects: "flannel-recreated-bare",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let calypso = twin.overlay("calypso")?;
            calypso.restart_tailscaled().await?;
            calypso.make_flannel().await
        })
    },
    undo: |twin| Box::pin(async move { twin.overlay("calypso")?.restart_k3s(&twin.overlays).await }),
};
