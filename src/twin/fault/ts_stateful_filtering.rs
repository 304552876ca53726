//! tailscaled's stateful filtering on calypso: forwarded packets that begin a connection into the tailnet are dropped.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "ts-filter";

pub(super) static FAULT: Fault = Fault {
    id: "ts-stateful-filtering",
    layer: 1,
    title: "stateful filtering is on on calypso: its pods reach nothing behind tailscale0",
    expects: "ts-stateful-filtering",
    decided_from: &["calypso,pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            let drop = Rule::new().out_by(&twin.inventory.tailnet.device).not_established().counted().drop();
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0).rule("forward", drop);
            batch.commit(&twin.host("calypso")?.net)?;
            twin.servers.tell_tailscale("calypso", |state| state.no_stateful_filtering = false);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.tell_tailscale("calypso", |state| state.no_stateful_filtering = true);
            Ok(Batch::replace(TABLE).removed().commit(&twin.host("calypso")?.net)?)
        })
    },
};
