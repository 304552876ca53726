//! argilla's process is gone and nothing has noticed yet.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "app-not-listening",
    layer: 3,
    title: "argilla's process is gone, its endpoint is still ready",
    expects: "app-not-listening",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.servers.stop_app("argilla").await;
                Ok(())
            }
        })
    },
    undo: |twin| Box::pin(async move { twin.servers.start_app(&twin.hosts, &twin.inventory, "argilla") }),
};
