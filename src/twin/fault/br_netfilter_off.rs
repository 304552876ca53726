//! The bridge of tethys no longer shows its packets to the firewall. Needs br_netfilter in this machine's kernel.

use super::Fault;

const KEY: &str = "net/bridge/bridge-nf-call-iptables";

pub(super) static FAULT: Fault = Fault {
    id: "br-netfilter-off",
    layer: 2,
    title: "bridge-nf-call-iptables is 0 on tethys",
    expects: "br-netfilter-off",
    decided_from: &["tethys", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| Box::pin(async move { twin.host("tethys")?.sysctl(KEY, "0") }),
    undo: |twin| Box::pin(async move { twin.host("tethys")?.sysctl(KEY, "1") }),
};
