//! K3s' serving certificate is a year old and nobody has restarted the server.

use super::Fault;
use crate::twin::service::pki::Validity;

pub(super) static FAULT: Fault = Fault {
    id: "k3s-cert-expired",
    layer: 4,
    title: "the API server's certificate has expired",
    expects: "k3s-cert-expired",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| Box::pin(async move { twin.servers.restart_api(&twin.hosts, &twin.cluster, &twin.inventory, Validity::Expired).await }),
    undo: |twin| Box::pin(async move { twin.servers.restart_api(&twin.hosts, &twin.cluster, &twin.inventory, Validity::Current).await }),
};
