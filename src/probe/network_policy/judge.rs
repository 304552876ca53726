//! Whether policies stand between a client and a port, and which. Pure.
//!
//! A pod that some policy of a direction selects takes (ingress) or makes (egress) only connections that a rule of one of these
//! policies allows; both ends have to allow one. Policies only add: their order does not matter.

use super::policy::{Answer, Direction, IpBlock, Labels, Peer, Policy, Port, Rule, Spec, all, any};
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::Ipv4Addr;

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Its address as the policies' enforcer sees it, or why it is not known.
    pub(super) address: Result<Ipv4Addr, String>,
    /// Who has that address.
    pub(super) who: Who,
}

#[derive(Clone, Debug)]
pub(super) enum Who {
    /// A pod with a network of its own.
    Pod(Pod),
    /// A node, a pod in a node's network, or something outside: no selector means it.
    Host,
    /// It could not be found out, and why.
    Unknown(String),
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: Labels,
    /// Labels of its namespace, or why they are not known.
    pub(super) namespace_labels: Result<Labels, String>,
    /// Its containers' ports: name, protocol, number.
    pub(super) ports: Vec<(String, String, u16)>,
}

/// The connection in question.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) port: u16,
    /// `TCP`, `UDP`, `SCTP`.
    pub(super) protocol: &'static str,
    /// The client is the node that the pod runs on: it is always let in.
    pub(super) own_node: bool,
}

/// What the policies say about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Policies that select the pod for ingress or the client for egress, `namespace/name`; or why that is not known.
    pub(super) selecting: Result<Vec<String>, String>,
    /// No rule allows it.
    pub(super) blocked: Answer,
    /// For each policy that selects an end and does not allow it, why not: `apps/deny-all (ingress: it has no rule)`.
    pub(super) because: Vec<String>,
    /// The client's pod may not connect to anything: policies select it for egress, and none of them has a rule.
    pub(super) isolated: Answer,
}

impl Judgement {
    /// Nothing can be said, and why.
    pub(super) fn unknown(reason: &str) -> Self {
        let reason = || reason.to_owned();
        Self { selecting: Err(reason()), blocked: Err(reason()), because: Vec::new(), isolated: Err(reason()) }
    }
}

/// Judges a connection by all policies of the cluster.
///
/// What a rule means is the Kubernetes documentation's. Of the enforcer (K3s: kube-router) three things are taken for granted: that
/// it tells pods by their addresses, that it always lets the pod's own node in, and that established connections and their ICMP
/// errors pass. Whether it passes echo requests that no rule names is not: no verdict here is about ICMP, and where the probe asks for an echo, only an
/// answer counts.
pub(super) fn judge(policies: &[Policy], flow: &Flow) -> Judgement {
    let ends = [Side::of(policies, flow, Direction::Ingress), Side::of(policies, flow, Direction::Egress)];
    let mut selecting = Ok(Vec::new());
    for end in &ends {
        match (&mut selecting, &end.undecided) {
            (Ok(all), None) => all.extend(end.sure.iter().map(|policy| policy.id.clone())),
            (Ok(_), Some(reason)) => selecting = Err(reason.clone()),
            (Err(_), _) => {}
        }
    }
    if let Ok(all) = &mut selecting {
        all.sort();
        all.dedup();
    }
    let blocked = any(ends.iter().map(|end| end.blocked(flow)));
    let because = if blocked == Ok(true) {
        let blocking = ends.iter().filter(|end| end.blocked(flow) == Ok(true));
        blocking.flat_map(|end| end.sure.iter().map(|policy| end.reason(policy, flow))).collect()
    } else {
        Vec::new()
    };
    Judgement { selecting, blocked, because, isolated: ends[1].isolates() }
}

/// The policies of one direction that concern one end.
struct Side {
    direction: Direction,
    sure: Vec<Selected>,
    /// Policies of which it is not known whether they select the end.
    maybe: Vec<Selected>,
    /// Some policy says what is not understood at all.
    opaque: bool,
    /// Why it is not known which policies select the end.
    undecided: Option<String>,
}

