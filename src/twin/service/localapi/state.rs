//! What tailscaled knows.

use crate::twin::tailscaled::Path;
use chrono::{DateTime, Utc};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// `BackendState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Connected.
    #[default]
    Running,
    /// `tailscale down`.
    Stopped,
    /// The key has expired, or nobody has logged in.
    NeedsLogin,
    /// On its way.
    Starting,
}

impl Backend {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::NeedsLogin => "NeedsLogin",
            Self::Starting => "Starting",
        }
    }
}

/// The exit node in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitNode {
    /// Its Tailscale address.
    pub address: Ipv4Addr,
    /// Whether the control server calls it online.
    pub online: bool,
}

/// Another node of the tailnet.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Host name.
    pub hostname: String,
    /// Tailscale address.
    pub address: Ipv4Addr,
    /// Whether the control server calls it online.
    pub online: bool,
    /// Whether it answers; a ping to a peer that does not is never answered.
    pub answers: bool,
    /// The direct path in use; `None` is relayed (or unused).
    pub endpoint: Option<SocketAddrV4>,
    /// Time that a ping takes.
    pub latency: Duration,
    /// Offered and approved as an exit node.
    pub exit_node_option: bool,
    /// Whether its key has expired.
    pub expired: bool,
    /// Whether traffic has flowed lately.
    pub active: bool,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// The last WireGuard handshake.
    pub last_handshake: Option<DateTime<Utc>>,
    /// When it was last seen, for a peer that is offline.
    pub last_seen: Option<DateTime<Utc>>,
}

impl Peer {
    /// A healthy peer with a direct path, or relayed without an endpoint.
    pub fn new(hostname: &str, address: Ipv4Addr, endpoint: Option<SocketAddrV4>) -> Self {
        Self {
            hostname: hostname.to_owned(),
            address,
            online: true,
            answers: true,
            endpoint,
            latency: Duration::from_micros(900),
            exit_node_option: false,
            expired: false,
            active: true,
            rx_bytes: 36_048,
            tx_bytes: 12_824,
            last_handshake: Some(Utc::now()),
            last_seen: None,
        }
    }
}

/// How a peer is reached at this moment and what delays the packets to it, asked anew for every request.
#[derive(Clone)]
pub struct Live(pub Arc<dyn Fn(Ipv4Addr) -> (Path, Duration) + Send + Sync>);

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

/// Everything that the LocalAPI is asked for.
#[derive(Clone, Debug)]
pub struct TailscaleState {
    /// Own host name.
    pub hostname: String,
    /// Own Tailscale address.
    pub address: Ipv4Addr,
    /// DNS suffix of the tailnet, such as `goldfish-inc.ts.net`.
    pub suffix: String,
    /// State of the daemon.
    pub backend: Backend,
    /// Whether the control server calls this node online.
    pub online: bool,
    /// When the own key expires, if it does.
    pub key_expiry: Option<DateTime<Utc>>,
    /// Own endpoints, as `address:port`.
    pub endpoints: Vec<String>,
    /// Code and name of the home DERP region.
    pub region: (String, String),
    /// The exit node in use.
    pub exit_node: Option<ExitNode>,
    /// Whether local networks stay reachable with an exit node (`ExitNodeAllowLANAccess`).
    pub lan_access: bool,
    /// Whether this node offers itself as an exit node.
    pub advertises_exit: bool,
    /// Whether that offer is approved.
    pub exit_approved: bool,
    /// Whether routes of peers are accepted (`RouteAll`).
    pub accept_routes: bool,
    /// Whether DNS settings of the tailnet are accepted (`CorpDNS`).
    pub accept_dns: bool,
    /// Nameservers of the tailnet.
    pub resolvers: Vec<String>,
    /// Other nodes.
    pub peers: Vec<Peer>,
    /// Health messages; empty is good.
    pub health: Vec<String>,
    /// `NoStatefulFiltering`.
    pub no_stateful_filtering: bool,
    /// It accepts connections and never answers, as a stopped process does.
    pub hangs: bool,
    /// Where the peers' paths come from, if not from the fields above.
    pub live: Option<Live>,
}

impl TailscaleState {
    /// A running node without peers, exit node or complaints.
    pub fn new(hostname: &str, address: Ipv4Addr, suffix: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            address,
            suffix: suffix.to_owned(),
            backend: Backend::Running,
            online: true,
            key_expiry: None,
            endpoints: Vec::new(),
            region: ("nyc".to_owned(), "New York City".to_owned()),
            exit_node: None,
            lan_access: false,
            advertises_exit: false,
            exit_approved: false,
            accept_routes: false,
            accept_dns: false,
            resolvers: Vec::new(),
            peers: Vec::new(),
            health: Vec::new(),
            no_stateful_filtering: true,
            hangs: false,
            live: None,
        }
    }

    /// Takes the peers' paths over from where they come from.
    pub(super) fn refresh(&mut self) {
        let Some(Live(path_to)) = self.live.clone() else { return };
        for peer in &mut self.peers {
            let (path, delay) = path_to(peer.address);
            peer.answers = path != Path::Lost;
            peer.endpoint = if let Path::Direct(SocketAddr::V4(endpoint)) = path { Some(endpoint) } else { None };
            peer.latency = Duration::from_micros(if path == Path::Relayed { 61_000 } else { 900 }) + delay;
        }
    }

    /// The peer of an address.
    pub fn peer_mut(&mut self, address: Ipv4Addr) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.address == address)
    }

    /// The peer of an address.
    pub fn peer(&self, address: Ipv4Addr) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.address == address)
    }

    /// Whether packets flow as far as this node is concerned.
    pub(super) fn running(&self) -> bool {
        self.backend == Backend::Running
    }
}

/// The IPv6 address of a node, made from its IPv4 one in Tailscale's range (fd7a:115c:a1e0::/48).
pub(super) fn v6(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}
