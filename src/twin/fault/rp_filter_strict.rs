//! Strict rp_filter on calypso without mark rules: replies to its own packets are dropped.

use super::Fault;
use crate::twin::tailscaled::Path;

pub(super) static FAULT: Fault = Fault {
    id: "rp-filter-strict",
    layer: 1,
    title: "strict rp_filter on calypso, and no rule gives replies the mark",
    expects: "rp-filter-strict",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            let calypso = twin.host("calypso")?;
            calypso.sysctl("net/ipv4/conf/all/rp_filter", "1")?;
            twin.overlay("calypso")?.until_paths(|p| p == Path::Lost).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.host("calypso")?.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
            twin.overlay("calypso")?.until_direct().await?;
            twin.overlay("tethys")?.until_direct().await
        })
    },
};