/// A policy that selects an end, or may.
struct Selected {
    id: String,
    namespace: String,
    spec: Spec,
}

impl Side {
    fn of(policies: &[Policy], flow: &Flow, direction: Direction) -> Self {
        let mut side = Self { direction, sure: Vec::new(), maybe: Vec::new(), opaque: false, undecided: None };
        let subject = match direction {
            Direction::Ingress => &flow.to.who,
            Direction::Egress => &flow.from.who,
        };
        let concerned = |policy: &&Policy| match subject {
            Who::Host => false,
            Who::Pod(pod) => pod.namespace == policy.metadata.namespace,
            Who::Unknown(_) => true,
        };
        for policy in policies.iter().filter(concerned) {
            side.add(policy, subject);
        }
        side
    }

    fn add(&mut self, policy: &Policy, subject: &Who) {
        let spec = match policy.spec() {
            Ok(spec) if spec.rules(self.direction).is_none() => return,
            Ok(spec) => spec,
            Err(reason) => {
                self.opaque = true;
                self.undecided.get_or_insert(reason);
                return;
            }
        };
        let selects = match subject {
            Who::Pod(pod) => spec.pod_selector.selects(&pod.labels),
            Who::Unknown(reason) => Err(reason.clone()),
            Who::Host => Ok(false),
        };
        let selected = Selected { id: policy.id(), namespace: policy.metadata.namespace.clone(), spec };
        match selects {
            Ok(true) => self.sure.push(selected),
            Ok(false) => {}
            Err(reason) => {
                self.undecided.get_or_insert(format!("{}: {reason}", selected.id));
                self.maybe.push(selected);
            }
        }
    }

    /// Whether this end refuses.
    fn blocked(&self, flow: &Flow) -> Answer {
        if self.direction == Direction::Ingress && flow.own_node || flow.is_to_itself() {
            return Ok(false);
        }
        let allowed = any(self.sure.iter().map(|policy| self.allows(policy, flow)));
        match (&self.undecided, allowed) {
            (_, Ok(true)) => Ok(false),
            (None, Ok(false)) => Ok(!self.sure.is_empty()),
            (_, Err(reason)) => Err(reason),
            // Whoever of them selects it allows it; nobody else selects it.
            (Some(_), _) if self.sure.is_empty() && !self.opaque && self.each_doubtful_one_allows(flow) => Ok(false),
            (Some(reason), Ok(false)) => Err(reason.clone()),
        }
    }

    /// Whether it denies everything in its direction.
    fn isolates(&self) -> Answer {
        let has_rule = self.sure.iter().any(|policy| !self.rules(policy).is_empty());
        match &self.undecided {
            _ if has_rule => Ok(false),
            Some(reason) => Err(reason.clone()),
            None => Ok(!self.sure.is_empty()),
        }
    }

    fn each_doubtful_one_allows(&self, flow: &Flow) -> bool {
        self.maybe.iter().all(|policy| self.allows(policy, flow) == Ok(true))
    }

    fn allows(&self, policy: &Selected, flow: &Flow) -> Answer {
        any(self.rules(policy).iter().map(|rule| rule.allows(self.other(flow), flow, &policy.namespace)))
    }

    fn rules<'p>(&self, policy: &'p Selected) -> &'p [Rule] {
        policy.spec.rules(self.direction).unwrap_or_default()
    }

    fn other<'f>(&self, flow: &'f Flow) -> &'f End {
        match self.direction {
            Direction::Ingress => &flow.from,
            Direction::Egress => &flow.to,
        }
    }

    /// Why a policy that does not allow the connection does not.
    fn reason(&self, policy: &Selected, flow: &Flow) -> String {
        let rules = self.rules(policy);
        let is_for_peer = any(rules.iter().map(|rule| rule.is_for(self.other(flow), &policy.namespace))) == Ok(true);
        let why = match self.direction {
            _ if rules.is_empty() => "it has no rule: it denies everything".to_owned(),
            _ if is_for_peer => format!("its rules for this peer leave out port {}/{}", flow.port, flow.protocol),
            Direction::Ingress => "none of its rules is for this client".to_owned(),
            Direction::Egress => "none of its rules is for this destination".to_owned(),
        };
        format!("{} ({}: {why})", policy.id, self.direction.word())
    }
}

