//! Where a packet to a Service would be led: its way through the base chains of one hook, rule by rule.
//!
//! It does not know how kube-proxy lays its rules out. Whatever wrote them (kube-proxy in nftables mode or through iptables-nft,
//! a leftover of another mode, an operator), the answer is what the kernel would do with the first packet of a connection.

use super::legacy;
use super::rule::{Action, Follower};
use super::sets::Sets;
use super::wire::{self, Message, What, find, number, text};
use crate::vantage::Net;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

/// Address families whose IPv4 packets pass these hooks: inet and IPv4.
const FAMILIES: [u8; 2] = [1, 2];
/// The kernel's own bound on jumps (NFT_JUMP_STACK_SIZE).
const DEEPEST: usize = 16;
/// Rules that are followed for one question.
const MOST_RULES: usize = 200_000;
/// NF_INET_PRE_ROUTING: packets that come in, of pods for example.
pub(crate) const PREROUTING: u32 = 0;
/// NF_INET_LOCAL_OUT: the node's own packets.
pub(crate) const OUTPUT: u32 = 3;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) to: Ipv4Addr,
    pub(crate) port: u16,
    /// IP protocol number.
    pub(crate) protocol: u8,
}

/// What may become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Where it may be translated to.
    pub(crate) targets: BTreeSet<SocketAddrV4>,
    /// It may be translated to something that could not be read.
    pub(crate) unread: bool,
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
    followed: usize,
}

/// How a packet may leave a chain.
#[derive(Clone, Copy, Default)]
struct Exit {
    returns: bool,
    accepts: bool,
    /// It may also have been translated or refused in there.
    ends: bool,
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
        let mut walker = Self { bases: Vec::new(), chains: HashMap::new(), sets, followed: 0 };
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
        self.bases.extend(table.bases.into_iter().map(|(hook, chain)| Base { key: key(chain), hook, priority, kind: name.to_owned() }));
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

    fn chain(&mut self, packet: Packet, key: &ChainKey, ways: &mut Ways, mut certain: bool, depth: usize) -> io::Result<Exit> {
        if depth > DEEPEST {
            return Err(io::Error::other("chains call each other too deeply"));
        }
        layout(key, ways);
        let mut exit = Exit::default();
        let rules = self.chains.get(key).cloned().unwrap_or_default();
        for rule in rules.iter() {
            self.followed += 1;
            if self.followed > MOST_RULES {
                return Err(io::Error::other(format!("more than {MOST_RULES} rules would have to be followed")));
            }
            let mut outcome = match rule {
                Rule::Expressions(rule) => Follower { packet, family: key.0, table: &key.1, sets: &mut self.sets }.follow(rule)?,
                Rule::Entry(entry) => entry.follow(packet),
            };
            let alone = certain && outcome.actions.len() == 1 && !outcome.passes;
            let (mut ends, mut leaves) = (false, false);
            for action in outcome.actions {
                match action {
                    Action::Accept => (exit.accepts, leaves) = (true, true),
                    Action::Return => (exit.returns, leaves) = (true, true),
                    Action::Refuse => (ways.refused, ends) = (ways.refused || alone, true),
                    Action::Translate(to) => {
                        ways.targets.insert(to);
                        ends = true;
                    }
                    Action::TranslateUnread => (ways.unread, ends) = (true, true),
                    Action::Jump(ref chain) | Action::Goto(ref chain) => {
                        let inner = self.chain(packet, &(key.0, key.1.clone(), chain.clone()), ways, alone, depth + 1)?;
                        // A chain that was jumped to comes back here, one that was gone to comes back to where this one would.
                        if matches!(action, Action::Jump(_)) {
                            outcome.passes |= inner.returns
                        } else {
                            exit.returns |= inner.returns
                        }
                        exit.accepts |= inner.accepts;
                        ends |= inner.ends;
                        leaves |= inner.accepts || matches!(action, Action::Goto(_));
                    }
                }
            }
            exit.ends |= ends;
            if !outcome.passes {
                return Ok(exit);
            }
            certain &= !ends && !leaves;
        }
        exit.returns = true;
        Ok(exit)
    }
}

/// kube-proxy's table in nftables mode and the prefix of its chains in iptables mode (its source: pkg/proxy).
fn layout((family, table, chain): &ChainKey, ways: &mut Ways) {
    if table == PROXY_TABLE {
        ways.layouts.insert("nftables");
    } else if chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SEP-") {
        ways.layouts.insert(if *family == LEGACY { "iptables-legacy" } else { "iptables" });
    }
}

#[cfg(test)]
mod replay;

