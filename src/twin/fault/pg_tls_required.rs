//! What answers at the database has no TLS, and pg_hba admits TLS only (`hostssl`).

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "pg-tls-required",
    layer: 4,
    title: "the database declines TLS, and its pg_hba asks for it",
    expects: "pg-tls-required",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.database().set_without_tls(true);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.database().set_without_tls(false);
            Ok(())
        })
    },
};
