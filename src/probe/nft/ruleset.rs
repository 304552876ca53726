//! What of a ruleset matters here: base chains with policy and counters, rules that refuse, named counters.

use super::expression::{Expression, Value};
use super::rule_marks::RuleMarks;
use super::wire::{self, Message, What, find, long, number, text};
use crate::check::clean;
use crate::vantage::Net;
use std::collections::BTreeMap;
use std::io;

/// Address families whose IPv4 packets pass the inet hooks.
const FAMILIES: [(u8, &str); 2] = [(1, "inet"), (2, "ip")];
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
/// NFT_OBJECT_COUNTER.
const COUNTER: u32 = 1;

/// A ruleset, as far as it is looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ruleset {
    pub(crate) chains: Vec<Chain>,
    pub(crate) rules: Vec<Rule>,
    /// Named counters: `table.name` and packets.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// A chain.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Hook number and priority of a base chain.
    pub(crate) hook: Option<(u32, i32)>,
    pub(crate) drops: bool,
    /// Packets that its policy decided, if it counts them.
    pub(crate) packets: Option<u64>,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) verdict: Verdict,
    /// Packets, if it counts them.
    pub(crate) packets: Option<u64>,
    /// The expressions without their counters: equal for equal rules.
    pub(crate) identity: Vec<u8>,
    /// What it has to do with the packet's mark.
    pub(crate) marks: RuleMarks,
}

/// What a rule does in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Refuse,
    Other,
}

impl Ruleset {
    /// Reads it. The error says which privilege is missing.
    pub(crate) fn read(net: &Net) -> Result<Self, String> {
        let list = |what| wire::dump(net, what).map_err(|e| refused(&e));
        let counters = list(What::Objects)?.iter().filter_map(counter).collect();
        Ok(Self {
            chains: list(What::Chains)?.iter().filter_map(chain).collect(),
            rules: list(What::Rules)?.iter().filter_map(rule).collect(),
            counters,
        })
    }

    /// Base chains at a hook.
    pub(crate) fn at(&self, hook: u32) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |c| c.hook.is_some_and(|(h, _)| h == hook))
    }

    /// Packets that drop policies at a hook decided; `None` if none of these chains counts.
    pub(crate) fn dropped_by_policy(&self, hook: u32) -> Option<u64> {
        let counts: Vec<u64> = self.at(hook).filter(|c| c.drops).filter_map(|c| c.packets).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }
}

/// For fuzzers: chains, rules and counters in the bytes of a dump.
pub(in crate::probe) fn kept(bytes: &[u8]) -> usize {
    let mut dump = wire::Dump::default();
    let _ = wire::take(bytes, &mut dump);
    let counted = |message: &Message| {
        usize::from(chain(message).is_some()) + usize::from(rule(message).is_some()) + usize::from(counter(message).is_some())
    };
    dump.messages.iter().map(counted).sum()
}

/// A chain of a dump, for the tests of [`kept`].
#[cfg(test)]
pub(in crate::probe) fn sample() -> Vec<u8> {
    use crate::vantage::netlink::attribute;
    let hook = [attribute(1, &[0, 0, 0, 1]), attribute(2, &[0, 0, 0, 0])].concat();
    let body = [attribute(1, b"filter\0"), attribute(3, b"input\0"), attribute(4, &hook), attribute(5, &[0, 0, 0, 0])].concat();
    let length = u32::try_from(20 + body.len()).unwrap();
    [length.to_ne_bytes().as_slice(), &[3, 10, 0, 0], &[0; 8], &[2, 0, 0, 0], &body].concat()
}

/// Why nftables could not be read, in words.
pub(crate) fn refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "reading nftables needs CAP_NET_ADMIN".to_owned(),
        _ => format!("cannot read nftables: {error}"),
    }
}

fn family(message: &Message) -> Option<&'static str> {
    FAMILIES.iter().find(|(number, _)| *number == message.family).map(|(_, name)| *name)
}

fn chain(message: &Message) -> Option<Chain> {
    let body = &message.body;
    let hook = find(body, 4).and_then(|h| Some((number(h, 1)?, i32::from_be_bytes(find(h, 2)?.try_into().ok()?))));
    Some(Chain {
        family: family(message)?,
        table: clean(&text(body, 1)?, 64),
        name: clean(&text(body, 3)?, 64),
        hook,
        drops: number(body, 5).map(u32::cast_signed) == Some(DROP) && hook.is_some(),
        packets: find(body, 8).and_then(|c| long(c, 2)),
    })
}

fn rule(message: &Message) -> Option<Rule> {
    let body = &message.body;
    let mut rule = Rule {
        family: family(message)?,
        table: clean(&text(body, 1)?, 64),
        chain: clean(&text(body, 2)?, 64),
        verdict: Verdict::Other,
        packets: None,
        identity: Vec::new(),
        marks: RuleMarks::default(),
    };
    for (_, bytes) in wire::attributes(find(body, 4).unwrap_or_default()) {
        let expression = Expression::read(bytes);
        match &expression {
            Expression::Counter { packets } => rule.packets = *packets,
            Expression::Reject => rule.verdict = Verdict::Refuse,
            Expression::Target(part) if matches!(part.name, "REJECT" | "DROP") => rule.verdict = Verdict::Refuse,
            Expression::Immediate { value: Value::Verdict(DROP, _), .. } => rule.verdict = Verdict::Refuse,
            Expression::Immediate { value: Value::Verdict(ACCEPT, _), .. } => rule.verdict = Verdict::Accept,
            _ => {}
        }
        rule.marks.take(&expression);
        if !matches!(expression, Expression::Counter { .. }) {
            rule.identity.extend(bytes);
        }
    }
    Some(rule)
}

fn counter(message: &Message) -> Option<(String, u64)> {
    let body = &message.body;
    let packets = find(body, 4).and_then(|data| long(data, 2)).filter(|_| number(body, 3) == Some(COUNTER))?;
    Some((format!("{}.{}", clean(&text(body, 1)?, 64), clean(&text(body, 2)?, 64)), packets))
}