impl Flow {
    /// A pod cannot block itself.
    fn is_to_itself(&self) -> bool {
        matches!((&self.from.address, &self.to.address), (Ok(from), Ok(to)) if from == to)
    }
}

impl Rule {
    fn allows(&self, other: &End, flow: &Flow, namespace: &str) -> Answer {
        self.known()?;
        all([self.is_for(other, namespace), self.has_port(flow)])
    }

    /// Without peers it is for everybody.
    fn is_for(&self, other: &End, namespace: &str) -> Answer {
        match self.peers.as_deref().unwrap_or_default() {
            [] => Ok(true),
            peers => any(peers.iter().map(|peer| peer.is(other, namespace))),
        }
    }

    /// Without ports it is for all of them.
    fn has_port(&self, flow: &Flow) -> Answer {
        match self.ports.as_deref().unwrap_or_default() {
            [] => Ok(true),
            ports => any(ports.iter().map(|port| port.is(flow))),
        }
    }
}

impl Peer {
    fn is(&self, end: &End, namespace: &str) -> Answer {
        self.known()?;
        match (&self.ip_block, &self.namespace_selector, &self.pod_selector) {
            (Some(block), None, None) => block.holds(end.address.as_ref().map_err(Clone::clone).copied()),
            (None, None, None) => Err("a peer that names nobody".to_owned()),
            (Some(_), _, _) => Err("a peer that is both addresses and pods".to_owned()),
            (None, namespaces, pods) => match &end.who {
                Who::Host => Ok(false),
                Who::Unknown(reason) => Err(reason.clone()),
                Who::Pod(pod) => all([
                    match namespaces {
                        None => Ok(pod.namespace == namespace),
                        Some(selector) if selector.is_empty() => Ok(true),
                        Some(selector) => pod.namespace_labels.as_ref().map_err(Clone::clone).and_then(|labels| selector.selects(labels)),
                    },
                    pods.as_ref().map_or(Ok(true), |selector| selector.selects(&pod.labels)),
                ]),
            },
        }
    }
}

impl IpBlock {
    fn holds(&self, address: Result<Ipv4Addr, String>) -> Answer {
        let within = |cidr: &str| match cidr.parse::<IpNet>() {
            Ok(IpNet::V4(range)) => address.clone().map(|address| Ipv4Net::contains(&range, &address)),
            Ok(IpNet::V6(_)) => Ok(false),
            Err(_) => Err("an ipBlock that is no address range".to_owned()),
        };
        let excepted = any(self.except.iter().flatten().map(|cidr| within(cidr)));
        all([within(&self.cidr), excepted.map(|excepted| !excepted)])
    }
}

impl Port {
    fn is(&self, flow: &Flow) -> Answer {
        let number = i32::from(flow.port);
        self.known()?;
        match (&self.port, self.end_port) {
            _ if self.protocol.as_deref().unwrap_or("TCP") != flow.protocol => Ok(false),
            (None, None) => Ok(true),
            (Some(IntOrString::Int(first)), None) => Ok(*first == number),
            (Some(IntOrString::Int(first)), Some(last)) => Ok((*first..=last).contains(&number)),
            (Some(IntOrString::String(name)), None) => match &flow.to.who {
                Who::Pod(pod) => Ok(pod.ports.iter().any(|(n, protocol, p)| n == name && protocol == flow.protocol && *p == flow.port)),
                Who::Host => Ok(false),
                Who::Unknown(reason) => Err(reason.clone()),
            },
            (_, Some(_)) => Err("an endPort without a port number".to_owned()),
        }
    }
}
