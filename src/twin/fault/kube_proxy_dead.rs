//! kube-proxy on calypso has died. Its rules stay, and argilla's pod has been replaced since: they lead to where it was.

use super::Fault;
use std::net::{Ipv4Addr, SocketAddrV4};

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
            let mut before = twin.cluster.service_rules();
            for service in before.iter_mut().filter(|s| s.name == "argilla") {
                service.endpoints.iter_mut().for_each(|endpoint| *endpoint = SocketAddrV4::new(GONE, endpoint.port()));
            }
            twin.program_services("calypso", &before)?;
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
