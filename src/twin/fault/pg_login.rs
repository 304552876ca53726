//! The database takes connections, and not the applications' login.

use super::Fault;
use crate::twin::service::postgres;

pub(super) static PASSWORD: Fault = Fault {
    id: "pg-password-refused",
    layer: 4,
    title: "the applications' role has another password than they use",
    expects: "pg-password-refused",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.set_role(Some(&postgres::password()));
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.restore_role();
            Ok(())
        })
    },
};

/// PostgreSQL answers the same: it does not tell a stranger which roles exist.
pub(super) static ROLE: Fault = Fault {
    id: "pg-role-missing",
    layer: 4,
    title: "the applications' role does not exist in the database",
    expects: "pg-password-refused",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.set_role(None);
            Ok(())
        })
    },
    undo: PASSWORD.undo,
};

pub(super) static DATABASE: Fault = Fault {
    id: "pg-database-missing",
    layer: 4,
    title: "the applications' database does not exist on the server",
    expects: "pg-database-missing",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.set_database(false);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_database(true);
            Ok(())
        })
    },
};
