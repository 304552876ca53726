//! tethys' tailscaled hangs: what uses it as its exit node fails closed.

use super::Fault;
use crate::twin::overlay::Daemon;
use crate::twin::tailscaled::Path;

pub(super) static FAULT: Fault = Fault {
    id: "exit-node-offline-fail-closed",
    layer: 1,
    title: "tethys' tailscaled hangs: the exit node answers nobody",
    expects: "exit-node-offline-fail-closed",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("tethys")?.set_daemon(Daemon::Hung).await?;
            twin.sync()?;
            twin.overlay("calypso")?.until_paths(|p| p == Path::Lost).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.overlay("tethys")?.set_daemon(Daemon::Running).await?;
            twin.overlay("calypso")?.until_direct().await?;
            twin.overlay("tethys")?.until_direct().await?;
            twin.sync()
        })
    },
};
