//! The CoreDNS process is gone; its pod and its endpoint are still there.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "coredns-down",
    layer: 3,
    title: "the CoreDNS process is gone, its endpoint is still ready",
    expects: "coredns-down",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.servers.stop_coredns().await;
                Ok(())
            }
        })
    },
    undo: |twin| Box::pin(async move { twin.servers.restart_coredns(&twin.hosts, &twin.cluster, &twin.inventory).await }),
};
