//! CoreDNS' upstream leads back to itself: its loop plugin ends the process soon after each start.

use super::Fault;

/// What the loop plugin says before it ends the process (CoreDNS 1.14).
const VERDICT: &str = "[FATAL] plugin/loop: Loop (127.0.0.1:46072 -> :53) detected for zone \".\", see \
    https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO 574180411827180168.4447406037425936010.\"";

pub(super) static FAULT: Fault = Fault {
    id: "coredns-loop",
    layer: 3,
    title: "CoreDNS forwards to itself and ends, again and again",
    expects: "coredns-loop",
    decided_from: &["calypso", "tethys", "workstation", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.stop_coredns().await;
            twin.cluster.logs().write("kube-system", "coredns", VERDICT);
            twin.cluster.logs().restart("kube-system", "coredns");
            twin.cluster.logs().write("kube-system", "coredns", VERDICT);
            twin.cluster.set_crash_loop("kube-system", "coredns", true);
            twin.sync()
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.cluster.set_crash_loop("kube-system", "coredns", false);
            twin.servers.restart_coredns(&twin.hosts, &twin.cluster, &twin.inventory).await?;
            twin.sync()
        })
    },
};
