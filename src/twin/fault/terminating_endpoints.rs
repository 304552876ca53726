//! A rollout: argilla's process has ended on SIGTERM, its endpoint is still terminating, and traffic still goes there.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;

pub(super) static FAULT: Fault = Fault {
    id: "terminating-endpoints",
    layer: 3,
    title: "argilla's only endpoint is terminating and its process has ended",
    expects: "terminating-endpoints",
    decided_from: &["calypso", "tethys", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.stop_app("argilla").await;
            terminate(twin, true)
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.start_app(&twin.hosts, &twin.inventory, "argilla")?;
            terminate(twin, false)
        })
    },
};

fn terminate(twin: &Twin, on: bool) -> Result<()> {
    twin.cluster.set_pod_terminating("apps", "argilla", on);
    twin.sync()
}
