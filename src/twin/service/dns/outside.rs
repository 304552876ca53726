//! A recursive resolver of the outside: it knows a few names, everything else does not exist.

use super::super::ServerHandle;
use super::answer::{Answer, Answers, Question, name};
use crate::vantage::Net;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::SOA;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

/// TTL of its records, in seconds.
const TTL: u32 = 300;

type Names = Arc<Mutex<BTreeMap<String, Ipv4Addr>>>;
type NamesSix = Arc<Mutex<BTreeMap<String, Ipv6Addr>>>;

/// A running resolver.
pub struct OutsideHandle {
    server: ServerHandle,
    names: Names,
    six: NamesSix,
}

impl OutsideHandle {
    /// Gives a name an address, or takes it away. `*.example.com` is every name below `example.com`.
    pub fn set(&self, name: &str, address: Option<Ipv4Addr>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match address {
            Some(address) => names.insert(name, address),
            None => names.remove(&name),
        };
    }

    /// Names with IPv6 addresses and no others.
    pub fn set_six(&self, names: BTreeMap<String, Ipv6Addr>) {
        *self.six.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Only the running server: its names stay as they are.
    pub fn into_server(self) -> ServerHandle {
        self.server
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.server.address()
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// Serves a resolver that knows these names.
pub fn serve_outside(net: &Net, address: SocketAddrV4, names: BTreeMap<String, Ipv4Addr>) -> io::Result<OutsideHandle> {
    let (names, six): (Names, NamesSix) = (Arc::new(Mutex::new(names)), NamesSix::default());
    let server = super::serve(net, address, Outside(names.clone(), six.clone()))?;
    Ok(OutsideHandle { server, names, six })
}

/// Serves a resolver that answers everything with SERVFAIL, as MagicDNS does without upstream resolvers.
pub fn serve_failing(net: &Net, address: SocketAddrV4) -> io::Result<ServerHandle> {
    super::serve(net, address, Failing)
}

struct Failing;

impl Answers for Failing {
    async fn answer(&self, _question: &Question) -> Answer {
        Answer { recursion_available: true, ..Answer::empty(ResponseCode::ServFail) }
    }
}

struct Outside(Names, NamesSix);

impl Answers for Outside {
    async fn answer(&self, question: &Question) -> Answer {
        let mut answer = self.look_up(question);
        answer.recursion_available = true;
        answer
    }
}

impl Outside {
    fn look_up(&self, question: &Question) -> Answer {
        let six = self.1.lock().unwrap_or_else(PoisonError::into_inner).get(&question.text).copied();
        match six {
            Some(address) if question.kind == RecordType::AAAA => return Answer::default().address_six(question, address, TTL),
            Some(_) => return no_data(&question.text),
            None => {}
        }
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(&question.text).or_else(|| {
            let mut parents = question.text.match_indices('.').map(|(at, _)| &question.text[at..]);
            parents.find_map(|parent| names.get(&format!("*{parent}")))
        });
        match known {
            Some(address) if question.kind == RecordType::A => Answer::default().address(question, *address, TTL),
            Some(_) => no_data(&question.text),
            None if names.keys().any(|known| known.ends_with(&format!(".{}", question.text))) => no_data(&question.text),
            None => Answer::empty(ResponseCode::NXDomain).soa(".", soa("a.root-servers.net", "nstld.verisign-grs.com"), 86400),
        }
    }
}

/// A name that exists without such a record: the zone is taken to be its last two labels.
fn no_data(text: &str) -> Answer {
    let labels: Vec<&str> = text.split('.').collect();
    let zone = labels[labels.len().saturating_sub(2)..].join(".");
    Answer::default().soa(&zone, soa(&format!("ns.{zone}"), &format!("hostmaster.{zone}")), 1800)
}

fn soa(server: &str, mailbox: &str) -> Option<SOA> {
    Some(SOA::new(name(server).ok()?, name(mailbox).ok()?, 2_025_111_100, 1800, 900, 604_800, 86400))
}
