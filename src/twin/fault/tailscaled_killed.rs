//! tailscaled on calypso was killed: its device and flannel.1 are gone, rules and throws are left.

use super::Fault;
use crate::twin::overlay::Daemon;

pub(super) static FAULT: Fault = Fault {
    id: "tailscaled-killed",
    layer: 1,
    title: "tailscaled on calypso was killed and not started again",
    expects: "tailscale-stopped",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            let calypso = twin.overlay("calypso")?;
            twin.servers.stop_tailscale("calypso").await;
            calypso.set_daemon(Daemon::Gone).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let calypso = twin.overlay("calypso")?;
            calypso.set_daemon(Daemon::Running).await?;
            calypso.tailscaled.ready().await?;
            calypso.restart_k3s(&twin.overlays).await?;
            twin.servers.start_tailscale(calypso, &twin.inventory)?;
            twin.sync()
        })
    },
};
