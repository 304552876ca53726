//! A stand-in for CoreDNS: kubernetes, hosts, cache and forward plugins; health, ready and metrics.

use super::super::ServerHandle;
use super::super::http::{self, Style, answer as http_answer};
use super::answer::{Answer, Answers, Question, name};
use super::forward::Forwarder;
use super::metrics::Metrics;
use super::special::{denied, special};
use crate::twin::cluster::{Cluster, Lookup, Resource};
use crate::vantage::Net;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::{RData, RecordType};
use hyper::StatusCode;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// TTL of the kubernetes plugin's records, in seconds (its default).
pub(super) const ZONE_TTL: u32 = 5;
/// TTL of `NodeHosts` records after the cache plugin has capped them, in seconds.
const HOSTS_TTL: u32 = 30;

/// Whose log its lines are in: namespace, and the beginning of the pod's name.
const POD: (&str, &str) = ("kube-system", "coredns");
/// What it logs at its start.
const BANNER: [&str; 4] = [
    "[WARNING] No files matching import glob pattern: /etc/coredns/custom/*.override",
    "[WARNING] No files matching import glob pattern: /etc/coredns/custom/*.server",
    ".:53",
    "CoreDNS-1.14.7",
];

/// What to serve and where.
#[derive(Clone, Debug)]
pub struct CoreDns {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Port of the DNS service: 53.
    pub port: u16,
    /// Ports of `/health`, `/ready` and `/metrics`: 8080, 8181, 9153.
    pub http_ports: [u16; 3],
    /// Where other names are forwarded to, in the order in which they are tried.
    pub upstreams: Vec<SocketAddrV4>,
}

impl CoreDns {
    /// With the ports of K3s' CoreDNS.
    pub fn new(address: Ipv4Addr, upstreams: Vec<SocketAddrV4>) -> Self {
        Self { address, port: 53, http_ports: [8080, 8181, 9153], upstreams }
    }

    /// Starts it: DNS by UDP and TCP, and its three HTTP ports.
    pub fn serve(self, net: &Net, cluster: Cluster) -> io::Result<CoreDnsHandle> {
        let metrics = Arc::new(Metrics::new());
        BANNER.iter().for_each(|line| cluster.logs().write(POD.0, POD.1, line));
        let logs = cluster.logs().clone();
        let log = Box::new(move |line: &str| logs.write(POD.0, POD.1, line));
        let forwarder = Arc::new(Forwarder::new(net.clone(), self.upstreams, metrics.clone(), log));
        let stale = Denials::default();
        let plugins = Plugins { cluster, forwarder: forwarder.clone(), metrics: metrics.clone(), stale: stale.clone() };
        let counts = metrics.clone();
        let dns = super::serve(net, SocketAddrV4::new(self.address, self.port), plugins)?;
        let page = |port, path, text: Text| serve_page(net, SocketAddrV4::new(self.address, port), path, text);
        let [health, ready, scrape] = self.http_ports;
        let pages = vec![
            page(health, "/health", Arc::new(|| "OK".to_owned()))?,
            page(ready, "/ready", Arc::new(|| "OK".to_owned()))?,
            page(scrape, "/metrics", Arc::new(move || metrics.render()))?,
        ];
        Ok(CoreDnsHandle { dns, pages, forwarder, stale, metrics: counts })
    }
}

/// A running CoreDNS.
pub struct CoreDnsHandle {
    dns: ServerHandle,
    pages: Vec<ServerHandle>,
    forwarder: Arc<Forwarder>,
    stale: Denials,
    metrics: Arc<Metrics>,
}

/// Names whose address records a cache still denies.
type Denials = Arc<Mutex<BTreeSet<String>>>;

impl CoreDnsHandle {
    /// Where it answers DNS.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.dns.address()
    }

    /// Where it serves `/health`, `/ready` and `/metrics`.
    pub fn http_addresses(&self) -> Vec<SocketAddrV4> {
        self.pages.iter().filter_map(ServerHandle::address).collect()
    }

    /// Replaces the upstream resolvers, and forgets what the old ones have said: CoreDNS must be restarted for it.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddrV4>) {
        self.forwarder.set_upstreams(upstreams);
        self.forwarder.flush();
        self.metrics.reset();
    }

    /// Empties the cache, as a restart does.
    pub fn flush(&self) {
        self.forwarder.flush();
    }

    /// Makes the cache hold a denial of a name's address (the cache plugin keys its entries by name and type), or drop it.
    pub fn set_stale_denial(&self, name: &str, stale: bool) {
        let mut denied = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if stale {
            denied.insert(name.to_ascii_lowercase());
        } else {
            denied.remove(&name.to_ascii_lowercase());
        }
    }

    /// Stops all of it.
    pub async fn stop(self) {
        self.dns.stop().await;
        for page in self.pages {
            page.stop().await;
        }
    }
}

