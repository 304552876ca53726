//! The exit node is on without LAN access, Tailscale's default: the LAN goes to tailscale0.

use super::Fault;
use crate::twin::overlay::Preferences;

pub(super) static FAULT: Fault = Fault {
    id: "exit-node-without-lan-access",
    layer: 1,
    title: "calypso uses the exit node without LAN access",
    expects: "exit-node-without-lan-access",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.overlay("calypso")?.set_preferences(Preferences { exit_node: true, lan_access: false }).await?;
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
