//! `GET /api/v1/namespaces/NAMESPACE/pods/NAME/log`: plain text, as the kubelet has it.

use super::super::http::find;
use super::{Failure, Reply, status};
use crate::twin::cluster::{Cluster, LogsWanted, Resource};
use chrono::TimeDelta;
use hyper::StatusCode;
use serde_json::Value;

/// Answers with a pod's log.
pub(super) fn log(cluster: &Cluster, namespace: &str, pod: &str, query: &[(String, String)]) -> Reply {
    let found = cluster.read(|objects| {
        let object = objects.get(Resource::Pods, namespace, pod)?;
        let node = objects.get(Resource::Nodes, "", object["spec"]["nodeName"].as_str().unwrap_or_default());
        let container = object["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned();
        Some((container, node.and_then(away)))
    });
    let Some((container, away)) = found else { return status::not_found(Resource::Pods, pod).into() };
    if let Some(address) = away {
        let url = format!("https://{address}:10250/containerLogs/{namespace}/{pod}/{container}");
        return status::internal(&format!("Get \"{url}\": dial tcp {address}:10250: i/o timeout")).into();
    }
    if let Some(asked) = find(query, "container").filter(|asked| *asked != container) {
        return status::bad_request(&format!("container {asked} is not valid for pod {pod}")).into();
    }
    match wanted(query).map(|wanted| cluster.logs().read(namespace, pod, wanted)) {
        Err(failure) => failure.into(),
        Ok(Some(text)) => Reply::Text(StatusCode::OK, text),
        Ok(None) => status::bad_request(&format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")).into(),
    }
}

/// The address of a node whose kubelet does not answer, as far as the API knows.
fn away(node: &Value) -> Option<String> {
    let ready = node["status"]["conditions"].as_array()?.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    (!ready).then(|| node["status"]["addresses"][0]["address"].as_str().unwrap_or_default().to_owned())
}

fn wanted(query: &[(String, String)]) -> Result<LogsWanted, Failure> {
    let number = |name: &str| {
        let parse = |text: &str| text.parse::<u32>().map_err(|_| status::bad_request(&format!("{name}: Invalid value: \"{text}\"")));
        find(query, name).map(parse).transpose()
    };
    let size = |n: Option<u32>| n.map(|n| n as usize);
    Ok(LogsWanted {
        previous: find(query, "previous") == Some("true"),
        since: number("sinceSeconds")?.map(|n| TimeDelta::seconds(n.into())),
        tail: size(number("tailLines")?),
        bytes: size(number("limitBytes")?),
    })
}
