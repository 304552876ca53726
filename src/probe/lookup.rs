//! A name looked up as a stub resolver does it: candidate by candidate, until one has an address.

use super::net::ms;
use super::query::{QUERY_TIMEOUT, Reply, Transport, ask};
use super::resolv::ResolvConf;
use crate::check::Observation;
use crate::vantage::Net;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// How to look a name up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// By which protocol.
    pub(super) transport: Transport,
    /// Go on after a candidate has answered.
    pub(super) all: bool,
}

/// One candidate name and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The absolute name, with its trailing dot.
    pub(super) name: String,
    /// The answer.
    pub(super) reply: Reply,
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
        let reply = ask(net, conf.server, &candidate, how.transport, deadline).await;
        if found.answer().is_none() {
            found.after = began.elapsed();
        }
        let rank = hardness(&reply.rcode);
        let enough = (rank == 0 && !how.all) || rank >= UNREACHABLE;
        let left = deadline.saturating_duration_since(Instant::now());
        let no_time = left.is_zero() || (reply.rcode == "TIMEOUT" && left < QUERY_TIMEOUT);
        found.candidates.push(Candidate { name: candidate.to_string(), reply });
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
        self.answer()?.reply.addresses.first().copied()
    }

    /// NOERROR if a candidate answered, else the hardest failure.
    pub(crate) fn rcode(&self) -> &str {
        let worst = self.candidates.iter().map(|c| c.reply.rcode.as_str()).max_by_key(|rcode| hardness(rcode));
        if self.answer().is_some() { "NOERROR" } else { worst.unwrap_or_default() }
    }

    /// Queries sent.
    pub(super) fn queries(&self) -> u32 {
        self.candidates.iter().map(|c| c.reply.sent).sum()
    }

    /// One line of evidence for each candidate.
    pub(super) fn note(&self, seen: &mut Observation) {
        for c in &self.candidates {
            let addresses = c.reply.addresses.iter().map(|a| format!(" {a}")).collect::<String>();
            seen.note("dns", format!("{} A -> {}{addresses} ({} ms)", c.name, c.reply.rcode, ms(c.reply.after)));
        }
    }
}

impl Candidate {
    /// For the fact `candidates`; the name without its trailing dot.
    pub(super) fn to_json(&self) -> Value {
        let answers: Vec<String> = self.reply.addresses.iter().map(ToString::to_string).collect();
        json!({"name": self.plain(), "rcode": self.reply.rcode, "answers": answers, "ms": ms(self.reply.after)})
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
        let conf = ResolvConf { server, search: vec!["a".into(), "b".into()], ndots: 5 };
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
