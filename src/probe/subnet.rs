//! `subnet`: the pod subnet that the API assigns to a node, and what flannel wrote into subnet.env.

use super::{Context, Kind, Probe, decode, fact, kube};
use crate::check::{Observation, clean};
use crate::vantage::{Source, Transport};
use async_trait::async_trait;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the Kubernetes API.
const API_PATIENCE: Duration = Duration::from_secs(6);

/// The pod subnet that the API assigns to a node, and what flannel wrote into subnet.env.
pub(super) static KIND: Kind = Kind {
    name: "subnet",
    root: "subnet",
    about: "The pod subnet that the API assigns to a node, and what flannel wrote into subnet.env",
    privilege: Some("a kubeconfig"),
    args: &[("node", "Kubernetes node name"), ("file", "path of subnet.env (absent: the file is not looked at)")],
    facts: &[
        fact("assigned", "bool", "the node object has a podCIDR"),
        fact("pod_cidr", "text", "it; empty if none"),
        fact("file_known", "bool", "the vantage's files can be looked at"),
        fact("file_present", "bool", "subnet.env exists"),
        fact("file_subnet", "text", "FLANNEL_SUBNET"),
        fact("file_mtu", "bytes", "FLANNEL_MTU"),
    ],
    decode: decode::<Subnet>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subnet {
    node: String,
    #[serde(default)]
    file: Option<PathBuf>,
}

#[async_trait]
impl Probe for Subnet {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        let assigned = timeout(cx.time_left(API_PATIENCE), kube::node_pod_cidr(cx, &self.node)).await;
        match assigned.unwrap_or_else(|_| Err("the Kubernetes API did not answer in time".to_owned())) {
            Ok(cidr) => {
                let cidr = clean(&cidr.unwrap_or_default(), 64);
                seen.facts.set("assigned", !cidr.is_empty()).set("pod_cidr", cidr);
            }
            Err(reason) => {
                seen.facts.unknown("assigned", reason.as_str()).unknown("pod_cidr", reason);
            }
        }
        self.file(&mut seen, cx);
        seen
    }

    fn target(&self) -> String {
        format!("pod subnet of {}", self.node)
    }
}

impl Subnet {
    fn file(&self, seen: &mut Observation, cx: &Context) {
        let source = match (&self.file, &cx.vantage.files.subnet_env, cx.vantage.transport) {
            (None, ..) => return unknown(seen, "the inventory names no subnet.env"),
            (Some(_), Some(source), _) => source.clone(),
            (Some(path), None, Transport::Local) => Source::File(path.clone()),
            (Some(_), None, _) => return unknown(seen, "the files of this vantage are not at hand"),
        };
        match read(&source) {
            Ok(Some(text)) => {
                seen.facts.set("file_known", true).set("file_present", true);
                seen.facts.set_or_unknown("file_subnet", value(&text, "FLANNEL_SUBNET"), "subnet.env has no FLANNEL_SUBNET");
                let mtu = value(&text, "FLANNEL_MTU").and_then(|v| v.parse::<u32>().ok());
                seen.facts.set_or_unknown("file_mtu", mtu, "subnet.env has no FLANNEL_MTU");
                seen.note("file", text);
            }
            Ok(None) => {
                seen.facts.set("file_known", true).set("file_present", false);
                seen.facts.unknown("file_subnet", "there is no subnet.env").unknown("file_mtu", "there is no subnet.env");
            }
            Err(error) => unknown(seen, &format!("subnet.env cannot be read: {error}")),
        }
    }
}

fn unknown(seen: &mut Observation, reason: &str) {
    seen.facts.set("file_known", false);
    for path in ["file_present", "file_subnet", "file_mtu"] {
        seen.facts.unknown(path, reason);
    }
}

fn read(source: &Source) -> io::Result<Option<String>> {
    match source {
        Source::Text(text) => Ok(Some(text.clone())),
        Source::File(path) => small(path).map(Some).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(e) }),
    }
}

/// A few lines are expected; more is not read.
fn small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(path)?, 4096), &mut text)?;
    Ok(text)
}

fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(|v| clean(v, 64))
}
