//! The connection tracking table of calypso is full: no new connection of it or through it finds a place.

use super::Fault;
use crate::twin::conntrack;

pub(super) static FAULT: Fault = Fault {
    id: "conntrack-full",
    layer: 2,
    title: "the connection tracking table of calypso is full",
    expects: "conntrack-full",
    decided_from: &["calypso"],
    apply: |twin| Box::pin(async move { conntrack::fill(&twin.host("calypso")?.net).map(|_| ()) }),
    undo: |twin| Box::pin(async move { conntrack::flush(&twin.host("calypso")?.net) }),
};
