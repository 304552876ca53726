//! The database's firewall no longer admits the cluster's egress address.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "pg-allowlist-drop",
    layer: 4,
    title: "the database's allowlist does not hold the cluster's egress address",
    expects: "pg-allowlist-drop",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| Box::pin(async move { twin.servers.set_database_firewall(twin.host("crunchy")?, &["192.0.2.99/32".parse()?]) }),
    undo: |twin| {
        Box::pin(
            async move { twin.servers.set_database_firewall(twin.host("crunchy")?, &twin.servers.database_allowlist(&twin.inventory)) },
        )
    },
};
