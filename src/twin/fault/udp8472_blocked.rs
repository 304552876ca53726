//! A firewall on tethys drops the VXLAN port.

use super::{Action, Fault};
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "input-filter";
/// ICMP code "communication administratively prohibited" (RFC 1812).
const PROHIBITED: u8 = 13;
const UNDO: Action = |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("tethys")?.net)?) });

pub(super) static FAULT: Fault = Fault {
    id: "udp8472-blocked",
    layer: 1,
    title: "UDP 8472 is dropped on tethys",
    expects: "udp8472-blocked",
    decided_from: &["calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let tethys = twin.host("tethys")?;
            let drop = Rule::new().protocol(17).port(twin.inventory.overlay.port).counted().drop();
            Ok(Batch::replace(TABLE).fresh().chain("input", "filter", Hook::Input, 0).rule("input", drop).commit(&tethys.net)?)
        })
    },
    undo: UNDO,
};

pub(super) static REJECTED: Fault = Fault {
    id: "udp8472-rejected",
    layer: 1,
    title: "UDP 8472 is refused on tethys, with an ICMP error",
    expects: "udp8472-blocked",
    decided_from: &["calypso", "calypso,tethys"],
    apply: |twin| {
        Box::pin(async move {
            let tethys = twin.host("tethys")?;
            let reject = Rule::new().protocol(17).port(twin.inventory.overlay.port).counted().reject_with(PROHIBITED);
            Ok(Batch::replace(TABLE).fresh().chain("input", "filter", Hook::Input, 0).rule("input", reject).commit(&tethys.net)?)
        })
    },
    undo: UNDO,
};
