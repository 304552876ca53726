//! argilla's readiness probe fails: its endpoint is not ready, and kube-proxy rejects.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "endpoints-not-ready",
    layer: 3,
    title: "argilla's pod is not ready",
    expects: "endpoints-not-ready",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.cluster.set_pod_ready("apps", "argilla", false);
                twin.sync()
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                twin.cluster.set_pod_ready("apps", "argilla", true);
                twin.sync()
            }
        })
    },
};
