//! A name looked up as a stub resolver does it: candidate by candidate, until one has an address.

use super::net::ms;
use super::query::{QUERY_TIMEOUT, Reply, Transport, ask, ask_for};
use super::resolv::ResolvConf;
use crate::check::Observation;
use crate::vantage::Net;
use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// How to look a name up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// By which protocol.
    pub(super) transport: Transport,
    /// Go on after a candidate has answered.
    pub(super) all: bool,
    /// Ask for IPv6 addresses too, at the same time, as stub resolvers do.
    pub(super) aaaa: bool,
}

/// One candidate name and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The absolute name, with its trailing dot.
    pub(super) name: String,
    /// The answer for A.
    pub(super) reply: Reply,
    /// The answer for AAAA, if it was asked for.
    pub(super) six: Option<Reply>,
}

/// What came of a lookup.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    /// The server asked.
    pub(super) server: SocketAddrV4,
    /// Every candidate that was asked for, in order; at least one.
    pub(super) candidates: Vec<Candidate>,
    /// Until the first candidate answered, or the last one failed.
    pub(super) after: Duration,
}

/// Looks a name up. The error is for a name that no query can be made of.
///
/// NXDOMAIN, NODATA and answers of a failing server lead to the next candidate, as in glibc's `res_nsearch`. So does a
/// timeout if a full wait for the next one still fits before the deadline. An ICMP error ends the walk: the server is
/// not there for any name.
pub(crate) async fn lookup(net: &Net, conf: &ResolvConf, name: &str, how: How, deadline: Instant) -> Result<Lookup, String> {
    let began = Instant::now();
    let mut found = Lookup { server: conf.server, candidates: Vec::new(), after: Duration::ZERO };
    for candidate in conf.candidates(name)? {
        let six = async {
            if !how.aaaa {
                return None;
            }
            Some(ask_for(net, conf.server, &candidate, RecordType::AAAA, how.transport, deadline).await)
        };
        let (reply, six) = tokio::join!(ask(net, conf.server, &candidate, how.transport, deadline), six);
        if found.answer().is_none() {
            found.after = began.elapsed();
        }
        let rank = hardness(&reply.rcode);
        let enough = (rank == 0 && !how.all) || rank >= UNREACHABLE;
        let left = deadline.saturating_duration_since(Instant::now());
        let no_time = left.is_zero() || (reply.rcode == "TIMEOUT" && left < QUERY_TIMEOUT);
        found.candidates.push(Candidate { name: candidate.to_string(), reply, six });
        if enough || no_time {
            break;
        }
    }
    Ok(found)
}

/// From this [`hardness`] on the server itself could not be reached.
const UNREACHABLE: u8 = 6;

/// How hard a failure is: the hardest decides. 0 is success.
fn hardness(rcode: &str) -> u8 {
    match rcode {
        "NOERROR" => 0,
        "NXDOMAIN" => 1,
        "NODATA" => 2,
        "GARBAGE" => 4,
        "TIMEOUT" => 5,
        word if word.starts_with('E') => UNREACHABLE,
        // SERVFAIL, REFUSED and the rarer codes: the server answers but does not know.
        _ => 3,
    }
}

impl Lookup {
    /// The first candidate with an address.
    pub(super) fn answer(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|c| hardness(&c.reply.rcode) == 0)
    }

    /// The first address.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        self.answer()?.reply.ipv4()
    }

    /// The first IPv6 address, if any was asked for.
    pub(super) fn address_six(&self) -> Option<Ipv6Addr> {
        let six = self.candidates.iter().filter_map(|c| c.six.as_ref()).flat_map(|reply| &reply.addresses);
        six.filter_map(|address| if let IpAddr::V6(six) = address { Some(*six) } else { None }).next()
    }

    /// The candidate that answered, else the last of those that failed hardest.
    pub(super) fn deciding(&self) -> Option<&Candidate> {
        self.answer().or_else(|| self.candidates.iter().max_by_key(|c| hardness(&c.reply.rcode)))
    }

    /// NOERROR if a candidate answered, else the hardest failure.
    pub(crate) fn rcode(&self) -> &str {
        self.deciding().map(|c| c.reply.rcode.as_str()).unwrap_or_default()
    }

    /// Queries for A sent.
    pub(super) fn queries(&self) -> u32 {
        self.candidates.iter().map(|c| c.reply.sent).sum()
    }

    /// Candidates that were asked for before the one that answered, or all of them.
    pub(super) fn wasted(&self) -> usize {
        self.candidates.iter().take_while(|c| hardness(&c.reply.rcode) != 0).count()
    }

    /// Candidates for which no answer came in time: a stub resolver waits five seconds for each.
    pub(super) fn timeouts(&self) -> usize {
        self.candidates.iter().filter(|c| c.reply.rcode == "TIMEOUT").count()
    }

    /// A line of evidence for each query.
    pub(super) fn note(&self, seen: &mut Observation) {
        for c in &self.candidates {
            seen.note("dns", line(&c.name, "A", &c.reply));
            if let Some(six) = &c.six {
                seen.note("dns", line(&c.name, "AAAA", six));
            }
        }
    }
}

