//! Which servers run on which host of the twin, and what its hosts' files hold.

mod files;
mod internet;
mod live;
pub(super) mod six;

pub use files::Resolv;
pub use internet::public_addresses;

use super::TAILSCALE_SOCKET;
use super::cluster::Cluster;
use super::nft::{Batch, Hook, Rule};
use super::overlay::{Daemon, Overlay};
use super::service::dns::{CoreDns, CoreDnsHandle, OutsideHandle};
use super::service::localapi::{self, Backend, ExitNode, Live, Peer, TailscaleHandle, TailscaleState};
use super::service::pki::{Authority, User, Validity};
use super::service::vllm::{Pace, Vllm, VllmHandle};
use super::service::{ServerHandle, api, apps, kube_proxy, postgres};
use super::topology::{HOME_PUBLIC, Hosts, pod_host};
use super::warp::WarpCli;
use super::wire::Wire;
use crate::def::Inventory;
use crate::def::inventory::{self, Node, Pod};
use crate::vantage::{Net, UnixAddress};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The role and the database of the applications.
const APPLICATIONS: &str = "oceanid";

/// The journal of a model server that has come up.
pub(crate) const STARTED: &str = "Started deepseek-ocr-vllm.service - vLLM.\nINFO:     Application startup complete.\n";

/// The running servers, with handles for what faults change.
pub struct Servers {
    authority: Arc<Authority>,
    kubeconfigs: Kubeconfigs,
    coredns: live::Slot<CoreDnsHandle>,
    api: live::Slot<api::ApiHandle>,
    apps: Mutex<BTreeMap<String, ServerHandle>>,
    resolv: Mutex<Resolv>,
    environment: Mutex<String>,
    node_resolvers: Mutex<Vec<ServerHandle>>,
    database: postgres::PgHandle,
    /// The password that the applications have for it.
    database_password: String,
    /// Their password file.
    pgpass: String,
    vllm: Vec<VllmHandle>,
    /// What the journal of the model servers' host holds of their unit.
    model_journal: Mutex<String>,
    portals: Vec<apps::Switch>,
    tailscale: Mutex<BTreeMap<String, TailscaleHandle>>,
    kube_proxy: Mutex<BTreeMap<String, Vec<ServerHandle>>>,
    /// `warp-cli` on the workstation.
    pub warp: WarpCli,
    _others: Vec<ServerHandle>,
    resolvers: Vec<OutsideHandle>,
}

struct Kubeconfigs {
    /// For pods and the workstation: by ClusterIP.
    inside: String,
    /// For nodes: as agents join.
    node: String,
    /// The same, of somebody who may only look at nodes, services and slices.
    viewer: String,
}

impl Kubeconfigs {
    fn new(authority: &Authority, inv: &Inventory) -> Result<Self> {
        let (admin, viewer) = (User::admin(), User::viewer());
        let of = |users: &[(&str, &User)], server: SocketAddrV4| -> Result<String> {
            Ok(authority.kubeconfig_of(users, &format!("https://{server}"), Validity::Current)?)
        };
        let both = [("default", &admin), ("viewer", &viewer)];
        Ok(Self {
            inside: of(&both, inv.cluster.api)?,
            node: of(&both, inv.cluster.api_endpoint)?,
            viewer: of(&[("viewer", &viewer)], inv.cluster.api_endpoint)?,
        })
    }
}

