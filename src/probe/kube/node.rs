//! A Node object: what the `kube` probe shows of it, and what other probes ask of one.

use crate::check::clean;
use crate::probe::{Context, kube_client};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A node as the fact `nodes` lists it.
pub(super) fn node_fact(node: &Node) -> Value {
    let status = node.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let ready = condition.is_some_and(|c| c.status == "True");
    let why =
        condition.filter(|_| !ready).map(|c| format!("{}: {}", c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or("")));
    let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP").map(|a| a.address.as_str());
    let annotation = |key: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let text = |value: Option<&str>| clean(value.unwrap_or_default(), 253);
    json!({
        "name": text(node.metadata.name.as_deref()),
        "ready": ready,
        "why": text(why.as_deref()),
        "internal_ip": text(address),
        "pod_cidr": text(node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref())),
        "kubelet_version": text(status.node_info.as_ref().map(|i| i.kubelet_version.as_str())),
        "flannel_public_ip": text(annotation("flannel.alpha.coreos.com/public-ip")),
        "flannel_mac": vtep_mac(annotation("flannel.alpha.coreos.com/backend-data")),
    })
}

/// The MAC address in `{"VNI":1,"VtepMAC":"aa:bb:.."}`; empty if there is none.
fn vtep_mac(backend_data: Option<&str>) -> String {
    let data: Option<Value> = backend_data.and_then(|text| serde_json::from_str(text).ok());
    clean(data.as_ref().and_then(|d| d["VtepMAC"].as_str()).unwrap_or_default(), 17)
}

/// Annotations of a Node object (`node` is the object's name); the error says why they could not be had.
pub(crate) async fn node_annotations(cx: &Context, node: &str) -> Result<BTreeMap<String, String>, String> {
    Ok(object(cx, node).await?.metadata.annotations.unwrap_or_default())
}

/// The pod CIDR that the API assigns to a node, if any; for probes that compare it.
pub(crate) async fn node_pod_cidr(cx: &Context, node: &str) -> Result<Option<String>, String> {
    Ok(object(cx, node).await?.spec.and_then(|spec| spec.pod_cidr))
}

async fn object(cx: &Context, node: &str) -> Result<Node, String> {
    let api = kube_client::connected(cx).await?;
    let path = format!("/api/v1/nodes/{}", kube_client::encode(node));
    api.object(&path, "get nodes").await.map_err(|failure| failure.word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_is_read_from_flannels_annotation() {
        assert_eq!(vtep_mac(Some(r#"{"VNI":1,"VtepMAC":"8a:31:00:00:00:01"}"#)), "8a:31:00:00:00:01");
        assert_eq!(vtep_mac(Some("null")), "");
        assert_eq!(vtep_mac(None), "");
    }
}
