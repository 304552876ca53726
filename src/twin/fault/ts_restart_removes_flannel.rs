//! A restart of tailscaled on calypso takes flannel.1 away, and this K3s does not bring it back (k3s#12436).

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "ts-restart-removes-flannel",
    layer: 1,
    title: "tailscaled on calypso was restarted: flannel.1 is gone",
    expects: "ts-restart-removes-flannel",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let calypso = twin.overlay("calypso")?;
            calypso.restart_tailscaled().await
        })
    },
    undo: |twin| Box::pin(async move { twin.overlay("calypso")?.restart_k3s(&twin.overlays).await }),
};
