//! Which servers run on which host of the twin, and what its hosts' files hold.

use super::TAILSCALE_SOCKET;
use super::cluster::Cluster;
use super::nft::{Batch, Hook, Rule};
use super::overlay::Overlay;
use super::service::dns::{CoreDns, CoreDnsHandle, OutsideHandle, serve_outside};
use super::service::localapi::{self, ExitNode, Peer, TailscaleHandle, TailscaleState};
use super::service::pki::{Authority, Validity};
use super::service::vllm::{Pace, Vllm, VllmHandle};
use super::service::{ServerHandle, api, apps, postgres};
use super::topology::{HOME_PUBLIC, Hosts, pod_host};
use super::wire::Wire;
use crate::def::Inventory;
use crate::def::inventory::{Node, Pod};
use crate::vantage::{HostFiles, Net, Source, UnixAddress, VantageKind};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// Addresses for outside names that the inventory states without one (RFC 5737 documentation ranges).
const FIRST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// What github.com resolves to in the architecture document (line 732).
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(140, 82, 121, 4);

/// The running servers, with handles for what faults change.
pub struct Servers {
    authority: Arc<Authority>,
    kubeconfigs: Kubeconfigs,
    coredns: CoreDnsHandle,
    database: postgres::PgHandle,
    vllm: Vec<VllmHandle>,
    tailscale: BTreeMap<String, TailscaleHandle>,
    _others: Vec<ServerHandle>,
    _resolvers: Vec<OutsideHandle>,
    _api: api::ApiHandle,
}

struct Kubeconfigs {
    /// For pods and the workstation: by ClusterIP.
    inside: String,
    /// For nodes: as agents join.
    node: String,
}

/// Outside names of the inventory with their addresses.
fn names(inv: &Inventory) -> BTreeMap<String, Ipv4Addr> {
    let mut names = BTreeMap::from([(inv.dns.external_name.clone(), EXTERNAL)]);
    for database in &inv.databases {
        names.extend(database.address.map(|a| (database.host.clone(), a)));
    }
    let mut next = u32::from(FIRST_OUTSIDE);
    for host in outside_hosts(inv) {
        names.entry(host).or_insert_with(|| {
            next += 1;
            Ipv4Addr::from(next)
        });
    }
    names
}

fn outside_hosts(inv: &Inventory) -> impl Iterator<Item = String> {
    let urls = inv.egress.echoes.iter().chain(inv.https.iter().map(|h| &h.url));
    urls.filter_map(|url| reqwest::Url::parse(url).ok()?.host_str().map(str::to_owned))
}

/// Addresses of servers on the internet that the twin's internet router stands for.
pub fn public_addresses(inv: &Inventory) -> Vec<Ipv4Addr> {
    let databases: Vec<Ipv4Addr> = inv.databases.iter().filter_map(|d| d.address).collect();
    let mut all = inv.dns.upstream.clone();
    all.extend(names(inv).into_values().filter(|a| !databases.contains(a)));
    all.sort_unstable();
    all.dedup();
    all
}

impl Servers {
    /// Starts every server; each listens when this returns.
    pub fn start(hosts: &Hosts, cluster: &Cluster, inv: &Inventory, overlays: &[Overlay]) -> Result<Self> {
        let authority = Arc::new(Authority::new("fathom twin")?);
        let net = |name: &str| hosts.get(name).map(|w| &w.net).with_context(|| format!("the twin has no host {name}"));
        let mut others = apps(hosts, inv)?;
        others.extend(outside(net("internet")?, inv, &authority)?);
        let database = inv.databases.first().context("the twin needs a database in the inventory")?;
        let address = SocketAddrV4::new(database.address.context("the twin needs the database's address")?, database.port);
        let crunchy = hosts.get("crunchy").context("the twin has no host crunchy")?;
        let servers = Self {
            kubeconfigs: Kubeconfigs {
                inside: authority.kubeconfig(&format!("https://{}", inv.cluster.api), Validity::Current)?,
                node: authority.kubeconfig(&format!("https://{}", inv.cluster.api_endpoint), Validity::Current)?,
            },
            coredns: coredns(hosts, cluster, inv)?,
            database: postgres::serve(
                &crunchy.net,
                address,
                authority.server(&[&database.host], &[*address.ip()])?,
                vec![Ipv4Net::default()],
            )?,
            vllm: inv
                .vllms
                .iter()
                .map(|v| Ok(model_server(v).serve(net("dgx")?, SocketAddrV4::new(v.address, v.port))?))
                .collect::<Result<_>>()?,
            tailscale: overlays.iter().map(|o| Ok((o.node.name.clone(), tailscale(o, inv)?))).collect::<Result<_>>()?,
            _others: others,
            _resolvers: inv
                .dns
                .upstream
                .iter()
                .map(|ip| Ok(serve_outside(net("internet")?, SocketAddrV4::new(*ip, 53), names(inv))?))
                .collect::<Result<_>>()?,
            _api: start_api(hosts, cluster, inv, &authority)?,
            authority,
        };
        servers.set_database_firewall(crunchy, &servers.database_allowlist(inv))?;
        servers.set_pg_hba(servers.database_allowlist(inv));
        Ok(servers)
    }

