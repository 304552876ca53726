//! The exit node's connection tracking forgets quiet connections after a second, and does not pick them up again.

use super::Fault;
use crate::twin::Twin;
use anyhow::{Context, Result};

pub(super) static FAULT: Fault = Fault {
    id: "pg-idle-connection-dropped",
    layer: 4,
    title: "the exit node forgets translated connections after a second of silence",
    expects: "pg-idle-connection-dropped",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| Box::pin(async move { tracking(twin, "1", "0") }),
    // nf_conntrack's own defaults: five days, and yes.
    undo: |twin| Box::pin(async move { tracking(twin, "432000", "1") }),
};

fn tracking(twin: &Twin, seconds: &str, loose: &str) -> Result<()> {
    let exit = twin.host(twin.inventory.tailnet.exit_node.as_deref().context("the inventory has no exit node")?)?;
    exit.sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", seconds)?;
    exit.sysctl("net/netfilter/nf_conntrack_tcp_loose", loose)
}
