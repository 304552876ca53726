//! Faults of the twin: each one small file with apply, undo and the cause code that must be diagnosed.
//!
//! Only tests and people read this list; the diagnosis never does.

mod br_netfilter_off;
mod coredns_upstream_dead;
mod egress_ip_differs;
mod endpoints_empty_selector;
mod exit_node_swallows_cluster_cidr;
mod exit_node_without_lan_access;
mod flannel_entries;
mod flannel_recreated_bare;
mod forward_policy_drop;
mod host_firewall_rejects_pod_to_host;
mod ip_forward_zero;
mod mtu;
mod pg_allowlist_drop;
mod pg_source_refused_by_gateway;
mod pod_subnet;
mod podcidr_route_missing;
mod stale_vtep_mac;
mod ts_restart_removes_flannel;
mod udp8472_blocked;
mod vllm_engine_dead_health_ok;
mod vxlan_bad_outer_checksum;

use super::Twin;
use anyhow::Result;
use futures::future::BoxFuture;
use serde::Serialize;

/// Something that the twin can break.
pub struct Fault {
    /// Name on the command line.
    pub id: &'static str,
    /// Layer in which it lies, 1 to 4.
    pub layer: u8,
    /// One sentence.
    pub title: &'static str,
    /// The cause code that must be diagnosed.
    pub expects: &'static str,
    /// Vantage sets (as `--from` takes them) from which the facts suffice.
    pub decided_from: &'static [&'static str],
    /// Breaks it.
    pub apply: Action,
    /// Mends it.
    pub undo: Action,
}

/// One way of a fault.
pub type Action = for<'a> fn(&'a Twin) -> BoxFuture<'a, Result<()>>;

/// Every fault, by layer.
pub static FAULTS: &[&Fault] = &[
    &ts_restart_removes_flannel::FAULT,
    &flannel_recreated_bare::FAULT,
    &exit_node_swallows_cluster_cidr::FAULT,
    &exit_node_without_lan_access::FAULT,
    &udp8472_blocked::FAULT,
    &udp8472_blocked::REJECTED,
    &ip_forward_zero::FAULT,
    &podcidr_route_missing::FAULT,
    &stale_vtep_mac::REWRITTEN,
    &stale_vtep_mac::NOT_LEARNT,
    &flannel_entries::FDB_MISSING,
    &flannel_entries::FDB_STALE,
    &flannel_entries::NEIGHBOUR_MISSING,
    &forward_policy_drop::BARE,
    &forward_policy_drop::DOCKER,
    &host_firewall_rejects_pod_to_host::FAULT,
    &vxlan_bad_outer_checksum::FAULT,
    &mtu::FRAGMENTS,
    &br_netfilter_off::FAULT,
    &pod_subnet::UNASSIGNED,
    &pod_subnet::FILE_MISSING,
    &mtu::BLACK_HOLE,
    &coredns_upstream_dead::FAULT,
    &endpoints_empty_selector::FAULT,
    &egress_ip_differs::FAULT,
    &pg_allowlist_drop::FAULT,
    &pg_source_refused_by_gateway::FAULT,
    &vllm_engine_dead_health_ok::FAULT,
];

impl Fault {
    /// Breaks the twin.
    pub async fn apply(&self, twin: &Twin) -> Result<()> {
        (self.apply)(twin).await
    }

    /// Mends it again.
    pub async fn undo(&self, twin: &Twin) -> Result<()> {
        (self.undo)(twin).await
    }
}

/// The faults of a comma list; the error names the one that does not exist.
pub fn parse(list: &str) -> Result<Vec<&'static Fault>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| {
            FAULTS
                .iter()
                .copied()
                .find(|f| f.id == id)
                .ok_or_else(|| format!("the twin has no fault `{id}`; `fathom twin faults` names them all"))
        })
        .collect()
}

/// A fault as `fathom twin faults --json` lists it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Name on the command line.
    pub id: &'static str,
    /// Layer.
    pub layer: u8,
    /// One sentence.
    pub title: &'static str,
    /// The cause code that must be diagnosed.
    pub expects: &'static str,
    /// Vantage sets from which the facts suffice.
    pub decided_from: &'static [&'static str],
}

/// All faults, for listing.
pub fn list() -> Vec<Listed> {
    FAULTS.iter().map(|f| Listed { id: f.id, layer: f.layer, title: f.title, expects: f.expects, decided_from: f.decided_from }).collect()
}
