//! `kubectl get` works and logs do not: the agent's tunnel is gone, or the kubelet's certificate is for another address.

use super::Fault;
use crate::twin::Twin;
use crate::twin::service::api::kubelet::Trouble;
use anyhow::{Context, Result};

pub(super) static TUNNEL: Fault = Fault {
    id: "k3s-tunnel-gone",
    layer: 3,
    title: "the API server has no session of the tunnel of calypso's agent",
    expects: "k3s-tunnel-or-kubelet-san",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/md-query-proxy", "all"],
    apply: |twin| Box::pin(async move { set(twin, Some(Trouble::NoTunnel)) }),
    undo: |twin| Box::pin(async move { set(twin, None) }),
};

pub(super) static CERTIFICATE: Fault = Fault {
    id: "kubelet-san-wrong",
    layer: 3,
    title: "the certificate of calypso's kubelet is not for its Tailscale address",
    expects: "k3s-tunnel-or-kubelet-san",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Some(Trouble::WrongName)) }),
    undo: |twin| Box::pin(async move { set(twin, None) }),
};

fn set(twin: &Twin, trouble: Option<Trouble>) -> Result<()> {
    let calypso = twin.inventory.node("calypso").and_then(|node| node.tailscale).context("calypso has no Tailscale address")?;
    twin.servers.set_kubelet(calypso, trouble);
    Ok(())
}
