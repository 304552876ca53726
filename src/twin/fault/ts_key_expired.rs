//! calypso's node key has expired: the exit node is let go, and egress falls back to the ISP's address.

use super::Fault;
use crate::twin::overlay::Daemon;

pub(super) static FAULT: Fault = Fault {
    id: "ts-key-expired",
    layer: 1,
    title: "calypso's node key has expired",
    expects: "ts-key-expired",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_daemon(Daemon::KeyExpired).await?;
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
