//! The exit node does not forward.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "exit-node-not-usable",
    layer: 1,
    title: "net.ipv4.ip_forward is 0 on tethys, the exit node",
    expects: "exit-node-not-usable",
    decided_from: &["tethys", "calypso,tethys", "all"],
    apply: |twin| Box::pin(async move { twin.host("tethys")?.sysctl("net/ipv4/ip_forward", "0") }),
    undo: |twin| Box::pin(async move { twin.host("tethys")?.sysctl("net/ipv4/ip_forward", "1") }),
};
