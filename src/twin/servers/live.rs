//! Servers of the cluster that faults stop and start again: the API server, CoreDNS, the applications.

use super::internet::names;
use super::{Servers, app, coredns, start_api};
use crate::def::Inventory;
use crate::twin::cluster::Cluster;
use crate::twin::service::ServerHandle;
use crate::twin::service::api::ApiHandle;
use crate::twin::service::api::kubelet::Trouble;
use crate::twin::service::dns::{CoreDnsHandle, serve_failing, serve_outside};
use crate::twin::service::kube_proxy;
use crate::twin::service::pki::Validity;
use crate::twin::topology::Hosts;
use crate::vantage::Net;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Mutex, PoisonError};

/// A server that may be stopped.
pub(super) struct Slot<T>(Mutex<Option<T>>);

impl<T> Slot<T> {
    pub(super) fn new(running: T) -> Self {
        Self(Mutex::new(Some(running)))
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, running: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    /// Looks at it if it runs.
    pub(super) fn with(&self, look: impl FnOnce(&T)) {
        if let Some(running) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            look(running);
        }
    }
}

impl Servers {
    /// Stops the API server: its port is closed when this returns.
    pub async fn stop_api(&self) {
        if let Some(api) = self.api.take() {
            ApiHandle::stop(api).await;
        }
    }

    /// Starts the API server anew, with a certificate that is valid or not.
    ///
    /// # Errors
    /// When its host or pod is missing, or its address cannot be listened on.
    pub async fn restart_api(&self, hosts: &Hosts, cluster: &Cluster, inv: &Inventory, validity: Validity) -> Result<()> {
        self.stop_api().await;
        self.api.put(start_api(hosts, cluster, inv, &self.authority, validity)?);
        Ok(())
    }

    /// Makes the API server's datastore hang, or lets it go on.
    pub fn set_datastore_hung(&self, hung: bool) {
        self.api.with(|api| api.set_datastore_hung(hung));
    }

    /// Sets how far the clock of the API server's host is ahead.
    pub fn set_api_clock(&self, ahead: chrono::TimeDelta) {
        self.api.with(|api| api.set_clock_ahead(ahead));
    }

    /// Breaks the way from the API server to the kubelet of a node's address, or mends it.
    pub fn set_kubelet(&self, node: Ipv4Addr, trouble: Option<Trouble>) {
        self.api.with(|api| api.set_kubelet(node, trouble));
    }

    /// Stops CoreDNS: its process is gone, its pod stays.
    pub async fn stop_coredns(&self) {
        if let Some(dns) = self.coredns.take() {
            CoreDnsHandle::stop(dns).await;
        }
    }

    /// Starts CoreDNS anew, with an empty cache and the documented upstream resolvers.
    ///
    /// # Errors
    /// When its host or pod is missing, or its address cannot be listened on.
    pub async fn restart_coredns(&self, hosts: &Hosts, cluster: &Cluster, inv: &Inventory) -> Result<()> {
        self.restart_coredns_with(hosts, cluster, inv, &inv.dns.upstream).await
    }

    /// Starts CoreDNS anew in a new pod, with an empty cache and upstream resolvers of its own.
    ///
    /// # Errors
    /// When its host or pod is missing, or its address cannot be listened on.
    pub async fn restart_coredns_with(&self, hosts: &Hosts, cluster: &Cluster, inv: &Inventory, upstream: &[Ipv4Addr]) -> Result<()> {
        self.stop_coredns().await;
        cluster.logs().clear("kube-system", "coredns");
        self.coredns.put(coredns(hosts, cluster, inv, upstream)?);
        Ok(())
    }

    /// Lets CoreDNS forward to other resolvers.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddrV4>) {
        self.coredns.with(|dns| dns.set_upstreams(upstreams));
    }

    /// Empties CoreDNS' cache.
    pub fn flush_dns(&self) {
        self.coredns.with(CoreDnsHandle::flush);
    }

    /// Puts a denial of a name into CoreDNS' cache, as a query before the name existed does; or takes it out.
    pub fn set_stale_denial(&self, name: &str, stale: bool) {
        self.coredns.with(|dns| dns.set_stale_denial(name, stale));
    }

    /// Gives an outside name an address at every upstream resolver, or takes it away; `*.example.com` is everything below.
    pub fn set_outside_name(&self, name: &str, address: Option<Ipv4Addr>) {
        for resolver in &self.resolvers {
            resolver.set(name, address);
        }
    }

    /// Starts a resolver that knows no upstream, as tailscaled's on a node.
    ///
    /// # Errors
    /// When its address cannot be listened on.
    pub fn start_magic_dns(&self, net: &Net, address: SocketAddrV4) -> Result<()> {
        self.keep_resolver(serve_failing(net, address)?);
        Ok(())
    }

    /// Starts a resolver of a node's own that knows the outside names, such as dnsmasq on a loopback address.
    ///
    /// # Errors
    /// When its address cannot be listened on.
    pub fn start_local_resolver(&self, net: &Net, address: SocketAddrV4, inv: &Inventory) -> Result<()> {
        self.keep_resolver(serve_outside(net, address, names(inv))?.into_server());
        Ok(())
    }

    fn keep_resolver(&self, running: ServerHandle) {
        self.node_resolvers.lock().unwrap_or_else(PoisonError::into_inner).push(running);
    }

    /// Stops all of these resolvers.
    pub async fn stop_node_resolvers(&self) {
        let running = std::mem::take(&mut *self.node_resolvers.lock().unwrap_or_else(PoisonError::into_inner));
        for server in running {
            server.stop().await;
        }
    }

    /// Ends what a node's kube-proxy says of itself: its ports are closed when this returns.
    pub async fn stop_kube_proxy(&self, node: &str) {
        let ports = self.kube_proxy.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        for port in ports.into_iter().flatten() {
            port.stop().await;
        }
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When its ports cannot be listened on.
    pub fn start_kube_proxy(&self, node: &str, net: &Net) -> Result<()> {
        let ports = kube_proxy::serve(net)?;
        self.kube_proxy.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), ports);
        Ok(())
    }

    /// Stops the application of a pod: its port is closed when this returns.
    pub async fn stop_app(&self, pod: &str) {
        let app = self.apps.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        if let Some(app) = app {
            app.stop().await;
        }
    }

    /// Starts the application of a pod again.
    ///
    /// # Errors
    /// When there is no such pod, or its address cannot be listened on.
    pub fn start_app(&self, hosts: &Hosts, inv: &Inventory, pod: &str) -> Result<()> {
        let found = inv.pods.iter().find(|p| p.name == pod).with_context(|| format!("the inventory has no pod {pod}"))?;
        let running = app(hosts, found)?;
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.to_owned(), running);
        Ok(())
    }
}
