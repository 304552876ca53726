//! Where a probe runs: this machine, another network namespace of it, a host of the twin.

pub mod detect;
pub(crate) mod netlink;
pub mod netns;
pub mod privilege;
pub mod select;

pub use netns::{Net, NetNs};

use rustls::pki_types::CertificateDer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What kind of place a vantage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VantageKind {
    /// A person's machine outside of the cluster.
    Workstation,
    /// A cluster node's host namespace.
    Node,
    /// A pod's network namespace.
    Pod,
    /// A CI runner.
    Ci,
}

/// How fathom gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// It is the place fathom runs in.
    Local,
    /// A namespace of the digital twin.
    Twin,
    /// A named network namespace of this machine.
    Netns,
}

/// A place to observe from.
#[derive(Clone, Debug)]
pub struct Vantage {
    /// Stable id: a node's name, `workstation`, `ci`, `pod:NAMESPACE/NAME`.
    pub id: String,
    /// What kind of place it is.
    pub kind: VantageKind,
    /// How fathom gets there.
    pub transport: Transport,
    /// Why this vantage: detected how, or asked for.
    pub why: String,
    /// The node it is, or (for a pod) the node it runs on.
    pub node: Option<String>,
    /// Where its sockets are opened.
    pub net: Net,
    /// What lies in files on that host.
    pub files: HostFiles,
}

/// What a probe may need from a host's files. In the twin they are in memory; on a real host they are paths.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// Resolver configuration.
    pub resolv_conf: Source,
    /// systemd-resolved's file of upstream nameservers; `None` means `/run/systemd/resolve/resolv.conf` of the machine that
    /// fathom runs on.
    pub systemd_resolv_conf: Option<Source>,
    /// Kubernetes client configuration; `None` means the usual places (`KUBECONFIG`, `~/.kube/config`, ...).
    pub kubeconfig: Option<Source>,
    /// The context of it; `None` means its current one.
    pub context: Option<String>,
    /// tailscaled's LocalAPI socket.
    pub tailscale_socket: Option<UnixAddress>,
    /// flannel's subnet.env; `None` means `/run/flannel/subnet.env` of the machine that fathom runs on.
    pub subnet_env: Option<Source>,
    /// Trusted roots in place of the system's (the twin has a certificate authority of its own).
    pub trust: Option<Vec<CertificateDer<'static>>>,
    /// PostgreSQL's password file; `None` means `DATABASE_URL`, `PGPASSFILE` or `~/.pgpass` of whoever runs fathom.
    pub pgpass: Option<Source>,
    /// The journal of the host's services; `None` means what `journalctl` says, on this machine only.
    pub journal: Option<Source>,
    /// Variables of whoever works there, as `NAME=VALUE` lines; `None` means those of this process, on this machine only.
    pub environment: Option<Source>,
    /// Where commands are looked for; `None` means the `PATH` of this process, and only on the machine that fathom runs on.
    pub path: Option<PathBuf>,
}

/// A text file: by path or already read.
#[derive(Clone, Debug)]
pub enum Source {
    /// Read it when it is needed.
    File(PathBuf),
    /// Its contents.
    Text(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::File(PathBuf::from("/etc/resolv.conf"))
    }
}

impl Source {
    /// The contents; the error names the file.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => crate::def::text_file::read(path).map_err(|e| format!("cannot read {}: {e}", path.display())),
        }
    }
}

/// Address of a unix socket. Abstract names (unix(7)) belong to a network namespace, so the twin uses them: nothing of
/// them stays behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAddress {
    /// A socket file.
    Path(PathBuf),
    /// An abstract name, without the leading NUL.
    Abstract(String),
}

impl UnixAddress {
    /// `@name` is abstract, anything else a path; `~/` is the home directory.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(name) => Self::Abstract(name.to_owned()),
            None => Self::Path(expand_home(text)),
        }
    }
}

impl std::fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// Replaces a leading `~/` by the home directory.
pub fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(text),
    }
}
