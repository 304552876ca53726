//! calypso cannot give addresses to new pods: the API assigns it no subnet, or flannel's subnet.env is gone.

use super::Fault;
use crate::twin::Twin;

const CODE: &str = "podcidr-unassigned-or-subnet-env-missing";

fn assign(twin: &Twin, assigned: bool) -> anyhow::Result<()> {
    let node = &twin.overlay("calypso")?.node;
    twin.cluster.set_pod_cidr(&node.kube_name, assigned.then(|| node.pod_cidr.to_string()));
    Ok(())
}

pub(super) static UNASSIGNED: Fault = Fault {
    id: "podcidr-unassigned",
    layer: 2,
    title: "the API assigns no pod CIDR to calypso",
    expects: CODE,
    decided_from: &["calypso", "all"],
    apply: |twin| Box::pin(async move { assign(twin, false) }),
    undo: |twin| Box::pin(async move { assign(twin, true) }),
};

pub(super) static FILE_MISSING: Fault = Fault {
    id: "subnet-env-missing",
    layer: 2,
    title: "flannel's subnet.env is gone on calypso",
    expects: CODE,
    decided_from: &["calypso"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_subnet_env(false);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_subnet_env(true);
            Ok(())
        })
    },
};
