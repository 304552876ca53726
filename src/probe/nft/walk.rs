//! Where a packet would be led: its way through the base chains of a hook, rule by rule.
//!
//! It does not know how kube-proxy lays its rules out. Whatever wrote them (kube-proxy in nftables mode or through iptables-nft,
//! a leftover of another mode, an operator), the answer is what the kernel would do with the first packet of a connection.

use super::follow::{Action, Follower, Outcome};
use super::legacy;
use super::packet_mark::PacketMark;
use super::sets::Sets;
use super::wire::{self, Message, What, find, number, text};
use crate::check::clean;
use crate::vantage::Net;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

const INET: u8 = 1;
/// Address families whose IPv4 packets pass these hooks: inet and IPv4.
const FAMILIES: [u8; 2] = [INET, 2];
/// The kernel's own bound on jumps (NFT_JUMP_STACK_SIZE).
const DEEPEST: usize = 16;
/// Rules that are followed for one question.
const MOST_RULES: usize = 200_000;
/// NF_INET_PRE_ROUTING: packets that come in, of pods for example.
pub(crate) const PREROUTING: u32 = 0;
/// NF_INET_LOCAL_OUT: the node's own packets.
pub(crate) const OUTPUT: u32 = 3;
/// NF_INET_POST_ROUTING: what leaves, forwarded or the node's own.
const POSTROUTING: u32 = 4;

/// Name of a network device, filled up with zeros (IFNAMSIZ).
pub(crate) type DeviceName = [u8; 16];

/// The first packet of a connection. What is not known of it may be anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) to: Ipv4Addr,
    pub(crate) port: u16,
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) iif: Option<DeviceName>,
    pub(crate) oif: Option<DeviceName>,
}

impl Packet {
    /// One of which only the destination is known.
    pub(crate) const fn to(to: Ipv4Addr, port: u16, protocol: u8) -> Self {
        Self { to, port, protocol, from: None, iif: None, oif: None }
    }
}

/// What a source address is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceNat {
    /// An address of the device that the packet leaves by.
    Masqueraded,
    To(Ipv4Addr),
    /// Something that could not be read, such as one of several addresses.
    Unread,
}

/// What may become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Where it may be translated to.
    pub(crate) targets: BTreeSet<SocketAddrV4>,
    /// It may be translated to something that could not be read.
    pub(crate) unread: bool,
    /// What its source may be translated to, and by which chains.
    pub(crate) sources: BTreeMap<SourceNat, BTreeSet<String>>,
    /// It may pass as it is.
    pub(crate) untouched: bool,
    /// It certainly reaches a rule that drops or rejects it.
    pub(crate) refused: bool,
    /// Chains with a name of kube-proxy's that it passed: `nftables`, `iptables`, `iptables-legacy`.
    pub(crate) layouts: BTreeSet<&'static str>,
}

type ChainKey = (u8, String, String);
/// kube-proxy's own table in nftables mode.
const PROXY_TABLE: &str = "kube-proxy";
/// The family that stands for the tables of the old iptables.
const LEGACY: u8 = u8::MAX;

/// A rule.
#[derive(Clone, Debug)]
enum Rule {
    /// Of nf_tables: its expressions.
    Expressions(Vec<u8>),
    /// Of the old iptables.
    Entry(legacy::Entry),
}

struct Base {
    key: ChainKey,
    hook: u32,
    priority: i32,
    kind: String,
}

/// A ruleset that can be followed.
pub(crate) struct Walker {
    bases: Vec<Base>,
    /// Rules by chain, in order.
    chains: HashMap<ChainKey, Rc<Vec<Rule>>>,
    sets: Sets,
    /// The mark of the packet that is followed.
    mark: PacketMark,
    followed: usize,
}

/// How a packet may leave a chain.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Exit {
    returns: bool,
    accepts: bool,
    /// It may also have been translated or refused in there.
    ends: bool,
}

impl Exit {
    fn or(self, other: Self) -> Self {
        Self { returns: self.returns || other.returns, accepts: self.accepts || other.accepts, ends: self.ends || other.ends }
    }
}

