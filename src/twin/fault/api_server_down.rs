//! The K3s server's process is gone; pods go on.

use super::Fault;
use crate::twin::service::pki::Validity;

pub(super) static FAULT: Fault = Fault {
    id: "api-server-down",
    layer: 3,
    title: "the API server's process is gone",
    expects: "api-server-down",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.servers.stop_api().await;
                Ok(())
            }
        })
    },
    undo: |twin| Box::pin(async move { twin.servers.restart_api(&twin.hosts, &twin.cluster, &twin.inventory, Validity::Current).await }),
};
