//! kube-proxy on calypso has missed that argilla's pod was replaced: its rules lead to an address that nobody has.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where the pod has been.
const GONE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 99);

pub(super) static FAULT: Fault = Fault {
    id: "kube-proxy-stale-dnat",
    layer: 3,
    title: "calypso's service rules lead argilla to a pod that is gone",
    expects: "kube-proxy-stale-dnat",
    decided_from: &["calypso", "all"],
    apply: |twin| Box::pin(async move { lead_to(twin, GONE) }),
    undo: |twin| Box::pin(async move { twin.sync() }),
};

/// Writes calypso's rules as they were when argilla's pod had another address.
pub(super) fn lead_to(twin: &Twin, old: Ipv4Addr) -> Result<()> {
    let mut services = twin.cluster.service_rules();
    for service in services.iter_mut().filter(|s| s.name == "argilla") {
        service.endpoints.iter_mut().for_each(|endpoint| *endpoint = SocketAddrV4::new(old, endpoint.port()));
    }
    twin.program_services("calypso", &services)
}
