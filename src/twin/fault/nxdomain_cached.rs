//! A query before the service existed has left a denial in CoreDNS' cache.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "nxdomain-cached",
    layer: 3,
    title: "CoreDNS' cache still denies argilla, which exists",
    expects: "nxdomain-cached",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.servers.set_stale_denial(&twin.inventory.dns.internal_answer, true);
                Ok(())
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                twin.servers.set_stale_denial(&twin.inventory.dns.internal_answer, false);
                Ok(())
            }
        })
    },
};
