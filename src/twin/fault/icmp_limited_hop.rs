//! A router on the internet answers at most one expired packet a second. It passes everything on: no fault, and nothing may be
//! claimed.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the limit.
const TABLE: &str = "control-plane";
/// ICMP, and its time exceeded (RFC 792).
const ICMP: u8 = 1;
const TIME_EXCEEDED: u8 = 11;

pub(super) static FAULT: Fault = Fault {
    id: "icmp-limited-hop",
    layer: 1,
    title: "a router on the way answers one expired packet a second, and passes everything on",
    expects: "",
    decided_from: &["calypso", "tethys", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let limit = Rule::new().protocol(ICMP).icmp_type(TIME_EXCEEDED).beyond(1).counted().drop();
            let batch = Batch::replace(TABLE).fresh().chain("output", "filter", Hook::Output, 0).rule("output", limit);
            Ok(batch.commit(&twin.host("internet")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("internet")?.net)?) }),
};
