//! Nodes and pods have a search domain whose zone answers every name with one address.

use super::Fault;
use crate::twin::Twin;
use std::net::Ipv4Addr;

/// The inherited search domain; its zone has a wildcard.
const DOMAIN: &str = "home.example";
/// What the wildcard points to: an address where nothing is.
const PARKING: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 200);

fn set(twin: &Twin, on: bool) {
    twin.servers.set_outside_name(&format!("*.{DOMAIN}"), on.then_some(PARKING));
    twin.servers.set_resolv(|resolv| resolv.inherited = if on { vec![DOMAIN.to_owned()] } else { Vec::new() });
    twin.servers.flush_dns();
}

pub(super) static FAULT: Fault = Fault {
    id: "search-domain-hijack",
    layer: 3,
    title: "pods have inherited a search domain with a wildcard record",
    expects: "search-domain-hijack",
    decided_from: &["calypso", "pod:apps/csv-ingestion-worker", "pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            {
                set(twin, true);
                Ok(())
            }
        })
    },
    undo: |twin| {
        Box::pin(async move {
            {
                set(twin, false);
                Ok(())
            }
        })
    },
};
