//! The connector cannot dial the service network: everything else behind the tunnel works.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::topology::CLOUDFLARED;

/// The table that holds the fault.
const TABLE: &str = "acl";

pub(super) static FAULT: Fault = Fault {
    id: "cloudflared-route-or-origin-dial",
    layer: 4,
    title: "the connector's host does not reach 10.43.0.0/16",
    expects: "cloudflared-route-or-origin-dial",
    decided_from: &["calypso,workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let drop = Rule::new().to(twin.inventory.cluster.service_cidr, true).counted().drop();
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0).rule("forward", drop);
            Ok(batch.commit(&twin.host(CLOUDFLARED)?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host(CLOUDFLARED)?.net)?) }),
};
