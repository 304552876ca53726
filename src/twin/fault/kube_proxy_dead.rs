//! kube-proxy on calypso has died. Its rules stay, and argilla's pod has been replaced since: they lead to where it was.

use super::{Fault, kube_proxy_stale_dnat};
use std::net::Ipv4Addr;

/// Where the pod has been.
const GONE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 98);

pub(super) static FAULT: Fault = Fault {
    id: "kube-proxy-dead",
    layer: 3,
    title: "kube-proxy on calypso died before argilla's pod was replaced",
    expects: "kube-proxy-stale-dnat",
    decided_from: &["calypso"],
    apply: |twin| {
        Box::pin(async move {
            kube_proxy_stale_dnat::lead_to(twin, GONE)?;
            twin.servers.stop_kube_proxy("calypso").await;
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.start_kube_proxy("calypso", &twin.host("calypso")?.net)?;
            twin.sync()
        })
    },
};
