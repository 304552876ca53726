//! Columns and cells of tables, as kube-apiserver's printers make them and `kubectl get` shows them.

use crate::twin::cluster::Resource;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Names of the columns; those of priority 1 are shown by `-o wide` only.
pub(super) fn columns(resource: Resource) -> &'static [(&'static str, u8)] {
    match resource {
        Resource::Nodes => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        Resource::Namespaces => &[("Name", 0), ("Status", 0), ("Age", 0)],
        Resource::Services => {
            &[("Name", 0), ("Type", 0), ("Cluster-IP", 0), ("External-IP", 0), ("Port(s)", 0), ("Age", 0), ("Selector", 1)]
        }
        Resource::Pods => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1),
        ],
        Resource::ConfigMaps => &[("Name", 0), ("Data", 0), ("Age", 0)],
        Resource::Events => &[("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0), ("Name", 1)],
        Resource::EndpointSlices => &[("Name", 0), ("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)],
        Resource::NetworkPolicies => &[("Name", 0), ("Pod-Selector", 0), ("Age", 0)],
    }
}

/// The cells of one object.
pub(super) fn cells(resource: Resource, object: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let name = json!(text(&object["metadata"]["name"]));
    let age = json!(since(&object["metadata"]["creationTimestamp"], now));
    match resource {
        Resource::Nodes => node(object, name, age),
        Resource::Namespaces => vec![name, object["status"]["phase"].clone(), age],
        Resource::Services => service(object, name, age),
        Resource::Pods => pod(object, name, age, now),
        Resource::ConfigMaps => vec![name, json!(object["data"].as_object().map_or(0, serde_json::Map::len)), age],
        Resource::Events => event(object, name, now),
        Resource::EndpointSlices => slice(object, name, age),
        Resource::NetworkPolicies => vec![name, json!(labels(&object["spec"]["podSelector"]["matchLabels"])), age],
    }
}

const NONE: &str = "<none>";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Texts of a list with commas between, of long lists the beginning.
fn joined(values: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = values.collect();
    match all.len() {
        0 => NONE.to_owned(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v))).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

fn or_none(value: &str) -> Value {
    json!(if value.is_empty() { NONE } else { value })
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = list(&object["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True");
    let cordoned = object["spec"]["unschedulable"] == true;
    let status = format!("{}{}", if ready { "Ready" } else { "NotReady" }, if cordoned { ",SchedulingDisabled" } else { "" });
    let keys = object["metadata"]["labels"].as_object().into_iter().flat_map(|labels| labels.keys());
    let roles: Vec<&str> = keys.filter_map(|key| key.strip_prefix("node-role.kubernetes.io/")).collect();
    let address = |kind: &str| list(&object["status"]["addresses"]).find(|a| a["type"] == kind).map_or("", |a| text(&a["address"]));
    let info = |key: &str| json!(text(&object["status"]["nodeInfo"][key]));
    vec![
        name,
        json!(status),
        or_none(&roles.join(",")),
        age,
        info("kubeletVersion"),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let spec = &object["spec"];
    let port = |p: &Value| format!("{}/{}", p["port"], text(&p["protocol"]));
    let ports: Vec<String> = list(&spec["ports"]).map(port).collect();
    let outside = or_none(text(&spec["externalName"]));
    vec![
        name,
        spec["type"].clone(),
        or_none(text(&spec["clusterIP"])),
        outside,
        or_none(&ports.join(",")),
        age,
        json!(labels(&spec["selector"])),
    ]
}

fn pod(object: &Value, name: Value, age: Value, now: DateTime<Utc>) -> Vec<Value> {
    let status = &object["status"];
    let containers = list(&status["containerStatuses"]);
    let (mut ready, mut restarts, mut waiting, mut last) = (0, 0, None, None);
    for container in containers {
        ready += usize::from(container["ready"] == true);
        restarts += container["restartCount"].as_u64().unwrap_or(0);
        waiting = waiting.or(container["state"]["waiting"]["reason"].as_str());
        last = last.or(container["lastState"]["terminated"]["finishedAt"].as_str());
    }
    let phase = if object["metadata"]["deletionTimestamp"].is_string() { "Terminating" } else { waiting.unwrap_or(text(&status["phase"])) };
    let ago = last.map(|at| format!(" ({} ago)", since(&json!(at), now))).unwrap_or_default();
    let restarts = json!(format!("{restarts}{}", if restarts > 0 { ago } else { String::new() }));
    let (ip, node) = (or_none(text(&status["podIP"])), or_none(text(&object["spec"]["nodeName"])));
    let whole = list(&object["spec"]["containers"]).count();
    vec![name, json!(format!("{ready}/{whole}")), json!(phase), restarts, age, ip, node, json!(NONE), json!(NONE)]
}

fn event(object: &Value, name: Value, now: DateTime<Utc>) -> Vec<Value> {
    let about = &object["involvedObject"];
    let about = format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]));
    let seen = since(&object["lastTimestamp"], now);
    vec![json!(seen), object["type"].clone(), object["reason"].clone(), json!(about), json!(text(&object["message"]).trim()), name]
}

fn slice(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ports = match object["ports"].as_array() {
        None => "<unset>".to_owned(),
        Some(ports) => joined(ports.iter().map(|p| p["port"].to_string())),
    };
    let addresses = list(&object["endpoints"]).flat_map(|e| list(&e["addresses"])).map(|a| text(a).to_owned());
    let endpoints = if object["endpoints"].is_null() { "<unset>".to_owned() } else { joined(addresses) };
    vec![name, object["addressType"].clone(), json!(ports), json!(endpoints), age]
}

/// How long ago a time is, in the two largest units that matter.
fn since(at: &Value, now: DateTime<Utc>) -> String {
    let Some(at) = at.as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok()) else { return "<unknown>".to_owned() };
    age((now - at.with_timezone(&Utc)).num_seconds().max(0))
}

fn age(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |large: i64, unit: char, small: i64, rest: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{rest}") }
    };
    match () {
        () if minutes < 2 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_users_know_them() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (321, "5m21s"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (8 * 3600, "8h"),
            (50 * 3600, "2d2h"),
            (411 * 86400, "411d"),
            (3 * 365 * 86400, "3y"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }
}
