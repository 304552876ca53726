//! The one CoreDNS pod was on a node that died with it, and has not been replaced yet.

use super::Fault;
use crate::def::inventory::Declared;
use crate::twin::Twin;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;

pub(super) static FAULT: Fault = Fault {
    id: "coredns-single-replica-node-down",
    layer: 3,
    title: "the only CoreDNS pod is bound to a node that is down",
    expects: "coredns-single-replica-node-down",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| Box::pin(apply(twin)),
    undo: |twin| Box::pin(undo(twin)),
};

/// The node controller has marked the pod not ready by the time the node is seen to be down; evicting it takes five minutes more.
async fn apply(twin: &Twin) -> Result<()> {
    let down = twin.inventory.nodes.iter().find(|n| n.state == Declared::Down).context("the inventory has no node that is down")?;
    let address = Ipv4Addr::from(u32::from(down.pod_cidr.network()) + 53);
    twin.servers.stop_coredns().await;
    twin.cluster.move_pod("kube-system", "coredns", &down.kube_name, address, false);
    twin.sync()
}

async fn undo(twin: &Twin) -> Result<()> {
    let pod = twin.inventory.pods.iter().find(|p| p.name == "coredns").context("the inventory has no CoreDNS pod")?;
    let node = twin.inventory.node(&pod.node).context("CoreDNS' pod is on no node")?;
    twin.cluster.move_pod("kube-system", "coredns", &node.kube_name, pod.address, true);
    twin.servers.restart_coredns(&twin.hosts, &twin.cluster, &twin.inventory).await?;
    twin.sync()
}
