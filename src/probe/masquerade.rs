//! `masquerade`: whether a connection through an exit node leaves it under the exit node's own address, by the exit node's
//! connection tracking, and which of its rules decide that.
//!
//! tailscaled marks what comes in by its device, and masquerades what carries the mark when it leaves. Another agent that sets
//! bits inside of tailscaled's mask in between undoes that: the packet leaves under an address that nobody can answer.

mod tracked;

use super::net::errno_word;
use super::nft::{Rule, Ruleset, Test};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for the handshake. The first packet has long passed the exit node by then.
const HANDSHAKE: Duration = Duration::from_millis(1500);
/// The bits of the mark that tailscaled takes for itself (`tsconst.LinuxFwmarkMask`).
const MASK: u32 = 0xff_0000;
/// Rules that are listed.
const MOST_LISTED: usize = 16;

/// Whether a connection through an exit node leaves it under the exit node's own address, and which rules decide that.
pub(super) static KIND: Kind = Kind {
    name: "masquerade",
    root: "masq",
    about: "Whether a connection through an exit node leaves it under the exit node's own address, and which rules decide that",
    privilege: Some("CAP_NET_ADMIN at the witness, the exit node"),
    args: &[("address", "IPv4 address outside"), ("port", "TCP port there")],
    facts: &[
        fact("answered", "bool", "the handshake was answered, with a connection or a reset"),
        fact("error", "text", "errno or TIMEOUT if no connection was made; empty if one was"),
        fact("source", "address", "own address of the connection"),
        fact("witness.tracked", "bool", "the exit node tracks this connection: its first packet went through"),
        fact("witness.translated", "bool", "it leaves the exit node under another address than its own"),
        fact("witness.leaves_as", "address", "the address under which it leaves"),
        fact(
            "witness.masquerading",
            "list of text",
            "rules of the exit node that translate the source of what carries a mark of tailscaled's",
        ),
        fact("witness.masqueraded", "count", "connections that these rules counted meanwhile"),
        fact(
            "witness.spoiling",
            "list of text",
            "rules that change such a mark so that those do not apply any more, and that counted packets meanwhile",
        ),
    ],
    decode: decode::<Masquerade>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Masquerade {
    address: Ipv4Addr,
    port: u16,
}

/// A connection that was tried. It stays open until it is dropped, so that it stays tracked.
struct Attempt {
    source: SocketAddrV4,
    /// Errno word; empty if it was made.
    error: String,
    _stream: Option<TcpStream>,
}

#[async_trait]
impl Probe for Masquerade {
    async fn observe(&self, cx: &Context) -> Observation {
        let exit = cx.witness.as_ref().map(|witness| witness.net.clone());
        let before = rules(exit.clone()).await;
        let attempt = match self.connect(cx).await {
            Ok(attempt) => attempt,
            Err(error) => {
                return Observation::could_not_look(format!("nothing could be sent to {}: {}", self.target(), errno_word(&error)));
            }
        };
        let mut seen = Observation::default();
        let word = if attempt.error.is_empty() { "connected" } else { &attempt.error };
        seen.note("tcp", format!("{} -> {}: {word}", attempt.source, self.target()));
        let answered = matches!(attempt.error.as_str(), "" | "ECONNREFUSED");
        seen.facts.set("answered", answered).set("error", attempt.error.as_str()).set("source", attempt.source.ip().to_string());
        let entry = self.entry(exit.clone(), attempt.source).await;
        tracked_facts(&mut seen, *attempt.source.ip(), entry);
        rule_facts(&mut seen, before, rules(exit).await);
        seen
    }

    fn target(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

impl Masquerade {
    fn to(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    async fn connect(&self, cx: &Context) -> io::Result<Attempt> {
        let to = self.to();
        let socket = cx.vantage.net.with(|| Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP)))??;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let source = socket.local_addr()?.as_socket_ipv4().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::from_std(socket.into())?;
        let outcome = match timeout(cx.time_left(HANDSHAKE), stream.writable()).await {
            Ok(ready) => ready.and_then(|()| stream.take_error()).and_then(|error| error.map_or(Ok(()), Err)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        Ok(Attempt { source, error: outcome.err().map_or(String::new(), |e| errno_word(&e)), _stream: Some(stream) })
    }

    /// The address under which the exit node sends the connection on; `None` if it does not track it.
    async fn entry(&self, exit: Option<Net>, source: SocketAddrV4) -> Result<Option<Ipv4Addr>, String> {
        let net = exit.ok_or_else(no_witness)?;
        let to = self.to();
        let asked = tokio::task::spawn_blocking(move || tracked::leaves_as(&net, source, to)).await;
        let asked = asked.unwrap_or_else(|_| Err(io::Error::other("the reader ended badly")));
        asked.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => "reading connection tracking needs CAP_NET_ADMIN".to_owned(),
            _ => format!("connection tracking could not be asked: {}", errno_word(&error)),
        })
    }
}

fn no_witness() -> String {
    "the exit node is not at hand: run with --from both nodes".to_owned()
}

async fn rules(exit: Option<Net>) -> Result<Ruleset, String> {
    let net = exit.ok_or_else(no_witness)?;
    let read = tokio::task::spawn_blocking(move || Ruleset::read(&net)).await;
    read.unwrap_or_else(|_| Err("the reader of nftables ended badly".to_owned()))
}

fn tracked_facts(seen: &mut Observation, source: Ipv4Addr, entry: Result<Option<Ipv4Addr>, String>) {
    let facts = &mut seen.facts;
    let (tracked, leaves_as, reason) = match entry {
        Ok(Some(address)) => (Some(true), Some(address), String::new()),
        Ok(None) => (Some(false), None, "the exit node does not track the connection".to_owned()),
        Err(reason) => (None, None, reason),
    };
    facts.set_or_unknown("witness.tracked", tracked, &reason);
    facts.set_or_unknown("witness.translated", leaves_as.map(|address| address != source), &reason);
    facts.set_or_unknown("witness.leaves_as", leaves_as.map(|address| address.to_string()), &reason);
    if let Some(address) = leaves_as {
        seen.note("conntrack", format!("from {source}, answers to {address}"));
    }
}

/// Rules that translate the source of what carries a mark of tailscaled's. kube-proxy asks for a bit outside of them.
fn masquerading(ruleset: &Ruleset) -> impl Iterator<Item = (&Rule, Test)> {
    let by_mark = |rule: &Rule| rule.marks.test.filter(|test| rule.marks.translates_source && test.mask & MASK != 0);
    ruleset.rules.iter().filter_map(move |rule| Some((rule, by_mark(rule)?)))
}

/// Rules after which one of them does not apply any more to such a packet.
fn spoiling(ruleset: &Ruleset) -> impl Iterator<Item = &Rule> {
    let tests: Vec<Test> = masquerading(ruleset).map(|(_, test)| test).collect();
    ruleset.rules.iter().filter(move |rule| rule.marks.change.is_some_and(|change| tests.iter().any(|test| change.spoils(*test))))
}

/// What a rule has counted more than before. Rules are told apart by their expressions; equal ones count together.
fn risen(rule: &Rule, before: &Ruleset, after: &Ruleset) -> Option<u64> {
    let same = |r: &&Rule| (r.family, &r.table, &r.chain, &r.identity) == (rule.family, &rule.table, &rule.chain, &rule.identity);
    let sum = |ruleset: &Ruleset| ruleset.rules.iter().filter(same).map(|r| r.packets).sum::<Option<u64>>();
    Some(sum(after)?.saturating_sub(sum(before)?))
}

fn rule_facts(seen: &mut Observation, before: Result<Ruleset, String>, after: Result<Ruleset, String>) {
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(reason), _) | (_, Err(reason)) => {
            for path in ["witness.masquerading", "witness.masqueraded", "witness.spoiling"] {
                seen.facts.unknown(path, reason.as_str());
            }
            return;
        }
    };
    let place = |rule: &Rule| format!("{} {} {}", rule.family, rule.table, rule.chain);
    let listed: Vec<String> = masquerading(&after).map(|(rule, test)| format!("{}: {test}", place(rule))).take(MOST_LISTED).collect();
    let counted = masquerading(&after).map(|(rule, _)| risen(rule, &before, &after)).sum::<Option<u64>>();
    let spoiling: Vec<String> = spoiling(&after)
        .filter_map(|rule| Some((rule, risen(rule, &before, &after).filter(|n| *n > 0)?)))
        .filter_map(|(rule, n)| Some(format!("{}: {} ({n} packets)", place(rule), rule.marks.change?)))
        .take(MOST_LISTED)
        .collect();
    for text in listed.iter().chain(&spoiling) {
        seen.note("nft", text);
    }
    let facts: &mut Facts = &mut seen.facts;
    facts.set("witness.masquerading", listed).set("witness.spoiling", spoiling);
    facts.set_or_unknown("witness.masqueraded", counted, "a rule that masquerades does not count");
}

#[cfg(test)]
mod tests;
