//! calypso does not use the exit node: the outside sees the home router's address.

use super::Fault;
use crate::twin::overlay::Preferences;

pub(super) static FAULT: Fault = Fault {
    id: "egress-ip-differs",
    layer: 4,
    title: "the exit node is off on calypso: it leaves by its own ISP",
    expects: "egress-ip-differs",
    decided_from: &["calypso", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_preferences(Preferences { exit_node: false, lan_access: false }).await?;
            twin.sync()
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_preferences(Preferences { exit_node: true, lan_access: true }).await?;
            twin.sync()
        })
    },
};
