//! What touches the network: one file per probe kind, one ordered slice [`KINDS`]. Asynchronous, read-only.
//!
//! A probe never judges: it records facts (or that one is unknown, and why), short raw evidence, and nothing else.
//! It gets a deadline and must be done by then; [`run`](crate::run) cuts it off a moment later.

pub mod net;

mod basic_auth;
mod canary;
mod capture;
mod command;
pub(crate) mod completion;
mod conntrack;
mod coredns;
mod coredns_pods;
mod counters;
mod der;
mod dns;
mod egress;
mod egress_six;
mod errqueue;
mod flannel;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile;
mod http;
mod http1;
mod http_get;
mod http_proxy;
mod icmp;
mod kube;
mod kube_client;
mod kube_proxy;
mod kubelet;
mod link;
pub(crate) mod lookup;
mod masquerade;
mod netlink;
mod network_policy;
mod nft;
mod ocr;
pub(crate) mod ocr_page;
mod pg_idle;
mod pg_login;
mod pg_wire;
mod pmtu;
mod pod_log;
mod postgres;
pub(crate) mod prometheus;
mod query;
pub mod rbac;
pub(crate) mod resolv;
mod resolver;
mod return_path;
mod route;
mod service;
mod socket;
mod source_nat;
pub(crate) mod sse;
mod stun;
mod subnet;
mod sysctl;
mod tailscale;
mod tcp;
#[cfg(test)]
mod testing;
pub(crate) mod tls;
mod trace;
mod udp;
mod vllm;
mod vllm_metrics;
mod vxlan_wire;
mod warp;
mod way;

#[cfg(test)]
pub(crate) mod testnet;

pub use service::{Objects, PortState, Services, every_service};

use crate::check::{Facts, Observation};
use crate::def::Inventory;
use crate::vantage::Vantage;
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::Instant;

/// Every probe kind, in the order of the documentation.
pub static KINDS: &[&Kind] = &[
    &icmp::KIND,
    &link::KIND,
    &route::KIND,
    &sysctl::KIND,
    &socket::KIND,
    &tailscale::KIND,
    &return_path::KIND,
    &warp::KIND,
    &flannel::KIND,
    &subnet::KIND,
    &vxlan_wire::KIND,
    &pmtu::KIND,
    &counters::KIND,
    &nft::KIND,
    &source_nat::KIND,
    &conntrack::KIND,
    &masquerade::KIND,
    &tcp::KIND,
    &udp::KIND,
    &trace::KIND,
    &dns::KIND,
    &coredns::KIND,
    &coredns_pods::KIND,
    &resolver::KIND,
    &kube::KIND,
    &kubelet::KIND,
    &service::KIND,
    &kube_proxy::KIND,
    &network_policy::KIND,
    &egress::KIND,
    &postgres::KIND,
    &pg_login::KIND,
    &pg_idle::KIND,
    &http::KIND,
    &http_proxy::KIND,
    &pod_log::KIND,
    &vllm::KIND,
    &ocr::KIND,
];

/// A kind of probe: what it can observe, and how its arguments are read.
pub struct Kind {
    /// The word used as `kind` in check files.
    pub name: &'static str,
    /// The variable under which expectations see its facts.
    pub root: &'static str,
    /// One sentence: what it observes.
    pub about: &'static str,
    /// The privilege without which facts are unknown, if any.
    pub privilege: Option<&'static str>,
    /// Its arguments, as `[with]` takes them: name and meaning.
    pub args: &'static [(&'static str, &'static str)],
    /// The facts it can observe.
    pub facts: &'static [FactDoc],
    /// Reads `[with]`; the error is one clause without a location.
    pub decode: fn(&toml::Table) -> Result<Box<dyn Probe>, String>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Documentation of one fact.
pub struct FactDoc {
    /// Dotted path below the root. A trailing `.*` means that what follows varies.
    pub path: &'static str,
    /// Type and unit: `bool`, `ms`, `bytes`, `address`, ...
    pub unit: &'static str,
    /// Meaning.
    pub about: &'static str,
}

/// Shorthand for a table of facts.
pub const fn fact(path: &'static str, unit: &'static str, about: &'static str) -> FactDoc {
    FactDoc { path, unit, about }
}

impl Kind {
    /// The kind of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().copied().find(|k| k.name == name)
    }

    /// Whether the kind offers a fact path (or a prefix of one).
    pub fn offers(&self, path: &str) -> bool {
        self.facts.iter().any(|f| match f.path.strip_suffix(".*") {
            Some(stem) => path == stem || path.starts_with(&format!("{stem}.")),
            None => f.path == path || f.path.starts_with(&format!("{path}.")),
        })
    }
}

impl Observation {
    /// Every fact of the kind that was neither observed nor is unknown for a reason of its own is unknown for this one.
    fn rest_unknown(&mut self, kind: &Kind, reason: &str) {
        self.facts.rest_unknown(kind, reason);
    }
}

impl Facts {
    /// The same for the facts alone.
    fn rest_unknown(&mut self, kind: &Kind, reason: &str) {
        for doc in kind.facts {
            if !self.unknowns().contains_key(doc.path) {
                self.unknown(doc.path, reason);
            }
        }
    }
}

/// What a probe gets besides its arguments.
#[derive(Clone)]
pub struct Context {
    /// Where to look from.
    pub vantage: Arc<Vantage>,
    /// A second vantage that watches counters meanwhile, if one was asked for and is at hand.
    pub witness: Option<Arc<Vantage>>,
    /// What the documents say.
    pub inventory: Arc<Inventory>,
    /// When to be done.
    pub deadline: Instant,
}

impl Context {
    /// Time left until the deadline, at most `most`.
    pub fn time_left(&self, most: std::time::Duration) -> std::time::Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(most)
    }
}

/// Something that can observe.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Looks once. Never panics, never blocks the runtime, never changes what it looks at.
    async fn observe(&self, cx: &Context) -> Observation;

    /// What it looks at, for reports: an address, a device, a URL without secrets.
    fn target(&self) -> String;
}

/// [`Kind::decode`] for an argument type that is the probe itself.
pub(crate) fn decode<P: Probe + DeserializeOwned + 'static>(with: &toml::Table) -> Result<Box<dyn Probe>, String> {
    match toml::Value::Table(with.clone()).try_into::<P>() {
        Ok(probe) => Ok(Box::new(probe)),
        Err(error) => Err(error.message().lines().next().unwrap_or("cannot be read").to_owned()),
    }
}
