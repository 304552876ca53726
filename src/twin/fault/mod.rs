//! Faults of the twin: each one small file with apply, undo and the cause code that must be diagnosed.
//!
//! Only tests and people read this list; the diagnosis never does. Nothing that a probe can see, such as the name of a table of
//! the packet filter, may tell which fault it is.

mod api_datastore_hung;
mod api_server_down;
mod app_not_listening;
mod br_netfilter_off;
mod clock_skew;
mod cloudflared_no_quic;
mod cloudflared_route_or_origin_dial;
mod conntrack_full;
mod coredns_down;
mod coredns_loop;
mod coredns_single_replica_node_down;
mod coredns_upstream_dead;
mod derp_relay;
mod egress_ip_differs;
mod egress_ipv6;
mod endpoints_empty_selector;
mod endpoints_not_ready;
mod exit_node_approval_removed;
mod exit_node_not_usable;
mod exit_node_offline;
mod exit_node_swallows_cluster_cidr;
mod exit_node_without_lan_access;
mod flannel_entries;
mod flannel_recreated_bare;
mod flannel_wrong_iface;
mod forward_policy_drop;
mod fwmark_collision;
mod host_firewall_rejects_pod_to_host;
mod icmp_limited_hop;
mod ip_forward_zero;
mod iptables_duplicate_rules;
mod k3s_cert_expired;
mod k3s_fallback_8888;
mod kube_proxy_dead;
mod kube_proxy_rules_missing;
mod kube_proxy_stale_dnat;
mod kubelet_path;
mod magicdns_in_node_resolv;
mod mtu;
mod ndots_amplification;
mod networkpolicy;
mod no_proxy_missing;
mod nxdomain_cached;
mod pg_allowlist_drop;
mod pg_idle_connection_dropped;
mod pg_in_its_place;
mod pg_login;
mod pg_source_refused_by_gateway;
mod pg_tls_required;
mod pg_too_many_clients;
mod pod_egress_not_masqueraded;
mod pod_subnet;
mod podcidr_route_missing;
mod portal;
mod rp_filter_strict;
mod search_domain_hijack;
mod stale_vtep_mac;
mod storage;
mod tailscale_stopped;
mod tailscaled_killed;
mod targetport_name_mismatch;
mod terminating_endpoints;
mod tls_in_the_middle;
mod traffic_policy;
mod ts_key_expired;
mod ts_restart_removes_flannel;
mod ts_stateful_filtering;
mod udp8472_blocked;
mod udp8472_eaten_by_hypervisor;
mod vllm_engine_dead_health_ok;
mod vllm_loading;
mod vllm_oom_start;
mod vllm_page;
mod vllm_slow_path;
mod vllm_traffic;
mod vllm_trouble;
mod vllm_wrong_model_name;
mod vxlan_bad_outer_checksum;
mod vxlan_over_ts_gso_stall;
mod warp_dns_fallback;
mod warp_split_tunnel;
mod warp_versus_tailscale;

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
    /// The cause code that must be diagnosed; empty if it is no fault, and nothing may be claimed.
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
    &icmp_limited_hop::FAULT,
    &derp_relay::FAULT,
    &ts_key_expired::FAULT,
    &tailscale_stopped::FAULT,
    &tailscaled_killed::FAULT,
    &exit_node_not_usable::FAULT,
    &exit_node_approval_removed::FAULT,
    &exit_node_offline::FAULT,
    &fwmark_collision::FAULT,
    &rp_filter_strict::FAULT,
    &ts_stateful_filtering::FAULT,
    &warp_versus_tailscale::FAULT,
    &flannel_wrong_iface::FAULT,
    &ts_restart_removes_flannel::FAULT,
    &flannel_recreated_bare::FAULT,
    &exit_node_swallows_cluster_cidr::FAULT,
    &exit_node_without_lan_access::FAULT,
    &udp8472_blocked::FAULT,
    &udp8472_blocked::REJECTED,
    &udp8472_eaten_by_hypervisor::FAULT,
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
    &vxlan_over_ts_gso_stall::FAULT,
    &br_netfilter_off::FAULT,
    &conntrack_full::FAULT,
    &iptables_duplicate_rules::FAULT,
    &pod_subnet::UNASSIGNED,
    &pod_subnet::FILE_MISSING,
    &mtu::BLACK_HOLE,
    &pod_egress_not_masqueraded::FAULT,
    &coredns_upstream_dead::FAULT,
    &endpoints_empty_selector::FAULT,
    &endpoints_not_ready::FAULT,
    &targetport_name_mismatch::FAULT,
    &app_not_listening::FAULT,
    &api_server_down::FAULT,
    &api_datastore_hung::FAULT,
    &k3s_cert_expired::FAULT,
    &clock_skew::FAULT,
    &kubelet_path::TUNNEL,
    &kubelet_path::CERTIFICATE,
    &coredns_down::FAULT,
    &coredns_loop::FAULT,
    &coredns_single_replica_node_down::FAULT,
    &nxdomain_cached::FAULT,
    &search_domain_hijack::FAULT,
    &ndots_amplification::FAULT,
    &magicdns_in_node_resolv::FAULT,
    &k3s_fallback_8888::FAULT,
    &kube_proxy_stale_dnat::FAULT,
    &kube_proxy_rules_missing::FAULT,
    &kube_proxy_dead::FAULT,
    &terminating_endpoints::FAULT,
    &traffic_policy::INTERNAL,
    &traffic_policy::EXTERNAL,
    &no_proxy_missing::FAULT,
    &networkpolicy::REJECTS,
    &networkpolicy::DROPS,
    &networkpolicy::EGRESS,
    &networkpolicy::STARTUP,
    &egress_ip_differs::FAULT,
    &egress_ipv6::FAULT,
    &warp_split_tunnel::FAULT,
    &warp_dns_fallback::FAULT,
    &cloudflared_no_quic::FAULT,
    &cloudflared_route_or_origin_dial::FAULT,
    &pg_allowlist_drop::FAULT,
    &pg_source_refused_by_gateway::FAULT,
    &vllm_engine_dead_health_ok::FAULT,
    &pg_tls_required::FAULT,
    &pg_in_its_place::REFUSED,
    &pg_in_its_place::NOT_POSTGRES,
    &pg_in_its_place::TLS_FAILED,
    &pg_too_many_clients::FAULT,
    &pg_login::PASSWORD,
    &pg_login::ROLE,
    &pg_login::DATABASE,
    &pg_idle_connection_dropped::FAULT,
    &vllm_loading::FAULT,
    &vllm_oom_start::FAULT,
    &vllm_wrong_model_name::FAULT,
    &vllm_traffic::QUEUEING,
    &vllm_traffic::LONG_PREFILL,
    &vllm_traffic::PREEMPTING_REQUESTS,
    &vllm_slow_path::FAULT,
    &vllm_slow_path::UPLOAD,
    &vllm_trouble::QUEUE_FULL,
    &vllm_trouble::ENGINE_CRASHED,
    &vllm_trouble::METRICS_ENDPOINT_WRONG,
    &vllm_page::OOM_RUN,
    &vllm_page::REPETITION,
    &vllm_page::CPU_BOUND,
    &vllm_page::TOO_LONG,
    &vllm_page::IMAGE_FETCH,
    &portal::EXTERNAL_5XX,
    &portal::CF_524,
    &tls_in_the_middle::CAPTIVE_PORTAL,
    &tls_in_the_middle::PLAIN_PORTAL,
    &tls_in_the_middle::TLS_INSPECTION,
    &storage::ACCESS_DENIED,
    &storage::UNAVAILABLE,
];

impl Fault {
    /// The cause that must be diagnosed; `None` if nothing may be claimed.
    pub fn cause(&self) -> Option<&'static str> {
        (!self.expects.is_empty()).then_some(self.expects)
    }

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
            FAULTS.iter().copied().find(|f| f.id == id).ok_or_else(|| {
                let hint = crate::def::near::hint(id, FAULTS.iter().map(|f| f.id));
                format!("the twin has no fault `{id}`{hint}; `fathom twin faults` names them all")
            })
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
    /// The cause code that must be diagnosed; null if nothing may be claimed.
    pub expects: Option<&'static str>,
    /// Vantage sets from which the facts suffice.
    pub decided_from: &'static [&'static str],
}

/// All faults, for listing.
pub fn list() -> Vec<Listed> {
    FAULTS.iter().map(|f| Listed { id: f.id, layer: f.layer, title: f.title, expects: f.cause(), decided_from: f.decided_from }).collect()
}
