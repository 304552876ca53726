//! `kube`: the Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use async_trait::async_trait;
use serde::Deserialize;

/// The Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart.
pub(super) static KIND: Kind = Kind {
    name: "kube",
    root: "kube",
    about: "The Kubernetes API: reach, TLS, version, readiness, nodes; each stage apart",
    privilege: Some("a kubeconfig"),
    args: &[],
    facts: &[
        fact("source", "text", "kubeconfig that was used"),
        fact("server", "text", "API server's URL"),
        fact("stage", "text", "where it stopped: config, connect, tls, auth, version, readyz, nodes, or done"),
        fact("error", "text", "what stopped it; empty if nothing"),
        fact("reachable", "bool", "the server answered `/version`"),
        fact("version", "text", "server version"),
        fact("ready", "bool", "`/readyz` answered 200"),
        fact("readyz_failed", "list of text", "checks that `/readyz` names as failed"),
        fact("listed", "bool", "nodes could be listed from the datastore"),
        fact("nodes", "list", "each node: name, ready, internal_ip, pod_cidr, kubelet_version, flannel_public_ip, flannel_mac"),
        fact("not_ready", "list of text", "names of nodes that are not ready"),
    ],
    decode: decode::<Kube>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kube {}

#[async_trait]
impl Probe for Kube {
    async fn observe(&self, _cx: &Context) -> Observation {
        Observation::could_not_look("not written yet")
    }

    fn target(&self) -> String {
        String::new()
    }
}

/// Annotations of a node.
pub(crate) async fn node_annotations(_cx: &Context, _node: &str) -> Result<std::collections::BTreeMap<String, String>, String> {
    Err("not written yet".to_owned())
}
