//! The way from the API server to a node's kubelet: logs and exec. K3s goes through a tunnel that the agent keeps open.

use super::status::{self, Failure};
use crate::twin::cluster::{Objects, Resource};
use crate::vantage::Net;
use hyper::StatusCode;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::TcpSocket;

/// Where kubelets listen.
pub const PORT: u16 = 10250;
/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(10);

/// What is wrong on the way to a node's kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server has no session of the agent's tunnel.
    NoTunnel,
    /// The kubelet's certificate is not for the node's address.
    WrongName,
}

/// Where a pod's log is: its kubelet.
pub(super) struct Log {
    node: Ipv4Addr,
    path: String,
}

impl Log {
    /// The log of a pod; `exec` and the like are refused without an upgrade.
    pub(super) fn of(objects: &Objects, namespace: &str, name: &str) -> Result<Self, Failure> {
        let pod = objects.get(Resource::Pods, namespace, name).ok_or_else(|| status::not_found(Resource::Pods, name))?;
        let host: Option<Ipv4Addr> = pod["status"]["hostIP"].as_str().and_then(|ip| ip.parse().ok());
        let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or("");
        let node = host.ok_or_else(|| status::bad_request("pod does not have a host assigned"))?;
        Ok(Self { node, path: format!("containerLogs/{namespace}/{name}/{container}") })
    }

    /// Dials the kubelet.
    pub(super) async fn dial(&self, net: &Net, trouble: impl Fn(Ipv4Addr) -> Option<Trouble>) -> Result<(), Failure> {
        let at = SocketAddrV4::new(self.node, PORT);
        let trouble = trouble(self.node);
        // Without a tunnel nothing is dialled.
        let dialled = if trouble == Some(Trouble::NoTunnel) { Ok(()) } else { dial(net, at).await };
        let said = match (trouble, dialled) {
            (Some(Trouble::NoTunnel), _) => format!("proxy error from 127.0.0.1:6443 while dialing {at}, code 502: 502 Bad Gateway"),
            (_, Err(error)) => format!("dial tcp {at}: {}", words(&error)),
            (Some(Trouble::WrongName), Ok(())) => {
                format!("tls: failed to verify certificate: x509: certificate is valid for 127.0.0.1, not {}", self.node)
            }
            (None, Ok(())) => return Ok(()),
        };
        Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", &format!("Get \"https://{at}/{}\": {said}", self.path)))
    }
}

async fn dial(net: &Net, to: SocketAddrV4) -> io::Result<()> {
    let socket = net.with(TcpSocket::new_v4)??;
    tokio::time::timeout(DIAL, socket.connect(SocketAddr::V4(to))).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(())
}

/// How Go words it.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connect: connection refused".to_owned(),
        Some(libc::EHOSTUNREACH) => "connect: no route to host".to_owned(),
        Some(libc::ENETUNREACH) => "connect: network is unreachable".to_owned(),
        _ => "i/o timeout".to_owned(),
    }
}

/// Whether a path is about exec and the like, which need an upgraded connection.
pub(super) fn needs_upgrade(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward")
}

/// 400 for a plain request to such a path.
pub(super) fn upgrade_required() -> Failure {
    status::bad_request("Upgrade request required")
}
