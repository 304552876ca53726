//! Control withdraws the exit node while calypso uses it; `Online` stays true and table 52 keeps its default.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;

pub(super) static FAULT: Fault = Fault {
    id: "exit-node-approval-removed",
    layer: 1,
    title: "control withdraws the exit node while calypso uses it",
    expects: "exit-node-approval-removed",
    decided_from: &["calypso", "all"],
    apply: |twin| Box::pin(async move { approve(twin, false) }),
    undo: |twin| Box::pin(async move { approve(twin, true) }),
};

fn approve(twin: &Twin, approved: bool) -> Result<()> {
    twin.overlay("calypso")?.approve_exit(approved);
    let exit = twin.overlay("tethys")?.node.tailscale;
    twin.servers.tell_tailscale("calypso", |state| {
        if let Some(peer) = exit.and_then(|ip| state.peer_mut(ip)) {
            peer.exit_node_option = approved;
        }
    });
    twin.servers.tell_tailscale("tethys", |state| state.exit_approved = approved);
    Ok(())
}
