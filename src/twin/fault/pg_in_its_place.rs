//! At the database's port nothing listens, something else does, or TLS does not come about.

use super::{Action, Fault};
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::service::postgres::Instead;

/// The table that holds the refusal.
const TABLE: &str = "host-filter";
const FROM: &[&str] = &["calypso", "pod:apps/csv-ingestion-worker", "all"];

pub(super) static REFUSED: Fault = Fault {
    id: "pg-refused",
    layer: 4,
    title: "the database's host refuses connections to its port",
    expects: "pg-refused",
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            let port = twin.inventory.databases.first().map_or(5432, |database| database.port);
            let batch = Batch::replace(TABLE).fresh().chain("input", "filter", Hook::Input, -10);
            Ok(batch.rule("input", Rule::new().protocol(6).port(port).reject()).commit(&twin.host("crunchy")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("crunchy")?.net)?) }),
};

pub(super) static NOT_POSTGRES: Fault = Fault {
    id: "pg-not-postgres",
    layer: 4,
    title: "a web server answers at the database's address and port",
    expects: "pg-not-postgres",
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            twin.servers.database().set_instead(Some(Instead::Http));
            Ok(())
        })
    },
    undo: ITSELF_AGAIN,
};

pub(super) static TLS_FAILED: Fault = Fault {
    id: "pg-tls-failed",
    layer: 4,
    title: "the database agrees to TLS and hangs up in the handshake",
    expects: "pg-tls-failed",
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            twin.servers.database().set_instead(Some(Instead::NoHandshake));
            Ok(())
        })
    },
    undo: ITSELF_AGAIN,
};

const ITSELF_AGAIN: Action = |twin| {
    Box::pin(async move {
        twin.servers.database().set_instead(None);
        Ok(())
    })
};
