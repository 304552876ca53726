//! A traffic policy of `Local`: kube-proxy leads connections to endpoints of its own node only, and drops them where there is none.

use super::Fault;
use crate::twin::cluster::NodePort;

/// In the range that Kubernetes allots (30000 to 32767).
const NODE_PORT: u16 = 30080;

pub(super) static INTERNAL: Fault = Fault {
    id: "internal-traffic-policy-local",
    layer: 3,
    title: "argilla's internalTrafficPolicy is Local: calypso, which has no endpoint of it, drops connections to its ClusterIP",
    expects: "internal-traffic-policy-local",
    decided_from: &["calypso", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.cluster.set_internal_policy("apps", "argilla", "Local");
            twin.sync()
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.cluster.set_internal_policy("apps", "argilla", "Cluster");
            twin.sync()
        })
    },
};

pub(super) static EXTERNAL: Fault = Fault {
    id: "external-traffic-policy-local",
    layer: 3,
    title: "argilla's node port has externalTrafficPolicy Local: calypso, which has no endpoint of it, drops what comes to it there",
    expects: "external-traffic-policy-local",
    decided_from: &["tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.cluster.set_node_port("apps", "argilla", Some(NodePort { port: NODE_PORT, local: true }));
            twin.sync()
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.cluster.set_node_port("apps", "argilla", None);
            twin.sync()
        })
    },
};
