//! What a node opens for a service to the outside: `externalTrafficPolicy` decides who is led to which endpoints.

use super::{Fate, Seen, nowhere, one_of, port_name, protocol, service_chain};
use crate::def::inventory::Node;
use crate::twin::nft::{Batch, Rule};
use ipnet::Ipv4Net;

/// Sets of node ports are numbered from here.
const SETS: u32 = 2000;

/// Opens the node port of a service, if it has one, at the node's own address (`--nodeport-addresses=primary`).
pub(super) fn open(batch: Batch, seen: &Seen, number: u32, node: &Node, pods: Ipv4Net) -> Batch {
    let (service, Some(address)) = (seen.rule, node.tailscale.map(Ipv4Net::from)) else { return batch };
    let Some(open) = service.node_port else { return batch };
    let to_port = || Rule::new().to(address, true).protocol(protocol(service)).port(open.port);
    let name = format!("external-{}", port_name(service));
    let batch = batch.inner_chain(&name).rule("services", to_port().jump(&name));
    let batch = match (open.local, seen.led().is_empty()) {
        (_, true) => batch,
        (false, false) => batch.rule(&name, Rule::new().jump("mark-for-masquerade")).rule(&name, Rule::new().jump(&service_chain(service))),
        // Whoever is inside the cluster already is not subject to the policy: pods, and the node itself.
        (true, false) => batch
            .rule(&name, Rule::new().from(pods, true).jump(&service_chain(service)))
            .rule(&name, Rule::new().from(address, true).jump("mark-for-masquerade"))
            .rule(&name, Rule::new().from(address, true).jump(&service_chain(service))),
    };
    let batch = if open.local && !seen.own.is_empty() { one_of(batch, &name, service, &seen.own, SETS + number) } else { batch };
    let led = if open.local { &seen.own } else { &service.endpoints };
    match nowhere(service) {
        _ if !led.is_empty() => batch,
        Fate::Drop => batch.rule("nodeport-endpoints-check", to_port().drop()),
        Fate::Goto(chain) => batch.rule("nodeport-endpoints-check", to_port().jump(&chain)),
    }
}
