//! The resolvers that CoreDNS forwards to do not answer any more.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "edge-filter";

pub(super) static FAULT: Fault = Fault {
    id: "coredns-upstream-dead",
    layer: 3,
    title: "queries to the upstream resolvers are dropped",
    expects: "coredns-upstream-dead",
    decided_from: &["calypso", "tethys", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            let internet = twin.host("internet")?;
            let batch = Batch::replace(TABLE).fresh().chain("input", "filter", Hook::Input, 0);
            let batch =
                [17, 6].into_iter().fold(batch, |b, protocol| b.rule("input", Rule::new().protocol(protocol).port(53).counted().drop()));
            batch.commit(&internet.net)?;
            twin.servers.flush_dns();
            Ok(())
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("internet")?.net)?) }),
};
