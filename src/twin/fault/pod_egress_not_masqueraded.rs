//! calypso's postrouting has lost flannel's rule: what its pods send outside leaves under their own addresses.

use super::Fault;
use crate::twin::kube_proxy::flannel;

pub(super) static FAULT: Fault = Fault {
    id: "pod-egress-not-masqueraded",
    layer: 2,
    title: "flannel's masquerading rule is gone on calypso",
    expects: "pod-egress-not-masqueraded",
    decided_from: &["calypso,pod:apps/md-query-proxy"],
    apply: |twin| Box::pin(async move { flannel(&twin.overlay("calypso")?.wire, &twin.inventory, false) }),
    undo: |twin| Box::pin(async move { twin.sync() }),
};
