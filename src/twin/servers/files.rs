//! What the files of the twin's hosts hold.

use super::Servers;
use crate::def::Inventory;
use crate::def::inventory::Node;
use crate::vantage::{HostFiles, Source, VantageKind};
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// How resolver configurations differ from the documented ones.
#[derive(Clone, Debug, Default)]
pub struct Resolv {
    /// Lines that stand in a node's resolv.conf in place of its nameservers; by node.
    pub nodes: BTreeMap<String, String>,
    /// systemd-resolved's own file of upstream nameservers is missing on every node.
    pub no_systemd: bool,
    /// Search domains that pods have inherited from their nodes, after the documented ones.
    pub inherited: Vec<String>,
}

impl Servers {
    /// Changes resolver configurations: what vantages made afterwards read.
    pub fn set_resolv(&self, change: impl FnOnce(&mut Resolv)) {
        change(&mut self.resolv.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn resolv(&self) -> Resolv {
        self.resolv.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Files of a node. What pods inherit, its own resolver has too.
    pub fn node_files(&self, inv: &Inventory, node: &Node) -> HostFiles {
        let resolv = self.resolv();
        let mut text = resolv.nodes.get(&node.name).cloned().unwrap_or_else(|| resolvers(inv));
        if !resolv.inherited.is_empty() {
            text.push_str(&format!("search {}\n", resolv.inherited.join(" ")));
        }
        let systemd = if resolv.no_systemd { String::new() } else { resolvers(inv) };
        HostFiles { systemd_resolv_conf: Some(Source::Text(systemd)), ..self.files(text, Some(self.kubeconfigs.node.clone())) }
    }

    /// Files of a pod of the documented namespace.
    pub fn pod_files(&self, inv: &Inventory) -> HostFiles {
        let dns = &inv.dns;
        let search: Vec<String> = dns.search.iter().cloned().chain(self.resolv().inherited).collect();
        let text = format!("search {}\nnameserver {}\noptions ndots:{}\n", search.join(" "), dns.nameserver, dns.ndots);
        self.files(text, Some(self.kubeconfigs.inside.clone()))
    }

    /// Files of a workstation, which has a kubeconfig, or of a CI runner, which has none.
    pub fn outside_files(&self, inv: &Inventory, kind: VantageKind) -> HostFiles {
        let path = (kind == VantageKind::Workstation).then(|| self.warp.path());
        let files = self.files(resolvers(inv), (kind == VantageKind::Workstation).then(|| self.kubeconfigs.inside.clone()));
        HostFiles { path, ..files }
    }

    /// Changes the variables of everybody's environment, as `NAME=VALUE` lines: what vantages made afterwards read.
    pub fn set_environment(&self, text: &str) {
        text.clone_into(&mut self.environment.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes what the journal of the model servers' host holds: what vantages made afterwards read.
    pub fn set_model_journal(&self, text: &str) {
        text.clone_into(&mut self.model_journal.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Files of the model servers' host, for somebody who sits at it as at a workstation.
    pub fn model_host_files(&self, inv: &Inventory) -> HostFiles {
        let journal = self.model_journal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        HostFiles { journal: Some(Source::Text(journal)), ..self.files(resolvers(inv), None) }
    }

    fn files(&self, resolv_conf: String, kubeconfig: Option<String>) -> HostFiles {
        HostFiles {
            resolv_conf: Source::Text(resolv_conf),
            kubeconfig: kubeconfig.map(Source::Text),
            context: None,
            systemd_resolv_conf: Some(Source::Text(String::new())),
            tailscale_socket: None,
            path: None,
            journal: None,
            environment: Some(Source::Text(self.environment.lock().unwrap_or_else(PoisonError::into_inner).clone())),
            subnet_env: None,
            pgpass: Some(Source::Text(self.pgpass.clone())),
            trust: Some(vec![self.authority.certificate()]),
        }
    }
}

fn resolvers(inv: &Inventory) -> String {
    inv.dns.upstream.iter().map(|ip| format!("nameserver {ip}\n")).collect()
}
