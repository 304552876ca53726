//! An agent on tethys marks whatever is forwarded, with a bit inside of Tailscale's mask: ts-postrouting does not know it any more.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the agent's rule.
const TABLE: &str = "policy-filter";
/// What kube-router sets on packets that its policies let through.
const ACCEPTED: u32 = 0x2_0000;
/// Behind the rules of others.
const LATE: i32 = 10;

pub(super) static FAULT: Fault = Fault {
    id: "fwmark-collision",
    layer: 1,
    title: "an agent on tethys sets a bit of the mark by which Tailscale knows what to masquerade",
    expects: "fwmark-collision",
    decided_from: &["calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let mark = Rule::new().counted().set_mark(!ACCEPTED, ACCEPTED);
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, LATE).rule("forward", mark);
            Ok(batch.commit(&twin.host("tethys")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("tethys")?.net)?) }),
};
