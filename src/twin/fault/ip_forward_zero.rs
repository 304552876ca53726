//! A hardening tool has switched IPv4 forwarding off on calypso.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "ip-forward-zero",
    layer: 2,
    title: "net.ipv4.ip_forward is 0 on calypso",
    expects: "ip-forward-zero",
    decided_from: &["calypso", "all"],
    apply: |twin| Box::pin(async move { twin.host("calypso")?.sysctl("net/ipv4/ip_forward", "0") }),
    undo: |twin| Box::pin(async move { twin.host("calypso")?.sysctl("net/ipv4/ip_forward", "1") }),
};
