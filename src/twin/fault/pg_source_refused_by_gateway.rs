//! The database answers, and refuses the source address in its own words (pg_hba).

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "pg-source-refused-by-gateway",
    layer: 4,
    title: "pg_hba of the database does not admit the cluster's egress address",
    expects: "pg-source-refused-by-gateway",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.set_pg_hba(vec!["192.0.2.99/32".parse()?]);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_pg_hba(twin.servers.database_allowlist(&twin.inventory));
            Ok(())
        })
    },
};
