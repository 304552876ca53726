//! Which kubeconfig is used, and what is made of it.

use super::failure::{At, Failure, in_full};
use crate::def::Inventory;
use crate::vantage::{Source, Transport, Vantage, expand_home};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Most that a kubeconfig may have.
const MOST_BYTES: u64 = 4 << 20;

/// A kubeconfig that was found and read.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it came from.
    pub(super) source: String,
    /// Its current context; empty for a pod's service account.
    pub(super) context: String,
    /// What it says.
    pub(super) config: Config,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Missing {
    /// No place has one; the sentence names every place and why it was no use.
    Nowhere(String),
    /// One was found, but it cannot be used.
    Unusable {
        /// Where it came from.
        source: String,
        /// What is wrong with it.
        failure: Failure,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Text(String),
    File(PathBuf),
    /// What `KUBECONFIG` lists.
    Environment(Vec<PathBuf>),
    InCluster,
}

/// Finds and reads the kubeconfig of a vantage. Reads files, so call it where blocking is allowed, within the runtime.
pub(super) fn find(vantage: &Vantage, inventory: &Inventory) -> Result<Found, Missing> {
    let mut tried = Vec::new();
    let context = vantage.files.context.as_deref();
    for place in places(vantage, inventory, std::env::var_os("KUBECONFIG")) {
        let source = place.to_string();
        match place.read(context) {
            Ok(Some((context, config))) => return Ok(Found { source, context, config: trusting(config, vantage) }),
            Ok(None) => tried.push(format!("{source}: not set")),
            Err(KubeconfigError::ReadConfig(e, _)) if e.kind() == ErrorKind::NotFound => tried.push(format!("{source}: no such file")),
            Err(KubeconfigError::ReadConfig(e, _)) => tried.push(format!("{source}: {e}")),
            Err(error) => {
                let failure = Failure::new(At::Config, format!("{source}: {}", told(&error)));
                return Err(Missing::Unusable { source, failure });
            }
        }
    }
    Err(Missing::Nowhere(format!("no kubeconfig (tried {})", tried.join("; "))))
}

/// The places to look in, in order. What lies on this machine belongs to this machine: another namespace or a twin's host
/// gets only a kubeconfig of its own or the inventory's.
fn places(vantage: &Vantage, inventory: &Inventory, listed: Option<OsString>) -> Vec<Place> {
    match &vantage.files.kubeconfig {
        Some(Source::Text(text)) => return vec![Place::Text(text.clone())],
        Some(Source::File(path)) => return vec![Place::File(path.clone())],
        None => {}
    }
    let mut places: Vec<Place> = inventory.cluster.kubeconfig.iter().map(|path| Place::File(expand_home(path))).collect();
    if vantage.transport == Transport::Local {
        let listed = listed.map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect());
        places.push(Place::Environment(listed.unwrap_or_default()));
        places.extend(["~/.kube/k3s-warp.yaml", "~/.kube/config", "/etc/rancher/k3s/k3s.yaml"].map(|path| Place::File(expand_home(path))));
        places.push(Place::InCluster);
    }
    places
}

/// A cluster without a certificate authority in its kubeconfig is judged by the vantage's own trusted roots, if it has any.
fn trusting(mut config: Config, vantage: &Vantage) -> Config {
    if let (None, Some(roots)) = (&config.root_cert, &vantage.files.trust) {
        config.root_cert = Some(roots.iter().map(|root| root.to_vec()).collect());
    }
    config
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => write!(f, "the vantage's own"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(paths) if paths.is_empty() => write!(f, "KUBECONFIG"),
            Self::Environment(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                write!(f, "KUBECONFIG={}", paths.join(":"))
            }
            Self::InCluster => write!(f, "in-cluster service account"),
        }
    }
}

impl Place {
    fn read(self, context: Option<&str>) -> Result<Option<(String, Config)>, KubeconfigError> {
        match self {
            Self::Text(text) => config_of(Kubeconfig::from_yaml(&text)?, context).map(Some),
            Self::File(path) => config_of(of_file(&path)?, context).map(Some),
            Self::Environment(paths) => merged(&paths)?.map(|merged| config_of(merged, context)).transpose(),
            // Neither the variables nor the token of a pod: it is no pod. A service account has no contexts.
            Self::InCluster if context.is_none() => Ok(Config::incluster().ok().map(|config| (String::new(), config))),
            Self::InCluster => Ok(None),
        }
    }
}

/// A read of a FIFO would not come back, and one of a device would not end.
fn of_file(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let unfit = |e: std::io::Error| KubeconfigError::ReadConfig(e, path.to_owned());
    let found = std::fs::metadata(path).map_err(unfit)?;
    if !found.is_file() {
        return Err(unfit(std::io::Error::other("is no regular file")));
    }
    if found.len() > MOST_BYTES {
        return Err(unfit(std::io::Error::other("is larger than 4 MiB")));
    }
    Kubeconfig::read_from(path)
}

/// All files of a list as one: the first to set a value wins, and files that do not exist are passed over, as kubectl does. The error
/// is that of a file that exists, or of the last one if none does.
fn merged(paths: &[PathBuf]) -> Result<Option<Kubeconfig>, KubeconfigError> {
    let (mut all, mut absent) = (None::<Kubeconfig>, None);
    for path in paths {
        match of_file(path) {
            Ok(more) => all = Some(all.unwrap_or_default().merge(more)?),
            Err(KubeconfigError::ReadConfig(e, path)) if e.kind() == ErrorKind::NotFound => {
                absent = Some(KubeconfigError::ReadConfig(e, path));
            }
            Err(error) => return Err(error),
        }
    }
    match (all, absent) {
        (None, Some(absent)) => Err(absent),
        (all, _) => Ok(all),
    }
}

/// Of a file that is no kubeconfig only that is told: what stands around the faulty place may be a secret.
fn told(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "is no kubeconfig: its YAML cannot be read as one".to_owned(),
        KubeconfigError::LoadContext(context) => format!("has no context `{context}`"),
        KubeconfigError::CurrentContextNotSet => "has no current context, and none was asked for by --context".to_owned(),
        other => in_full(other),
    }
}

fn config_of(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<(String, Config), KubeconfigError> {
    let current = kubeconfig.current_context.clone().filter(|name| !name.is_empty());
    let context = context.map(str::to_owned).or(current).ok_or(KubeconfigError::CurrentContextNotSet)?;
    let wants_proxy = kubeconfig.clusters.iter().filter_map(|c| c.cluster.as_ref()).any(|c| c.proxy_url.is_some());
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    let mut config = tokio::runtime::Handle::current().block_on(Config::from_custom_kubeconfig(kubeconfig, &options))?;
    if !wants_proxy {
        // kube also takes HTTPS_PROXY, which is about the web: through a proxy this network would not be what is tested.
        config.proxy_url = None;
    }
    Ok((context, config))
}

/// By what the kubeconfig proves who asks. What it is proven with is never told.
pub(super) fn credentials(config: &Config) -> String {
    let auth = &config.auth_info;
    let certificate = auth.client_certificate.is_some() || auth.client_certificate_data.is_some();
    match (&auth.exec, certificate) {
        (Some(exec), _) => format!("exec plugin {}", super::exec::name(exec)),
        (None, true) => "client certificate".to_owned(),
        _ if auth.token.is_some() || auth.token_file.is_some() => "token".to_owned(),
        _ if auth.auth_provider.is_some() => "auth provider".to_owned(),
        _ if auth.username.is_some() => "password".to_owned(),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests;