impl Walker {
    /// Reads chains and rules; sets are read when a rule asks for them. Blocks for some milliseconds.
    pub(crate) fn read(net: &Net) -> io::Result<Self> {
        let sets = Sets::of(net)?;
        let mut walker = Self::of(&wire::dump(net, What::Chains)?, &wire::dump(net, What::Rules)?, sets);
        for (name, priority) in legacy::TABLES {
            legacy::Table::read(net, name)?.into_iter().for_each(|table| walker.add(name, priority, table));
        }
        walker.bases.sort_by_key(|base| base.priority);
        Ok(walker)
    }

    /// From the lists of chains and rules of nf_tables.
    fn of(chains: &[Message], rules: &[Message], sets: Sets) -> Self {
        let mut walker = Self { bases: Vec::new(), chains: HashMap::new(), sets, mark: PacketMark::default(), followed: 0 };
        for message in chains.iter().filter(|m| FAMILIES.contains(&m.family)) {
            let body = &message.body;
            let (Some(table), Some(name), Some(hook)) = (text(body, 1), text(body, 3), find(body, 4)) else { continue };
            let priority = find(hook, 2).and_then(|p| p.try_into().ok()).map_or(0, i32::from_be_bytes);
            let kind = text(body, 7).unwrap_or_default();
            if let Some(hook) = number(hook, 1) {
                walker.bases.push(Base { key: (message.family, table, name), hook, priority, kind });
            }
        }
        for message in rules.iter().filter(|m| FAMILIES.contains(&m.family)) {
            if let (Some(table), Some(chain)) = (text(&message.body, 1), text(&message.body, 2)) {
                let expressions = find(&message.body, 4).unwrap_or_default().to_vec();
                Rc::make_mut(walker.chains.entry((message.family, table, chain)).or_default()).push(Rule::Expressions(expressions));
            }
        }
        walker
    }

    /// Adds a table of the old iptables.
    fn add(&mut self, name: &str, priority: i32, table: legacy::Table) {
        let key = |chain: String| (LEGACY, name.to_owned(), chain);
        // Sources are translated at another priority than destinations (NF_IP_PRI_NAT_SRC).
        let at = |hook: u32| if name == "nat" && hook == POSTROUTING { 100 } else { priority };
        self.bases.extend(table.bases.into_iter().map(|(hook, chain)| Base {
            key: key(chain),
            hook,
            priority: at(hook),
            kind: name.to_owned(),
        }));
        self.chains
            .extend(table.chains.into_iter().map(|(chain, rules)| (key(chain), Rc::new(rules.into_iter().map(Rule::Entry).collect()))));
    }

    /// Whether kube-proxy has written rules here, in any mode that uses the packet filter.
    pub(crate) fn holds_kube_proxys(&self) -> bool {
        let chains = self.chains.keys().chain(self.bases.iter().map(|base| &base.key));
        chains.into_iter().any(|(_, table, chain)| table == PROXY_TABLE || chain == "KUBE-SERVICES")
    }

    /// Where the packet may be led at a hook: first by the chains that translate, then, if none did, by those that filter.
    pub(crate) fn ways(&mut self, packet: Packet, hook: u32) -> io::Result<Ways> {
        let mut ways = Ways::default();
        ways.untouched = self.pass(packet, hook, "nat", &mut ways, true)?;
        if ways.untouched {
            let certain = ways.targets.is_empty() && !ways.unread;
            self.pass(packet, hook, "filter", &mut ways, certain)?;
        }
        Ok(ways)
    }