#[cfg(test)]
mod tests {
    use super::super::sets::Set;
    use super::*;
    use crate::twin::nft::{Batch, Hook, Rule as Written};
    use crate::vantage::NetNs;

    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);
    const TO_SERVICE: Packet = Packet { to: SERVICE, port: 80, protocol: 6 };

    fn endpoint(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 42, 0, last), 8080)
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [u16::try_from(value.len() + 4).unwrap().to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(1, &[attribute(1, &[name.as_bytes(), &[0]].concat()), attribute(2, &parts.concat())].concat())
    }

    fn word(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_be_bytes())
    }

    fn key(name: &str) -> ChainKey {
        (2, "kube-proxy".to_owned(), name.to_owned())
    }

    /// kube-proxy's nftables mode in small: `daddr . proto . port vmap @service-ips`, then `numgen random mod 2 vmap {..}`.
    fn vmaps() -> Walker {
        let services = Set::verdicts(&[(&[10, 43, 0, 80, 6, 0, 0, 0, 0, 80, 0, 0], -4, "service-web")]);
        let halves = Set::verdicts(&[(&[0, 0, 0, 0], -4, "endpoint-6"), (&[0, 0, 0, 1], -4, "endpoint-7")]);
        let sets = [("service-ips", services), ("__map0", halves)].map(|(name, set)| (key(name), Rc::new(set)));
        let lookup = |name: &[u8]| expression("lookup", &[attribute(1, name), word(2, 8), word(3, 0)]);
        let dispatch = [
            expression("payload", &[word(1, 8), word(2, 1), word(3, 16), word(4, 4)]),
            expression("meta", &[word(1, 9), word(2, 16)]),
            expression("payload", &[word(1, 10), word(2, 2), word(3, 2), word(4, 2)]),
            lookup(b"service-ips\0"),
        ];
        let balance = [expression("numgen", &[word(1, 8), word(2, 2), word(3, 1)]), lookup(b"__map0\0")];
        let dnat = |to: SocketAddrV4| {
            let value = |register, bytes: &[u8]| expression("immediate", &[word(1, register), attribute(2, &attribute(1, bytes))]);
            let nat = expression("nat", &[word(1, 1), word(2, 2), word(3, 8), word(5, 9)]);
            [value(8, &to.ip().octets()), value(9, &to.port().to_be_bytes()), nat].concat()
        };
        let chains = [
            ("nat-output", dispatch.concat()),
            ("service-web", balance.concat()),
            ("endpoint-6", dnat(endpoint(6))),
            ("endpoint-7", dnat(endpoint(7))),
        ];
        Walker {
            bases: vec![Base { key: key("nat-output"), hook: OUTPUT, priority: -100, kind: "nat".to_owned() }],
            chains: chains.map(|(name, rule)| (key(name), Rc::new(vec![Rule::Expressions(rule)]))).into_iter().collect(),
            sets: Sets::known(sets.into_iter().collect()),
            followed: 0,
        }
    }

    #[test]
    fn verdict_maps_lead_to_every_endpoint_of_the_service_and_to_no_other() {
        let ways = vmaps().ways(TO_SERVICE, OUTPUT).unwrap();
        assert_eq!(ways.targets, BTreeSet::from([endpoint(6), endpoint(7)]));
        assert_eq!((ways.unread, ways.refused, ways.layouts), (false, false, BTreeSet::from(["nftables"])));
        for other in [Packet { port: 81, ..TO_SERVICE }, Packet { protocol: 17, ..TO_SERVICE }] {
            let ways = vmaps().ways(other, OUTPUT).unwrap();
            assert!(ways.targets.is_empty() && ways.untouched, "{ways:?}");
        }
        assert!(vmaps().ways(TO_SERVICE, PREROUTING).unwrap().targets.is_empty());
    }

    #[test]
    fn chains_that_call_themselves_and_cut_expressions_end() {
        let mut walker = vmaps();
        let jump = |chain: &[u8]| {
            let verdict = attribute(2, &[word(1, (-3_i32).cast_unsigned()), attribute(2, chain)].concat());
            expression("immediate", &[word(1, 0), attribute(2, &verdict)])
        };
        walker.chains.insert(key("service-web"), Rc::new(vec![Rule::Expressions(jump(b"service-web\0"))]));
        assert!(walker.ways(TO_SERVICE, OUTPUT).unwrap_err().to_string().contains("too deeply"));
        let Rule::Expressions(whole) = vmaps().chains[&key("nat-output")][0].clone() else { unreachable!() };
        for length in 0..whole.len() {
            let mut walker = vmaps();
            walker.chains.insert(key("nat-output"), Rc::new(vec![Rule::Expressions(whole[..length].to_vec())]));
            let _ = walker.ways(TO_SERVICE, OUTPUT);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_real_rules_are_followed_in_the_order_of_their_chains() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let net = Net::Ns(NetNs::create("walk").unwrap());
        let to_service = || Written::new().to(SERVICE.into(), true).protocol(6).port(80);
        let ways = |packet| Walker::read(&net).unwrap().ways(packet, OUTPUT).unwrap();
        assert_eq!(ways(TO_SERVICE), Ways { untouched: true, ..Ways::default() });
        let refusing = Batch::replace("firewall").fresh().chain("out", "filter", Hook::Output, 0).rule("out", to_service().reject());
        refusing.commit(&net).unwrap();
        assert_eq!(ways(TO_SERVICE), Ways { untouched: true, refused: true, ..Ways::default() });
        assert!(!ways(Packet { port: 81, ..TO_SERVICE }).refused);
        let lead = |table: &str, priority, to: SocketAddrV4| {
            let batch = Batch::replace(table).fresh().chain("out", "nat", Hook::Output, priority);
            batch.rule("out", to_service().dnat(*to.ip(), to.port())).commit(&net).unwrap();
        };
        lead("late", -100, endpoint(6));
        assert_eq!(ways(TO_SERVICE).targets, BTreeSet::from([endpoint(6)]));
        assert!(!ways(TO_SERVICE).refused, "what was translated does not meet a rule for the old address");
        lead("early", -110, endpoint(9));
        assert_eq!(ways(TO_SERVICE).targets, BTreeSet::from([endpoint(9)]));
    }
}