type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves one text page; every other path is Go's 404.
fn serve_page(net: &Net, address: SocketAddrV4, path: &'static str, text: Text) -> io::Result<ServerHandle> {
    http::serve(net, address, None, Style::Title, move |_, request| {
        let (status, body) = if request.uri().path() == path {
            (StatusCode::OK, text())
        } else {
            (StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
        };
        let content_type = if path == "/metrics" && status == StatusCode::OK {
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        } else {
            "text/plain; charset=utf-8"
        };
        async move { http_answer(status, &[("content-type", content_type)], body) }
    })
}

/// The start of authority that the kubernetes plugin makes up for a zone of its own.
fn authority(zone: &str) -> Option<SOA> {
    let serial = u32::try_from(chrono::Utc::now().timestamp()).unwrap_or(u32::MAX);
    let server = name(&format!("ns.dns.{zone}")).ok()?;
    Some(SOA::new(server, name(&format!("hostmaster.{zone}")).ok()?, serial, 7200, 1800, 86400, 5))
}

struct Plugins {
    cluster: Cluster,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
    stale: Denials,
}

impl Answers for Plugins {
    async fn answer(&self, question: &Question) -> Answer {
        let started = Instant::now();
        let answer = match self.local(question) {
            Some(answer) => answer,
            None => self.forwarder.resolve(question).await,
        };
        self.metrics.answered(question, answer.code, started.elapsed());
        answer
    }
}

impl Plugins {
    /// What it knows itself; `None` is left to the upstream resolvers.
    fn local(&self, question: &Question) -> Option<Answer> {
        let domain = self.cluster.domain();
        // The plugin answers for the name in small letters, whatever the question had.
        let question = &Question { name: question.name.to_lowercase(), ..question.clone() };
        if question.text == domain || question.text.ends_with(&format!(".{domain}")) {
            return Some(self.zone(question, &domain));
        }
        self.reverse(question).or_else(|| self.hosts(question))
    }

    /// The kubernetes plugin.
    fn zone(&self, question: &Question, domain: &str) -> Answer {
        let soa = || authority(domain);
        match question.kind {
            // No zone is given away.
            RecordType::AXFR | RecordType::IXFR => return Answer::empty(ResponseCode::Refused),
            RecordType::SOA if question.text == domain => {
                let answer = Answer::default().authoritative();
                return soa().map_or(answer.clone(), |soa| answer.record(question, RData::SOA(soa), ZONE_TTL));
            }
            // Of any other name only that is said, whether it exists or not.
            RecordType::SOA => return Answer::default().soa(domain, soa(), ZONE_TTL).authoritative(),
            _ => {}
        }
        if let Some(special) = special(&self.cluster, question, domain) {
            return special.authoritative();
        }
        let stale = question.kind == RecordType::A && self.stale.lock().unwrap_or_else(PoisonError::into_inner).contains(&question.text);
        let lookup = self.cluster.dns_lookup(&question.text);
        let lookup = if stale || denied(question, &lookup, domain) { Lookup::NoSuchName } else { lookup };
        let found = match lookup {
            Lookup::NoSuchName => Answer::empty(ResponseCode::NXDomain).soa(domain, soa(), ZONE_TTL),
            Lookup::Addresses(addresses) if question.kind == RecordType::A => {
                addresses.into_iter().fold(Answer::default(), |answer, address| answer.address(question, address, ZONE_TTL))
            }
            _ => Answer::default().soa(domain, soa(), ZONE_TTL),
        };
        found.authoritative()
    }

    /// The kubernetes plugin for `in-addr.arpa`, which falls through.
    fn reverse(&self, question: &Question) -> Option<Answer> {
        let mut octets: Vec<&str> = question.text.strip_suffix(".in-addr.arpa")?.split('.').collect();
        if question.kind == RecordType::SOA {
            return Some(Answer::default().soa("in-addr.arpa", authority("in-addr.arpa"), ZONE_TTL).authoritative());
        }
        octets.reverse();
        let names = self.cluster.dns_reverse(octets.join(".").parse().ok()?);
        if names.is_empty() || question.kind != RecordType::PTR {
            return None;
        }
        Some(names.iter().fold(Answer::default().authoritative(), |answer, name| answer.pointer(question, name, ZONE_TTL)))
    }

    /// The hosts plugin on `NodeHosts`.
    fn hosts(&self, question: &Question) -> Option<Answer> {
        // Pointers are at the names of addresses only.
        if question.kind == RecordType::PTR {
            return None;
        }
        let hosts = self.cluster.read(|objects| {
            let config = objects.get(Resource::ConfigMaps, "kube-system", "coredns")?;
            config["data"]["NodeHosts"].as_str().map(str::to_owned)
        })?;
        let line = hosts.lines().find(|line| line.split_whitespace().skip(1).any(|host| host == question.text))?;
        let address = line.split_whitespace().next()?.parse().ok()?;
        let answer = Answer::default().authoritative();
        Some(if question.kind == RecordType::A { answer.address(question, address, HOSTS_TTL) } else { answer })
    }
}
