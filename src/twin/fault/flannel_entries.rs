//! One of flannel's entries for tethys is gone or wrong on calypso: the forwarding entry, its destination, the neighbour.

use super::{Action, Fault};
use std::net::Ipv4Addr;

/// Where a stale entry points: nobody has this address any more.
const FORMER: Ipv4Addr = Ipv4Addr::new(100, 121, 150, 65);
const CODE: &str = "fdb-or-neigh-stale-or-missing";
const FROM: &[&str] = &["calypso", "calypso,tethys", "all"];
const UNDO: Action = |twin| Box::pin(async move { twin.overlay("calypso")?.lay_flannel_peers(&twin.overlays).await });

pub(super) static FDB_MISSING: Fault = Fault {
    id: "fdb-missing",
    layer: 2,
    title: "calypso has no forwarding entry for tethys",
    expects: CODE,
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            let mac = twin.overlay("tethys")?.vtep_mac;
            twin.host("calypso")?.delete_forwarding(&twin.inventory.overlay.device, mac).await
        })
    },
    undo: UNDO,
};

pub(super) static FDB_STALE: Fault = Fault {
    id: "fdb-stale",
    layer: 2,
    title: "calypso's forwarding entry for tethys points to a former address",
    expects: CODE,
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            let mac = twin.overlay("tethys")?.vtep_mac;
            twin.host("calypso")?.redirect_forwarding(&twin.inventory.overlay.device, mac, FORMER).await
        })
    },
    undo: UNDO,
};

pub(super) static NEIGHBOUR_MISSING: Fault = Fault {
    id: "neighbour-missing",
    layer: 2,
    title: "calypso has no neighbour entry for tethys' flannel.1",
    expects: CODE,
    decided_from: FROM,
    apply: |twin| {
        Box::pin(async move {
            let subnet = twin.overlay("tethys")?.node.pod_cidr.network();
            twin.host("calypso")?.delete_neighbour(&twin.inventory.overlay.device, subnet).await
        })
    },
    undo: UNDO,
};
