//! The network between the nodes swallows UDP 8472 and nothing else. Inside of the tailnet's encryption nobody can, so it hurts only
//! where the inventory lets flannel run on the underlay; in the documented network it is none.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "transit";

pub(super) static FAULT: Fault = Fault {
    id: "udp8472-eaten-by-hypervisor",
    layer: 1,
    title: "the network between the nodes swallows UDP 8472, on which flannel runs outside of the tailnet",
    expects: "udp8472-eaten-by-hypervisor",
    decided_from: &[],
    apply: |twin| {
        Box::pin(async move {
            let swallow = Rule::new().protocol(17).port(twin.inventory.overlay.port).drop();
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0).rule("forward", swallow);
            Ok(batch.commit(&twin.host("internet")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("internet")?.net)?) }),
};
