//! cloudflared has fallen back to HTTP/2: its tunnel carries TCP and no UDP.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::topology::CLOUDFLARED;

/// The table that holds the fault.
const TABLE: &str = "acl-udp";

pub(super) static FAULT: Fault = Fault {
    id: "cloudflared-no-quic",
    layer: 4,
    title: "cloudflared has no QUIC connection: the tunnel carries no UDP",
    expects: "cloudflared-no-quic",
    decided_from: &["workstation", "calypso,workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let drop = Rule::new().protocol(17).counted().drop();
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0).rule("forward", drop);
            Ok(batch.commit(&twin.host(CLOUDFLARED)?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host(CLOUDFLARED)?.net)?) }),
};