impl Servers {
    /// Starts every server; each listens when this returns.
    ///
    /// # Errors
    /// When the inventory lacks what the twin stands on, a host is missing, or an address cannot be listened on.
    pub fn start(hosts: &Hosts, cluster: &Cluster, inv: &Inventory, overlays: &[Overlay]) -> Result<Self> {
        let authority = Arc::new(Authority::new("fathom twin")?);
        let net = |name: &str| hosts.get(name).map(|w| &w.net).with_context(|| format!("the twin has no host {name}"));
        let mut portals = Vec::new();
        let mut others = internet::serve(net("internet")?, inv, &authority, &mut portals)?;
        if hosts.get("internet").is_some_and(Wire::has_six) {
            others.extend(six::echoes(net("internet")?, inv, &authority)?);
        }
        for overlay in overlays {
            others.push(kubelet(&overlay.wire.net, &overlay.node, &authority)?);
        }
        let crunchy = hosts.get("crunchy").context("the twin has no host crunchy")?;
        let documented = inv.databases.first().context("the twin needs a database in the inventory")?;
        let password = postgres::password();
        let servers = Self {
            pgpass: format!("{}:{}:{APPLICATIONS}:{APPLICATIONS}:{password}\n", documented.host, documented.port),
            database_password: password,
            database: database(&crunchy.net, documented, &authority)?,
            kubeconfigs: Kubeconfigs::new(&authority, inv)?,
            coredns: live::Slot::new(coredns(hosts, cluster, inv, &inv.dns.upstream)?),
            api: live::Slot::new(start_api(hosts, cluster, inv, &authority, Validity::Current)?),
            apps: Mutex::new(apps(hosts, inv)?),
            resolv: Mutex::default(),
            environment: Mutex::default(),
            node_resolvers: Mutex::default(),
            vllm: inv.vllms.iter().map(|v| model_server(net("dgx")?, v, inv)).collect::<Result<_>>()?,
            model_journal: Mutex::new(STARTED.to_owned()),
            portals,
            tailscale: Mutex::new(on_each(overlays, |overlay| tailscale(overlay, inv))?),
            kube_proxy: Mutex::new(on_each(overlays, |overlay| Ok(kube_proxy::serve(&overlay.wire.net)?))?),
            warp: super::warp::healthy(inv)?,
            _others: others,
            resolvers: internet::resolvers(net("internet")?, inv)?,
            authority,
        };
        servers.set_database_firewall(crunchy, &servers.database_allowlist(inv))?;
        servers.set_pg_hba(servers.database_allowlist(inv));
        servers.restore_role();
        servers.set_database(true);
        Ok(servers)
    }

    /// A node's kubeconfig of a user who may only look at nodes, services and endpoint slices.
    pub fn viewer_kubeconfig(&self) -> &str {
        &self.kubeconfigs.viewer
    }

    /// Source ranges that the documented allowlist holds.
    pub fn database_allowlist(&self, inv: &Inventory) -> Vec<Ipv4Net> {
        inv.databases.iter().flat_map(|d| &d.allowlist).map(|entry| entry.cidr).collect()
    }

    /// Programs the packet filter in front of the database: who is not admitted is dropped.
    ///
    /// # Errors
    /// When nf_tables refuses the rules.
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

    /// Gives the applications' role another password, or drops it.
    pub fn set_role(&self, password: Option<&str>) {
        self.database.set_role(APPLICATIONS, password);
    }

    /// Gives the applications' role the password that they have.
    pub fn restore_role(&self) {
        self.set_role(Some(&self.database_password));
    }

    /// Creates the applications' database, or drops it.
    pub fn set_database(&self, exists: bool) {
        self.database.set_database(APPLICATIONS, exists);
    }

    /// The database server.
    pub fn database(&self) -> &postgres::PgHandle {
        &self.database
    }

    /// The model servers.
    pub fn model_servers(&self) -> &[VllmHandle] {
        &self.vllm
    }

    /// Puts an answer in the place of what the documented HTTP endpoints on the internet answer, or takes it away.
    pub fn set_portals(&self, instead: Option<&apps::Instead>) {
        self.portals.iter().for_each(|p| p.set(instead.cloned()));
    }

    /// Freezes the model servers' engines, or lets them go on.
    pub fn set_vllm_frozen(&self, frozen: bool) {
        self.vllm.iter().for_each(|v| v.set_frozen(frozen));
    }

    /// Brings tailscaled's account of itself into line with the node's preferences and the daemon's state.
    pub fn sync_tailscale(&self, overlay: &Overlay, all: &[Overlay], inv: &Inventory) {
        let daemon = overlay.daemon();
        let exit = all.iter().find(|o| inv.tailnet.exit_node.as_ref() == Some(&o.node.name)).and_then(|o| o.node.tailscale);
        let preferences = overlay.preferences();
        self.tell_tailscale(&overlay.node.name, |state| {
            state.exit_node = exit.filter(|_| preferences.exit_node).map(|address| ExitNode { address, online: true });
            state.lan_access = preferences.lan_access;
            state.hangs = daemon == Daemon::Hung;
            state.backend = match daemon {
                Daemon::Stopped => Backend::Stopped,
                Daemon::KeyExpired => Backend::NeedsLogin,
                _ => Backend::Running,
            };
            state.key_expiry = (daemon == Daemon::KeyExpired).then(|| chrono::Utc::now() - chrono::Duration::minutes(10));
            state.health = if daemon == Daemon::Stopped { vec!["Tailscale is stopped.".to_owned()] } else { Vec::new() };
        });
    }

    /// Changes what a node's tailscaled says.
    pub fn tell_tailscale(&self, node: &str, change: impl FnOnce(&mut TailscaleState)) {
        if let Some(handle) = self.tailscale.lock().unwrap_or_else(PoisonError::into_inner).get(node) {
            handle.update(change);
        }
    }

