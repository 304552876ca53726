//! The datastore hangs: the API answers only from its cache.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "api-datastore-hung",
    layer: 3,
    title: "the API server's datastore hangs",
    expects: "api-datastore-hung",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.servers.set_datastore_hung(true);
                Ok(())
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                twin.servers.set_datastore_hung(false);
                Ok(())
            }
        })
    },
};
