//! argilla's target port is called `web`, the container's is `http`.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "targetport-name-mismatch",
    layer: 3,
    title: "the target port of argilla names no port of its pods",
    expects: "targetport-name-mismatch",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                twin.cluster.set_target_port("apps", "argilla", 80, "web");
                twin.sync()
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                twin.cluster.set_target_port("apps", "argilla", 80, "http");
                twin.sync()
            }
        })
    },
};
