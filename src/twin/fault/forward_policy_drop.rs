//! The FORWARD policy of calypso is DROP: with no rule that accepts, and as Docker leaves it, with rules for its own bridge.

use super::{Action, Fault};
use crate::twin::nft::{Batch, Hook, Rule};

/// The table that holds the fault.
const TABLE: &str = "filter";
const UNDO: Action = |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("calypso")?.net)?) });

fn dropping() -> Batch {
    Batch::replace(TABLE).fresh().dropping_chain("FORWARD", Hook::Forward, 0)
}

pub(super) static BARE: Fault = Fault {
    id: "forward-policy-drop",
    layer: 2,
    title: "the FORWARD policy of calypso is DROP and nothing is accepted",
    expects: "forward-policy-drop",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| Box::pin(async move { Ok(dropping().commit(&twin.host("calypso")?.net)?) }),
    undo: UNDO,
};

pub(super) static DOCKER: Fault = Fault {
    id: "forward-policy-drop-docker",
    layer: 2,
    title: "Docker set the FORWARD policy of calypso to DROP and accepts its own bridge only",
    expects: "forward-policy-drop",
    decided_from: &["calypso,tethys", "calypso,pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            let own = Rule::new().out_by("docker0").counted().accept();
            Ok(dropping().rule("FORWARD", own).commit(&twin.host("calypso")?.net)?)
        })
    },
    undo: UNDO,
};
