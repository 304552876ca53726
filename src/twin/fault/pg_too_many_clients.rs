//! All connection slots of the database are in use.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "pg-too-many-clients",
    layer: 4,
    title: "the database has no connection slot left",
    expects: "pg-too-many-clients",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.database().set_full(true);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.database().set_full(false);
            Ok(())
        })
    },
};
