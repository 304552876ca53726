//! calypso's VXLAN packets go out with a wrong outer UDP checksum (broken checksum offload): tethys drops them.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "offload";

pub(super) static FAULT: Fault = Fault {
    id: "vxlan-bad-outer-checksum",
    layer: 1,
    title: "calypso's VXLAN packets have a wrong outer UDP checksum",
    expects: "vxlan-bad-outer-checksum",
    decided_from: &["calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let spoil = Rule::new().protocol(17).port(twin.inventory.overlay.port).counted().spoil_udp_checksum();
            let batch = Batch::replace(TABLE).fresh().chain("out", "filter", Hook::Postrouting, 300);
            Ok(batch.rule("out", spoil).commit(&twin.host("calypso")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("calypso")?.net)?) }),
};
