//! Records of the kubernetes plugin other than addresses: NS, SRV and the version of its schema
//! (github.com/kubernetes/dns, specification.md).

use super::answer::{Answer, Question, name};
use super::coredns::ZONE_TTL;
use crate::twin::cluster::{Cluster, Lookup};
use hickory_resolver::proto::rr::rdata::{NS, SRV, TXT};
use hickory_resolver::proto::rr::{RData, RecordType};

/// TTL of `dns-version` (its own, not the zone's).
const VERSION_TTL: u32 = 30;

/// The answer, if the question is for one of these.
pub(super) fn special(cluster: &Cluster, question: &Question, domain: &str) -> Option<Answer> {
    let rest = question.text.strip_suffix(domain)?.trim_end_matches('.');
    match (question.kind, rest) {
        (RecordType::NS, "") => nameserver(cluster, question, domain),
        (RecordType::TXT, "dns-version") => {
            Some(Answer::default().record(question, RData::TXT(TXT::new(vec!["1.1.0".to_owned()])), VERSION_TTL))
        }
        (RecordType::SRV, port) => service_port(cluster, question, port, domain),
        _ => None,
    }
}

fn first(cluster: &Cluster, host: &str) -> Option<std::net::Ipv4Addr> {
    if let Lookup::Addresses(addresses) = cluster.dns_lookup(host) { addresses.first().copied() } else { None }
}

fn nameserver(cluster: &Cluster, question: &Question, domain: &str) -> Option<Answer> {
    let host = format!("kube-dns.kube-system.svc.{domain}");
    let address = first(cluster, &host)?;
    Some(Answer::default().record(question, RData::NS(NS(name(&host).ok()?)), ZONE_TTL).glue(&host, address, ZONE_TTL))
}

/// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc` of a service with a ClusterIP.
fn service_port(cluster: &Cluster, question: &Question, text: &str, domain: &str) -> Option<Answer> {
    let [port, protocol, service, namespace, "svc"] = text.split('.').collect::<Vec<_>>()[..] else { return None };
    let number = cluster.port_number(namespace, service, port.strip_prefix('_')?, protocol.strip_prefix('_')?)?;
    let host = format!("{service}.{namespace}.svc.{domain}");
    let address = first(cluster, &host)?;
    let record = RData::SRV(SRV::new(0, 100, number, name(&host).ok()?));
    Some(Answer::default().record(question, record, ZONE_TTL).glue(&host, address, ZONE_TTL))
}
