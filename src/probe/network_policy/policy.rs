//! NetworkPolicies as the API writes them (networking.k8s.io/v1), and what selectors select.
//!
//! A field that is not known here may change what the object means: what carries one is undecided.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Key and value.
pub(super) type Labels = BTreeMap<String, String>;
/// Whether something holds; the error says why that cannot be decided.
pub(super) type Answer = Result<bool, String>;

/// True if one is, undecided if one is and none is true.
pub(super) fn any(answers: impl IntoIterator<Item = Answer>) -> Answer {
    let mut undecided = None;
    for answer in answers {
        match answer {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(reason) => _ = undecided.get_or_insert(reason),
        }
    }
    undecided.map_or(Ok(false), Err)
}

/// False if one is, undecided if one is and none is false.
pub(super) fn all(answers: impl IntoIterator<Item = Answer>) -> Answer {
    any(answers.into_iter().map(|answer| answer.map(|holds| !holds))).map(|some_fails| !some_fails)
}

/// A NetworkPolicy in place of what is needed of it.
#[derive(Debug, Deserialize)]
pub(super) struct Policy {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
}

/// Fields that are not known here.
type More = BTreeMap<String, Value>;

/// What a policy says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) pod_selector: Selector,
    #[serde(default)]
    ingress: Option<Vec<Rule>>,
    #[serde(default)]
    egress: Option<Vec<Rule>>,
    #[serde(default)]
    policy_types: Option<Vec<String>>,
    #[serde(flatten)]
    more: More,
}

/// Which way a policy looks from the pods that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Policy {
    /// `namespace/name`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// What it says; the error if that is not understood.
    pub(super) fn spec(&self) -> Result<Spec, String> {
        let spec: Spec = Spec::deserialize(&self.spec).map_err(|e| format!("{} is not understood: {e}", self.id()))?;
        known(&spec.more).map_err(|e| format!("{}: {e}", self.id()))?;
        Ok(spec)
    }
}

fn known(more: &More) -> Result<(), String> {
    more.keys().next().map_or(Ok(()), |field| Err(format!("the field `{field}` is not understood")))
}

impl Spec {
    /// The rules of a direction; `None` if the policy says nothing about it. Without `policyTypes` it is about ingress, and about
    /// egress if it has rules for that (defaults of the API server).
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        let (rules, word) = match direction {
            Direction::Ingress => (&self.ingress, "Ingress"),
            Direction::Egress => (&self.egress, "Egress"),
        };
        let rules = rules.as_deref().unwrap_or_default();
        let concerned = match self.policy_types.as_deref().unwrap_or_default() {
            [] => direction == Direction::Ingress || !rules.is_empty(),
            types => types.iter().any(|t| t == word),
        };
        concerned.then_some(rules)
    }

    /// Whether some rule selects namespaces by their labels.
    pub(super) fn reads_namespaces(&self) -> bool {
        let rules = self.ingress.iter().chain(&self.egress).flatten();
        rules.flat_map(|rule| rule.peers.iter().flatten()).any(|p| p.namespace_selector.as_ref().is_some_and(|s| !s.is_empty()))
    }
}

/// One rule: peers (of either direction) and ports.
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    #[serde(default, rename = "from", alias = "to")]
    pub(super) peers: Option<Vec<Peer>>,
    #[serde(default)]
    pub(super) ports: Option<Vec<Port>>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peer {
    #[serde(default)]
    pub(super) pod_selector: Option<Selector>,
    #[serde(default)]
    pub(super) namespace_selector: Option<Selector>,
    #[serde(default)]
    pub(super) ip_block: Option<IpBlock>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Deserialize)]
pub(super) struct IpBlock {
    pub(super) cidr: String,
    #[serde(default)]
    pub(super) except: Option<Vec<String>>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(default)]
    pub(super) protocol: Option<String>,
    #[serde(default)]
    pub(super) port: Option<IntOrString>,
    #[serde(default)]
    pub(super) end_port: Option<i32>,
    #[serde(flatten)]
    more: More,
}

impl Rule {
    /// The error names a field that is not understood.
    pub(super) fn known(&self) -> Result<(), String> {
        known(&self.more)
    }
}

impl Peer {
    /// The error names a field that is not understood.
    pub(super) fn known(&self) -> Result<(), String> {
        known(&self.more)?;
        self.ip_block.as_ref().map_or(Ok(()), |block| known(&block.more))
    }
}

impl Port {
    /// The error names a field that is not understood.
    pub(super) fn known(&self) -> Result<(), String> {
        known(&self.more)
    }
}

/// A label selector (meta/v1). An empty one selects everything.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Selector {
    #[serde(default)]
    match_labels: Option<Labels>,
    #[serde(default)]
    match_expressions: Option<Vec<Expression>>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Option<Vec<String>>,
}

impl Selector {
    pub(super) fn is_empty(&self) -> bool {
        let none = self.match_labels.as_ref().is_none_or(BTreeMap::is_empty);
        none && self.match_expressions.as_ref().is_none_or(Vec::is_empty) && self.more.is_empty()
    }

    /// Whether the labels satisfy it.
    pub(super) fn selects(&self, labels: &Labels) -> Answer {
        known(&self.more)?;
        let pairs = self.match_labels.iter().flatten().map(|(key, value)| Ok(labels.get(key) == Some(value)));
        let expressions = self.match_expressions.iter().flatten().map(|expression| expression.holds(labels));
        all(pairs.chain(expressions))
    }
}

impl Expression {
    fn holds(&self, labels: &Labels) -> Answer {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().flatten().any(|v| v == value));
        match self.operator.as_str() {
            "In" => Ok(listed),
            // A label that is not there is not in the list either.
            "NotIn" => Ok(!listed),
            "Exists" => Ok(value.is_some()),
            "DoesNotExist" => Ok(value.is_none()),
            other => Err(format!("the operator `{other}` is not understood")),
        }
    }
}