    /// Source ranges that the documented allowlist holds.
    pub fn database_allowlist(&self, inv: &Inventory) -> Vec<Ipv4Net> {
        inv.databases.iter().flat_map(|d| &d.allowlist).map(|entry| entry.cidr).collect()
    }

    /// Programs the packet filter in front of the database: who is not admitted is dropped.
    pub fn set_database_firewall(&self, crunchy: &Wire, allowed: &[Ipv4Net]) -> Result<()> {
        let port = self.database.address().map_or(5432, |a| a.port());
        let batch = Batch::replace("allowlist").fresh().chain("input", "filter", Hook::Input, 0);
        let batch = allowed.iter().fold(batch, |b, net| b.rule("input", Rule::new().from(*net, true).protocol(6).port(port).accept()));
        Ok(batch.rule("input", Rule::new().protocol(6).port(port).counted().drop()).commit(&crunchy.net)?)
    }

    /// Replaces what the database's pg_hba.conf admits.
    pub fn set_pg_hba(&self, allowed: Vec<Ipv4Net>) {
        self.database.set_allowed(allowed);
    }

    /// Freezes the model servers' engines, or lets them go on.
    pub fn set_vllm_frozen(&self, frozen: bool) {
        self.vllm.iter().for_each(|v| v.set_frozen(frozen));
    }

    /// Empties CoreDNS' cache.
    pub fn flush_dns(&self) {
        self.coredns.flush();
    }

    /// Brings tailscaled's account of itself into line with the node's preferences.
    pub fn sync_tailscale(&self, overlay: &Overlay, all: &[Overlay], inv: &Inventory) {
        let Some(handle) = self.tailscale.get(&overlay.node.name) else { return };
        let preferences = overlay.preferences();
        let exit = all.iter().find(|o| inv.tailnet.exit_node.as_ref() == Some(&o.node.name)).and_then(|o| o.node.tailscale);
        handle.update(|state| {
            state.exit_node = exit.filter(|_| preferences.exit_node).map(|address| ExitNode { address, online: true });
            state.lan_access = preferences.lan_access;
        });
    }

    /// Files of a node.
    pub fn node_files(&self, inv: &Inventory, _node: &Node) -> HostFiles {
        self.files(resolvers(inv), Some(self.kubeconfigs.node.clone()))
    }

    /// Files of a pod of the documented namespace.
    pub fn pod_files(&self, inv: &Inventory) -> HostFiles {
        let dns = &inv.dns;
        let text = format!("search {}\nnameserver {}\noptions ndots:{}\n", dns.search.join(" "), dns.nameserver, dns.ndots);
        self.files(text, Some(self.kubeconfigs.inside.clone()))
    }

    /// Files of a workstation, which has a kubeconfig, or of a CI runner, which has none.
    pub fn outside_files(&self, inv: &Inventory, kind: VantageKind) -> HostFiles {
        self.files(resolvers(inv), (kind == VantageKind::Workstation).then(|| self.kubeconfigs.inside.clone()))
    }

    fn files(&self, resolv_conf: String, kubeconfig: Option<String>) -> HostFiles {
        HostFiles {
            resolv_conf: Source::Text(resolv_conf),
            kubeconfig: kubeconfig.map(Source::Text),
            tailscale_socket: None,
            subnet_env: None,
            trust: Some(vec![self.authority.certificate()]),
        }
    }
}

/// A model server at a pace that an H100 could have for a short prompt.
fn model_server(vllm: &crate::def::inventory::Vllm) -> Vllm {
    let pace = Pace { first_token: Duration::from_millis(40), interval: Duration::from_millis(5) };
    Vllm { model: vllm.model.clone(), max_model_len: vllm.max_model_len.unwrap_or(8192), pace }
}

fn resolvers(inv: &Inventory) -> String {
    inv.dns.upstream.iter().map(|ip| format!("nameserver {ip}\n")).collect()
}

fn pod_net<'a>(hosts: &'a Hosts, pod: &Pod) -> Result<&'a Net> {
    let name = pod_host(&pod.namespace, &pod.name);
    hosts.get(&name).map(|w| &w.net).with_context(|| format!("the twin has no pod {name}"))
}

