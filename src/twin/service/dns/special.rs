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
        (RecordType::SRV, _) => services(cluster, question),
        _ => None,
    }
}

/// Whether a name has no record of a type although it exists: the plugin looks for TXT only among services and pods, and for PTR not at
/// its own nameserver's name.
pub(super) fn denied(question: &Question, lookup: &Lookup, domain: &str) -> bool {
    match question.kind {
        RecordType::TXT => !matches!(lookup, Lookup::Addresses(_)),
        RecordType::PTR => question.text == format!("ns.dns.{domain}"),
        _ => false,
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

/// A record for each port of what the name stands for, alike ones once, and the addresses of their hosts.
fn services(cluster: &Cluster, question: &Question) -> Option<Answer> {
    let mut all = cluster.dns_services(&question.text);
    let weight = 100 / u16::try_from(all.len()).ok().filter(|count| *count > 0)?;
    let mut seen = Vec::new();
    all.retain(|service| {
        let new = !seen.contains(service);
        seen.push(service.clone());
        new
    });
    let answer = all.iter().fold(Answer::default(), |answer, service| match name(&service.host) {
        Ok(host) => answer.record(question, RData::SRV(SRV::new(0, weight, service.port, host)), ZONE_TTL),
        Err(_) => answer,
    });
    let mut hosts: Vec<_> = all.into_iter().map(|service| (service.host, service.address)).collect();
    hosts.dedup();
    Some(hosts.iter().fold(answer, |answer, (host, address)| answer.glue(host, *address, ZONE_TTL)))
}
