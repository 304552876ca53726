//! firewalld on tethys does not trust the pod network: it refuses pods with "host prohibited".

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "host-filter";
/// ICMP code "host administratively prohibited" (RFC 1122), firewalld's answer.
const HOST_PROHIBITED: u8 = 10;

pub(super) static FAULT: Fault = Fault {
    id: "host-firewall-rejects-pod-to-host",
    layer: 2,
    title: "the firewall of tethys refuses TCP and UDP from pods with host-prohibited",
    expects: "host-firewall-rejects-pod-to-host",
    decided_from: &["pod:apps/csv-ingestion-worker", "tethys,pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            let pods = twin.inventory.cluster.pod_cidr;
            let reject = |protocol| Rule::new().from(pods, true).protocol(protocol).counted().reject_with(HOST_PROHIBITED);
            let batch = Batch::replace(TABLE).fresh().chain("input", "filter", Hook::Input, 0);
            let batch = batch.rule("input", Rule::new().established().accept());
            Ok(batch.rule("input", reject(6)).rule("input", reject(17)).commit(&twin.host("tethys")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("tethys")?.net)?) }),
};
