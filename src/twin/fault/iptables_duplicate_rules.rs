//! An agent on calypso has not found its own FORWARD rule and has added it again, 2264 times.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the rules.
const TABLE: &str = "filter";
/// As many as k3s#3117 counted.
const RULES: usize = 2264;
/// Rules of one transaction: its acknowledgements wait in the socket's buffer.
const AT_ONCE: usize = 100;

pub(super) static FAULT: Fault = Fault {
    id: "iptables-duplicate-rules",
    layer: 2,
    title: "one rule is there 2264 times in calypso's FORWARD chain",
    expects: "iptables-duplicate-rules",
    decided_from: &["calypso"],
    apply: |twin| {
        Box::pin(async move {
            let net = &twin.host("calypso")?.net;
            let rule = || Rule::new().from(twin.inventory.cluster.pod_cidr, true).counted().accept();
            Batch::replace(TABLE).fresh().chain("FORWARD", "filter", Hook::Forward, 0).commit(net)?;
            for first in (0..RULES).step_by(AT_ONCE) {
                let count = AT_ONCE.min(RULES - first);
                (0..count).fold(Batch::extend(TABLE), |batch, _| batch.rule("FORWARD", rule())).commit(net)?;
            }
            Ok(())
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("calypso")?.net)?) }),
};
