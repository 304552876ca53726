//! kube-proxy on calypso has missed that argilla's pod was replaced: its rules lead to an address that nobody has.

use super::Fault;
use crate::twin::Twin;
use crate::twin::nft::{Batch, Hook, Rule};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The table that holds the fault; its chains come before kube-proxy's.
const TABLE: &str = "services-old";
/// Where the pod has been.
const GONE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 99);

pub(super) static FAULT: Fault = Fault {
    id: "kube-proxy-stale-dnat",
    layer: 3,
    title: "calypso's service rules lead argilla to a pod that is gone",
    expects: "kube-proxy-stale-dnat",
    decided_from: &["calypso", "all"],
    apply: |twin| Box::pin(async move { apply(twin) }),
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("calypso")?.net)?) }),
};

fn apply(twin: &Twin) -> Result<()> {
    let service = twin.cluster.service_rules().into_iter().find(|s| s.name == "argilla").context("the twin has no service argilla")?;
    let target = service.endpoints.first().map_or(6900, |e| e.port());
    let rule = Rule::new().to(Ipv4Net::from(service.cluster_ip), true).protocol(6).port(service.port).dnat(GONE, target);
    let batch = Batch::replace(TABLE).fresh().chain("pre", "nat", Hook::Prerouting, -110).chain("out", "nat", Hook::Output, -110);
    Ok(batch.rule("pre", rule.clone()).rule("out", rule).commit(&twin.host("calypso")?.net)?)
}
