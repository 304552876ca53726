//! `tailscale down` on calypso: devices and rules stay, addresses and table 52 go.

use super::Fault;
use crate::twin::overlay::Daemon;

pub(super) static FAULT: Fault = Fault {
    id: "tailscale-stopped",
    layer: 1,
    title: "`tailscale down` on calypso",
    expects: "tailscale-stopped",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_daemon(Daemon::Stopped).await?;
            twin.sync()
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let calypso = twin.overlay("calypso")?;
            calypso.set_daemon(Daemon::Running).await?;
            calypso.until_direct().await?;
            twin.sync()
        })
    },
};
