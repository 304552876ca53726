//! calypso has lost its route for tethys' pods; neighbour and forwarding entry are still there.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "podcidr-route-missing",
    layer: 2,
    title: "the route for tethys' pods is gone on calypso",
    expects: "podcidr-route-missing",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let prefix = twin.overlay("tethys")?.node.pod_cidr;
            twin.host("calypso")?.delete_device_route(prefix, &twin.inventory.overlay.device).await
        })
    },
    undo: |twin| Box::pin(async move { twin.overlay("calypso")?.lay_flannel_peers(&twin.overlays).await }),
};