    /// Ends a node's LocalAPI: its socket refuses.
    pub async fn stop_tailscale(&self, node: &str) {
        let handle = self.tailscale.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        if let Some(handle) = handle {
            handle.stop().await;
        }
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When its socket cannot be listened on.
    pub fn start_tailscale(&self, overlay: &Overlay, inv: &Inventory) -> Result<()> {
        let handle = tailscale(overlay, inv)?;
        self.tailscale.lock().unwrap_or_else(PoisonError::into_inner).insert(overlay.node.name.clone(), handle);
        Ok(())
    }
}

/// What is started for each node, by the node's name.
fn on_each<T>(overlays: &[Overlay], start: impl Fn(&Overlay) -> Result<T>) -> Result<BTreeMap<String, T>> {
    overlays.iter().map(|overlay| Ok((overlay.node.name.clone(), start(overlay)?))).collect()
}

/// A model server at a pace that an H100 could have for a short prompt.
fn model_server(net: &Net, vllm: &inventory::Vllm, inv: &Inventory) -> Result<VllmHandle> {
    let pace = Pace { first_token: Duration::from_millis(40), interval: Duration::from_millis(5) };
    let served = Vllm { model: vllm.model.clone(), max_model_len: vllm.max_model_len.unwrap_or(8192), pace };
    let server = served.serve(net, SocketAddrV4::new(vllm.address, vllm.port))?;
    server.set_names(internet::names(inv));
    Ok(server)
}

/// The database at its documented address; it admits everybody.
fn database(net: &Net, documented: &inventory::Database, authority: &Authority) -> Result<postgres::PgHandle> {
    let address = documented.address.context("the twin needs the database's address")?;
    let tls = authority.server(&[&documented.host], &[address])?;
    Ok(postgres::serve(net, SocketAddrV4::new(address, documented.port), tls, vec![Ipv4Net::default()])?)
}

fn pod_net<'a>(hosts: &'a Hosts, pod: &Pod) -> Result<&'a Net> {
    let name = pod_host(&pod.namespace, &pod.name);
    hosts.get(&name).map(|w| &w.net).with_context(|| format!("the twin has no pod {name}"))
}

/// CoreDNS in the pod that the kube-dns service selects.
fn coredns(hosts: &Hosts, cluster: &Cluster, inv: &Inventory, upstream: &[Ipv4Addr]) -> Result<CoreDnsHandle> {
    let pod =
        inv.pods.iter().find(|p| p.labels.get("k8s-app").is_some_and(|v| v == "kube-dns")).context("the inventory has no CoreDNS pod")?;
    let upstreams = upstream.iter().map(|ip| SocketAddrV4::new(*ip, 53)).collect();
    Ok(CoreDns::new(pod.address, upstreams).serve(pod_net(hosts, pod)?, cluster.clone())?)
}

/// The HTTP applications in the other pods.
fn apps(hosts: &Hosts, inv: &Inventory) -> Result<BTreeMap<String, ServerHandle>> {
    let pods = inv.pods.iter().filter(|p| !p.labels.contains_key("k8s-app") && p.ports.iter().any(|p| p.name == "http"));
    pods.map(|pod| Ok((pod.name.clone(), app(hosts, pod)?))).collect()
}

/// The application of one pod, on its port `http`.
fn app(hosts: &Hosts, pod: &Pod) -> Result<ServerHandle> {
    let port = pod.ports.iter().find(|p| p.name == "http").with_context(|| format!("the pod {} has no port http", pod.name))?.port;
    Ok(apps::App::new(&pod.name, "uvicorn").serve(pod_net(hosts, pod)?, SocketAddrV4::new(pod.address, port), None)?)
}

/// The kubelet of a node: it admits nobody but the API server, whose requests the twin's API answers itself.
fn kubelet(net: &Net, node: &Node, authority: &Authority) -> Result<ServerHandle> {
    let tls = authority.server(&[&node.kube_name], &node.tailscale.into_iter().chain([Ipv4Addr::LOCALHOST]).collect::<Vec<_>>())?;
    let listen = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, api::kubelet::PORT);
    Ok(apps::App::new("kubelet", "").serve(net, listen, Some(tls))?)
}

/// The API server, on the node that agents join.
fn start_api(hosts: &Hosts, cluster: &Cluster, inv: &Inventory, authority: &Arc<Authority>, validity: Validity) -> Result<api::ApiHandle> {
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
    let tls = authority.server_that_asks(&names, &addresses, validity)?;
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
    state.live = Some(Live(Arc::new(overlay.tailscaled.paths())));
    Ok(localapi::serve(&overlay.wire.net, &UnixAddress::Abstract(TAILSCALE_SOCKET.to_owned()), state)?)
}