    /// The base chains of one type, in order of priority. True if the packet may come through them.
    ///
    /// Of chains that translate at the same priority the one that was registered first decides, and the kernel does not tell which
    /// that is: each of them may.
    fn pass(&mut self, packet: Packet, hook: u32, kind: &str, ways: &mut Ways, mut certain: bool) -> io::Result<bool> {
        let bases = self.bases.iter().filter(|b| b.hook == hook && b.kind == kind);
        let bases: Vec<(i32, ChainKey)> = bases.map(|b| (b.priority, b.key.clone())).collect();
        for together in bases.chunk_by(|a, b| a.0 == b.0) {
            let mut through = true;
            for (_, key) in together {
                let exit = self.chain(packet, key, ways, certain, 0)?;
                through &= exit.returns || exit.accepts;
                if !through && kind == "filter" {
                    return Ok(false);
                }
                certain &= !exit.ends;
            }
            if !through {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Through a chain, rule by rule. `certain`: the packet certainly comes here.
    fn chain(&mut self, packet: Packet, key: &ChainKey, ways: &mut Ways, mut certain: bool, depth: usize) -> io::Result<Exit> {
        if depth > DEEPEST {
            return Err(io::Error::other("chains call each other too deeply"));
        }
        layout(key, ways);
        let mut exit = Exit::default();
        let rules = self.chains.get(key).cloned().unwrap_or_default();
        for rule in rules.iter() {
            let Outcome { actions, mut passes } = self.follow(rule, packet, key)?;
            let alone = certain && actions.len() == 1 && !passes;
            let mut left = Exit::default();
            for action in actions {
                let (way_out, back) = self.act(action, packet, key, ways, alone, depth)?;
                left = left.or(way_out);
                passes |= back;
            }
            exit = exit.or(left);
            if !passes {
                return Ok(exit);
            }
            certain &= left == Exit::default();
        }
        exit.returns = true;
        Ok(exit)
    }

    /// What one rule may do with the packet.
    fn follow(&mut self, rule: &Rule, packet: Packet, key: &ChainKey) -> io::Result<Outcome> {
        self.followed += 1;
        if self.followed > MOST_RULES {
            return Err(io::Error::other(format!("more than {MOST_RULES} rules would have to be followed")));
        }
        match rule {
            Rule::Expressions(rule) => {
                Follower { packet, family: key.0, table: &key.1, sets: &mut self.sets, mark: &mut self.mark }.follow(rule)
            }
            Rule::Entry(entry) => Ok(entry.follow(packet, &mut self.mark)),
        }
    }

    /// What comes of an action: how the packet may leave the chain by it, and whether it may come to the next rule. `alone`: nothing
    /// else can happen to the packet.
    fn act(
        &mut self,
        action: Action,
        packet: Packet,
        key: &ChainKey,
        ways: &mut Ways,
        alone: bool,
        depth: usize,
    ) -> io::Result<(Exit, bool)> {
        match action {
            Action::Accept => return Ok((Exit { accepts: true, ..Exit::default() }, false)),
            Action::Return => return Ok((Exit { returns: true, ..Exit::default() }, false)),
            // A chain that was jumped to comes back here, one that was gone to comes back to where this one would.
            Action::Jump(chain) => {
                let inner = self.chain(packet, &(key.0, key.1.clone(), chain), ways, alone, depth + 1)?;
                return Ok((Exit { returns: false, ..inner }, inner.returns));
            }
            Action::Goto(chain) => {
                let inner = self.chain(packet, &(key.0, key.1.clone(), chain), ways, alone, depth + 1)?;
                return Ok((inner, false));
            }
            Action::Refuse => ways.refused |= alone,
            Action::Translate(to) => _ = ways.targets.insert(to),
            Action::TranslateUnread => ways.unread = true,
            Action::TranslateSource(to) => _ = ways.sources.entry(to).or_default().insert(chain_name(key)),
        }
        Ok((Exit { ends: true, ..Exit::default() }, false))
    }
}

/// As `nft list chain` takes it; `iptables` stands for the tables of the old iptables.
fn chain_name((family, table, chain): &ChainKey) -> String {
    let family = match *family {
        LEGACY => "iptables",
        INET => "inet",
        _ => "ip",
    };
    clean(&format!("{family} {table} {chain}"), 96)
}

/// kube-proxy's table in nftables mode and the prefix of its chains in iptables mode (its source: pkg/proxy).
fn layout((family, table, chain): &ChainKey, ways: &mut Ways) {
    if table == PROXY_TABLE {
        ways.layouts.insert("nftables");
    } else if chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SEP-") {
        ways.layouts.insert(if *family == LEGACY { "iptables-legacy" } else { "iptables" });
    }
}

mod forwarded;
#[cfg(test)]
mod replay;

#[cfg(test)]
mod tests;
