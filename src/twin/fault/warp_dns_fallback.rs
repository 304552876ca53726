//! The workstation's fallback list has `local` and nothing for the cluster's domain.

use super::Fault;
use crate::twin::warp::{WarpSettings, set};

pub(super) static FAULT: Fault = Fault {
    id: "warp-dns-fallback",
    layer: 4,
    title: "WARP's fallback list has no entry for cluster.local on the workstation",
    expects: "warp-dns-fallback",
    decided_from: &["workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let settings = WarpSettings { without_cluster_domain: true, ..WarpSettings::default() };
            set(&twin.servers.warp, &twin.inventory, &settings)
        })
    },
    undo: |twin| Box::pin(async move { set(&twin.servers.warp, &twin.inventory, &WarpSettings::default()) }),
};
