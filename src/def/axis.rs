//! What a check or a cause is multiplied by: nodes, pairs of nodes, services, vantages, ...

use super::inventory::{Declared, Inventory, Node};
use crate::check::Scope;
use crate::report::VantageReport;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// One dimension of `each`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Every node: binds `node`.
    Nodes,
    /// Every ordered pair of nodes that are declared up: binds `node` and `peer`.
    NodePairs,
    /// Every vantage of the run: binds `vantage`.
    Vantages,
    /// The first vantage of the run: binds `vantage`, and adds nothing to the instance id.
    FirstVantage,
    /// Every pod of the inventory: binds `pod`.
    Pods,
    /// Every service of the inventory: binds `svc`.
    Services,
    /// Every database: binds `database`.
    Databases,
    /// Every HTTP endpoint: binds `endpoint`.
    Http,
    /// Every model server: binds `model`.
    Vllm,
}

/// What one instance is bound to.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    /// What stands in the brackets of the instance id.
    pub label: String,
    /// Names and values.
    pub vars: Vec<(&'static str, Arc<Value>)>,
}

impl Axis {
    /// The names that this axis binds.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &["node"],
            Self::NodePairs => &["node", "peer"],
            Self::Vantages | Self::FirstVantage => &["vantage"],
            Self::Pods => &["pod"],
            Self::Services => &["svc"],
            Self::Databases => &["database"],
            Self::Http => &["endpoint"],
            Self::Vllm => &["model"],
        }
    }

    /// How many bindings it gives.
    fn count(self, inv: &Inventory, vantages: usize) -> usize {
        match self {
            Self::Nodes => inv.nodes.len(),
            Self::NodePairs => {
                let up = inv.nodes.iter().filter(|n| n.state == Declared::Up).count();
                up.saturating_mul(up.saturating_sub(1))
            }
            Self::Vantages => vantages,
            Self::FirstVantage => vantages.min(1),
            Self::Pods => inv.pods.len(),
            Self::Services => inv.services.len(),
            Self::Databases => inv.databases.len(),
            Self::Http => inv.https.len(),
            Self::Vllm => inv.vllms.len(),
        }
    }

    fn bindings(self, inv: &Inventory, vantages: &[VantageReport]) -> Vec<Binding> {
        let one = |name: &'static str, label: String, value: Value| Binding { label, vars: vec![(name, value.into())] };
        match self {
            Self::Nodes => inv.nodes.iter().map(|n| one("node", n.name.clone(), node_value(inv, n))).collect(),
            Self::NodePairs => pairs(inv),
            Self::Vantages => vantages.iter().map(|v| one("vantage", v.id.clone(), vantage_value(v))).collect(),
            Self::FirstVantage => vantages.iter().take(1).map(|v| one("vantage", String::new(), vantage_value(v))).collect(),
            Self::Pods => inv.pods.iter().map(|p| one("pod", p.name.clone(), json!(p))).collect(),
            Self::Services => inv
                .services
                .iter()
                .map(|s| {
                    let mut value = json!(s);
                    value["dns_name"] = json!(inv.service_dns_name(s));
                    one("svc", s.name.clone(), value)
                })
                .collect(),
            Self::Databases => inv.databases.iter().map(|d| one("database", d.name.clone(), json!(d))).collect(),
            Self::Http => inv.https.iter().map(|h| one("endpoint", h.name.clone(), json!(h))).collect(),
            Self::Vllm => inv.vllms.iter().map(|v| one("model", v.name.clone(), json!(v))).collect(),
        }
    }
}

fn vantage_value(v: &VantageReport) -> Value {
    json!({"id": v.id, "kind": v.kind, "transport": v.transport, "node": v.node.clone().unwrap_or_default()})
}

/// A node with what check files need of its networks besides: `subnet` (flannel.1's address), `a_pod` (an address that a
/// pod of it could have), `lan_router` (the first address of its LAN), `vtep` (the address between which VXLAN's outer packets go).
fn node_value(inv: &Inventory, node: &Node) -> Value {
    let mut value = json!(node);
    value["subnet"] = json!(node.pod_cidr.network());
    value["a_pod"] = json!(node.pod_cidr.hosts().last());
    value["vtep"] = json!(inv.vtep(node));
    value["lan_router"] = json!(node.lan_cidr.and_then(|lan| lan.hosts().next()));
    value
}

fn pairs(inv: &Inventory) -> Vec<Binding> {
    let up = || inv.nodes.iter().filter(|n| n.state == Declared::Up);
    up().flat_map(|node| {
        up().filter(|peer| peer.name != node.name).map(|peer| Binding {
            label: format!("{}->{}", node.name, peer.name),
            vars: vec![("node", node_value(inv, node).into()), ("peer", node_value(inv, peer).into())],
        })
    })
    .collect()
}

/// How many [`bindings`] there are, without making them.
pub fn count(axes: &[Axis], inv: &Inventory, vantages: usize) -> usize {
    axes.iter().map(|axis| axis.count(inv, vantages)).fold(1, usize::saturating_mul)
}

/// All combinations of the axes; without axes, one binding with an empty label.
pub fn bindings(axes: &[Axis], inv: &Inventory, vantages: &[VantageReport]) -> Vec<Binding> {
    axes.iter().fold(vec![Binding::default()], |so_far, axis| {
        let more = axis.bindings(inv, vantages);
        so_far
            .iter()
            .flat_map(|a| {
                more.iter().map(|b| Binding { label: join(&a.label, &b.label), vars: a.vars.iter().chain(&b.vars).cloned().collect() })
            })
            .collect()
    })
}

fn join(a: &str, b: &str) -> String {
    [a, b].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
}

/// The scope in which a binding's templates are filled in: its variables, and the inventory as `inv`.
pub fn scope(binding: &Binding, inv: &Arc<Value>) -> Scope {
    let mut scope = Scope::new();
    scope.bind("inv", Arc::clone(inv));
    for (name, value) in &binding.vars {
        scope.bind(name, Arc::clone(value));
    }
    scope
}
