//! Every outside name costs pods three more queries that nobody documented.

use super::Fault;
use crate::twin::Twin;

fn set(twin: &Twin, domains: &[&str]) {
    twin.servers.set_resolv(|resolv| resolv.inherited = domains.iter().map(|d| (*d).to_owned()).collect());
    twin.servers.flush_dns();
}

pub(super) static FAULT: Fault = Fault {
    id: "ndots-amplification",
    layer: 3,
    title: "pods have inherited three more search domains",
    expects: "ndots-amplification",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                set(twin, &["home.example", "lan.example", "corp.example"]);
                Ok(())
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                set(twin, &[]);
                Ok(())
            }
        })
    },
};