/// Question and answer in one line.
pub(super) fn line(name: &str, kind: &str, reply: &Reply) -> String {
    let addresses = reply.addresses.iter().map(|a| format!(" {a}")).collect::<String>();
    let ttl = reply.ttl.map(|ttl| format!(", TTL {ttl}")).unwrap_or_default();
    let tcp = match (reply.truncated, reply.transport) {
        (true, _) => ", truncated, again by TCP",
        (false, Transport::Tcp) => ", TCP",
        (false, Transport::Udp) => "",
    };
    format!("{name} {kind} -> {}{addresses} ({} ms{ttl}{tcp})", reply.rcode, ms(reply.after))
}

fn to_json(reply: &Reply) -> Value {
    let answers: Vec<String> = reply.addresses.iter().map(ToString::to_string).collect();
    json!({"rcode": reply.rcode, "answers": answers, "ttl_s": reply.ttl, "ms": ms(reply.after),
        "transport": reply.transport.word(), "truncated": reply.truncated})
}

impl Candidate {
    /// For the fact `candidates`; the name without its trailing dot. What was asked for AAAA is under `aaaa`.
    pub(super) fn to_json(&self) -> Value {
        let mut whole = to_json(&self.reply);
        whole["name"] = json!(self.plain());
        whole["aaaa"] = self.six.as_ref().map(to_json).unwrap_or_default();
        whole
    }

    /// The name without its trailing dot.
    pub(super) fn plain(&self) -> &str {
        self.name.strip_suffix('.').unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::testing::{reply, serve};
    use super::*;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use std::sync::Arc;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 43, 71, 170);

    /// Answers under the search domains `a` and `b`; everything else does not exist.
    fn zone(q: &Message, _: bool) -> Vec<Vec<u8>> {
        let name = q.queries[0].name().to_string();
        let (code, addresses): (_, &[Ipv4Addr]) = match name.as_str() {
            "here.b." | "shaky.b." => (ResponseCode::NoError, &[IP]),
            "shaky.a." | "broken.a." => (ResponseCode::ServFail, &[]),
            "empty.a." => (ResponseCode::NoError, &[]),
            "silent.a." => return vec![],
            _ => (ResponseCode::NXDomain, &[]),
        };
        vec![reply(q, code, addresses).to_vec().unwrap()]
    }

    async fn look(name: &str, all: bool) -> Lookup {
        let server = serve(Arc::new(zone)).await;
        let conf = ResolvConf { search: vec!["a".into(), "b".into()], ndots: 5, ..ResolvConf::only(server) };
        let how = How { all, ..How::default() };
        lookup(&Net::Here, &conf, name, how, Instant::now() + Duration::from_millis(400)).await.unwrap()
    }

    #[tokio::test]
    async fn stops_at_the_first_answer_unless_all_are_wanted() {
        let found = look("here", false).await;
        assert_eq!((found.rcode(), found.address(), found.queries()), ("NOERROR", Some(IP), 2));
        assert_eq!(found.answer().unwrap().plain(), "here.b");
        assert_eq!(look("here", true).await.queries(), 3);
    }

    #[tokio::test]
    async fn the_hardest_failure_decides_unless_one_answers() {
        assert_eq!(look("shaky", false).await.address(), Some(IP));
        for (name, rcode, queries) in
            [("nosuch", "NXDOMAIN", 3), ("empty", "NODATA", 3), ("broken", "SERVFAIL", 3), ("silent", "TIMEOUT", 1)]
        {
            let found = look(name, false).await;
            assert_eq!((found.rcode(), found.queries()), (rcode, queries), "{name}");
        }
    }
}