/// CoreDNS in the pod that the kube-dns service selects.
fn coredns(hosts: &Hosts, cluster: &Cluster, inv: &Inventory) -> Result<CoreDnsHandle> {
    let pod =
        inv.pods.iter().find(|p| p.labels.get("k8s-app").is_some_and(|v| v == "kube-dns")).context("the inventory has no CoreDNS pod")?;
    let upstreams = inv.dns.upstream.iter().map(|ip| SocketAddrV4::new(*ip, 53)).collect();
    Ok(CoreDns::new(pod.address, upstreams).serve(pod_net(hosts, pod)?, cluster.clone())?)
}

/// The HTTP applications in the other pods.
fn apps(hosts: &Hosts, inv: &Inventory) -> Result<Vec<ServerHandle>> {
    let mut servers = Vec::new();
    for pod in inv.pods.iter().filter(|p| !p.labels.contains_key("k8s-app")) {
        for port in pod.ports.iter().filter(|p| p.name == "http") {
            servers.push(apps::App::new(&pod.name, "uvicorn").serve(
                pod_net(hosts, pod)?,
                SocketAddrV4::new(pod.address, port.port),
                None,
            )?);
        }
    }
    Ok(servers)
}

/// Address echoes and portals on the internet, over TLS as documented.
fn outside(internet: &Net, inv: &Inventory, authority: &Authority) -> Result<Vec<ServerHandle>> {
    let names = names(inv);
    let listen = |url: &str| -> Result<(SocketAddrV4, Option<Arc<ServerConfig>>)> {
        let url = reqwest::Url::parse(url).with_context(|| format!("URL {url}"))?;
        let host = url.host_str().unwrap_or_default();
        let address = *names.get(host).with_context(|| format!("{host} has no address in the twin"))?;
        let tls = (url.scheme() == "https").then(|| authority.server(&[host], &[address])).transpose()?;
        Ok((SocketAddrV4::new(address, url.port_or_known_default().unwrap_or(443)), tls))
    };
    let mut servers = Vec::new();
    for url in &inv.egress.echoes {
        let (address, tls) = listen(url)?;
        servers.push(apps::echo(internet, address, tls)?);
    }
    for endpoint in &inv.https {
        let (address, tls) = listen(&endpoint.url)?;
        servers.push(apps::App::new(&endpoint.name, "cloudflare").serve(internet, address, tls)?);
    }
    Ok(servers)
}

/// The API server, on the node that agents join.
fn start_api(hosts: &Hosts, cluster: &Cluster, inv: &Inventory, authority: &Arc<Authority>) -> Result<api::ApiHandle> {
    let endpoint = inv.cluster.api_endpoint;
    let node = inv
        .nodes
        .iter()
        .find(|n| n.tailscale == Some(*endpoint.ip()) || n.public == Some(*endpoint.ip()))
        .context("no node has the API endpoint's address")?;
    let wire = hosts.get(&node.name).with_context(|| format!("the twin has no node {}", node.name))?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", &node.kube_name];
    let mut addresses = vec![*inv.cluster.api.ip(), *endpoint.ip(), Ipv4Addr::LOCALHOST];
    addresses.extend(node.public);
    let tls = authority.server_that_asks(&names, &addresses, Validity::Current)?;
    let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, endpoint.port());
    Ok(api::serve(&wire.net, listen, cluster.clone(), authority.clone(), tls, &inv.cluster.version)?)
}

/// tailscaled's LocalAPI of a node.
fn tailscale(overlay: &Overlay, inv: &Inventory) -> Result<TailscaleHandle> {
    let node = &overlay.node;
    let address = node.tailscale.context("a node of the twin has a Tailscale address")?;
    let mut state = TailscaleState::new(&node.kube_name, address, &inv.tailnet.name);
    let is_exit = inv.tailnet.exit_node.as_ref() == Some(&node.name);
    state.advertises_exit = is_exit;
    state.exit_approved = is_exit;
    for peer in inv.nodes.iter().filter(|n| n.name != node.name) {
        let Some(ip) = peer.tailscale else { continue };
        let endpoint = SocketAddrV4::new(peer.public.unwrap_or(HOME_PUBLIC), 41641);
        let mut peer_state = Peer::new(&peer.kube_name, ip, Some(endpoint));
        peer_state.exit_node_option = inv.tailnet.exit_node.as_ref() == Some(&peer.name);
        state.peers.push(peer_state);
    }
    Ok(localapi::serve(&overlay.wire.net, &UnixAddress::Abstract(TAILSCALE_SOCKET.to_owned()), state)?)
}
