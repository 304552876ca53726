//! One rule of nf_tables, followed for one packet: what it may do.
//!
//! Expressions and attributes: include/uapi/linux/netfilter/nf_tables.h. A condition whose answer is not known here (a random
//! number, the user, what the caller does not know of the packet) counts as "may match": both ways are followed.

use super::mark::Mark;
use super::registers::Registers;
use super::sets::{Found, SetKey, Sets, Value};
use super::walk::{DeviceName, Packet, SourceNat};
use super::wire::{attributes, find, number, text};
use super::xt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Most elements of one map that are followed when the key is not known.
const MOST_BRANCHES: usize = 1024;

/// What a rule may do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The packet goes on, or into a queue: no later rule of this chain sees it.
    Accept,
    /// Dropped or rejected.
    Refuse,
    Jump(String),
    Goto(String),
    Return,
    /// Destination translated.
    Translate(SocketAddrV4),
    /// Destination translated to something that could not be read.
    TranslateUnread,
    /// Source translated.
    TranslateSource(SourceNat),
}

/// What a rule may do, and whether the packet may pass it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) actions: Vec<Action>,
    pub(super) passes: bool,
}

enum Step {
    Next,
    No,
    Maybe,
    /// One of these contents, or no match.
    Fork(Vec<Registers>),
    Do(Vec<Action>, bool),
}

/// Follows a rule's expressions.
pub(super) struct Follower<'a> {
    pub(super) packet: Packet,
    pub(super) family: u8,
    pub(super) table: &'a str,
    pub(super) sets: &'a mut Sets,
    pub(super) mark: &'a mut Mark,
}

impl Follower<'_> {
    /// What the rule with these expressions (`NFTA_RULE_EXPRESSIONS`) may do.
    pub(super) fn follow(&mut self, expressions: &[u8]) -> std::io::Result<Outcome> {
        let list: Vec<&[u8]> = attributes(expressions).map(|(_, e)| e).collect();
        let mut outcome = Outcome::default();
        let mut open = vec![(0, Registers::new())];
        while let Some((mut at, mut registers)) = open.pop() {
            loop {
                let Some(expression) = list.get(at) else {
                    outcome.passes = true;
                    break;
                };
                at += 1;
                match self.step(expression, &mut registers)? {
                    Step::Next => {}
                    Step::Maybe => outcome.passes = true,
                    Step::No => {
                        outcome.passes = true;
                        break;
                    }
                    Step::Fork(ways) => {
                        outcome.passes = true;
                        open.extend(ways.into_iter().map(|way| (at, way)));
                        break;
                    }
                    Step::Do(actions, passes) => {
                        outcome.actions.extend(actions);
                        outcome.passes |= passes;
                        break;
                    }
                }
                if open.len() > MOST_BRANCHES {
                    return Err(std::io::Error::other("a rule has too many branches"));
                }
            }
        }
        Ok(outcome)
    }

    fn step(&mut self, expression: &[u8], registers: &mut Registers) -> std::io::Result<Step> {
        let (name, data) = (text(expression, 1).unwrap_or_default(), find(expression, 2).unwrap_or_default());
        Ok(match name.as_str() {
            "payload" => self.payload(data, registers),
            "meta" => self.meta(data, registers),
            "ct" => ct(data, registers),
            "bitwise" => bitwise(data, registers),
            "cmp" => compare(data, registers),
            "lookup" => return self.lookup(data, registers),
            "immediate" => immediate(data, registers),
            "nat" => self.nat(data, registers),
            "redir" | "tproxy" => Step::Do(vec![Action::TranslateUnread], false),
            "masq" => Step::Do(vec![Action::TranslateSource(SourceNat::Masqueraded)], false),
            "reject" => Step::Do(vec![Action::Refuse], false),
            "match" => self.foreign_match(data),
            "target" => self.foreign_target(data),
            "counter" | "log" | "notrack" | "objref" | "dynset" | "last" => Step::Next,
            "limit" | "quota" | "connlimit" | "range" => Step::Maybe,
            _ => {
                // fib, numgen, hash, rt, socket, exthdr and what comes later: their result is not known here.
                number(data, 1).into_iter().for_each(|register| registers.forget(register, 16));
                Step::Next
            }
        })
    }

    /// The parts of the headers that are known: protocol, addresses, destination port.
    fn payload(&self, data: &[u8], registers: &mut Registers) -> Step {
        let Some(register) = number(data, 1) else { return Step::Next };
        let (base, offset, length) =
            (number(data, 2), number(data, 3).unwrap_or_default() as usize, number(data, 4).unwrap_or_default() as usize);
        let (address, port) = (self.packet.to.octets(), self.packet.port.to_be_bytes());
        let source = self.packet.from.map(|from| from.octets());
        let byte = |n: usize| match (base, n) {
            (Some(1), 9) => Some(self.packet.protocol),
            (Some(1), 12..=15) => source.map(|source| source[n - 12]),
            (Some(1), 16..=19) => Some(address[n - 16]),
            (Some(2), 2..=3) => Some(port[n - 2]),
            _ => None,
        };
        registers.put(register, &(offset..offset + length.min(64)).map(byte).collect::<Vec<_>>());
        Step::Next
    }

    fn meta(&mut self, data: &[u8], registers: &mut Registers) -> Step {
        const PROTOCOL: u32 = 1;
        const MARK: u32 = 3;
        const IIFNAME: u32 = 6;
        const OIFNAME: u32 = 7;
        const NFPROTO: u32 = 15;
        const L4PROTO: u32 = 16;
        let Some(key) = number(data, 2) else { return Step::Next };
        let Some(register) = number(data, 1) else {
            if let (MARK, Some(source)) = (key, number(data, 3)) {
                self.mark.may_become(&registers.bytes(source, 4));
            }
            return Step::Next;
        };
        let mut device = |name: Option<DeviceName>| match name {
            Some(name) => registers.put_known(register, &name),
            None => registers.forget(register, 16),
        };
        match key {
            PROTOCOL => registers.put_known(register, &0x0800_u16.to_be_bytes()),
            MARK => registers.put(register, self.mark.bytes()),
            IIFNAME => device(self.packet.iif),
            OIFNAME => device(self.packet.oif),
            NFPROTO => registers.put_known(register, &[2]),
            L4PROTO => registers.put_known(register, &[self.packet.protocol]),
            _ => registers.forget(register, 16),
        }
        Step::Next
    }

    fn lookup(&mut self, data: &[u8], registers: &Registers) -> std::io::Result<Step> {
        const INVERTED: u32 = 1;
        let (Some(name), Some(source)) = (text(data, 1), number(data, 2)) else { return Ok(Step::Maybe) };
        let key: SetKey = (self.family, self.table.to_owned(), name);
        let set = self.sets.get(&key)?;
        let width = set.elements.iter().map(|e| e.key.len()).max().unwrap_or(4);
        let inverted = number(data, 5).unwrap_or_default() & INVERTED != 0;
        let found = set.find(&registers.bytes(source, width));
        let Some(target) = number(data, 3) else {
            return Ok(match (found, inverted) {
                (Found::Any, _) => Step::Maybe,
                (Found::One(_), false) | (Found::Nothing, true) => Step::Next,
                (Found::One(_), true) | (Found::Nothing, false) => Step::No,
            });
        };
        let values =
            |elements: &mut dyn Iterator<Item = &super::sets::Element>| elements.filter_map(|e| e.value.clone()).collect::<Vec<_>>();
        let (values, certain) = match found {
            Found::Nothing => return Ok(Step::No),
            Found::One(element) => (values(&mut std::iter::once(element)), true),
            Found::Any => (values(&mut set.elements.iter().take(MOST_BRANCHES)), false),
        };
        Ok(chosen(values, certain, target, registers))
    }

    fn nat(&self, data: &[u8], registers: &Registers) -> Step {
        const DNAT: u32 = 1;
        let address = number(data, 3).and_then(|r| registers.known(r, 4)).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
        if number(data, 1) != Some(DNAT) {
            let source = address.map_or(SourceNat::Unread, SourceNat::To);
            return Step::Do(vec![Action::TranslateSource(source)], false);
        }
        let port = match number(data, 5) {
            None => Some(self.packet.port),
            Some(register) => registers.known(register, 2).map(|b| u16::from_be_bytes([b[0], b[1]])),
        };
        let action = match (address, port) {
            (Some(address), Some(port)) => Action::Translate(SocketAddrV4::new(address, port)),
            _ => Action::TranslateUnread,
        };
        Step::Do(vec![action], false)
    }

    fn foreign_match(&self, data: &[u8]) -> Step {
        let revision = number(data, 2).unwrap_or_default();
        match xt::holds(&text(data, 1).unwrap_or_default(), revision, find(data, 3).unwrap_or_default(), &self.packet, self.mark) {
            Some(true) => Step::Next,
            Some(false) => Step::No,
            None => Step::Maybe,
        }
    }

    fn foreign_target(&mut self, data: &[u8]) -> Step {
        let (name, revision, info) =
            (text(data, 1).unwrap_or_default(), number(data, 2).unwrap_or_default(), find(data, 3).unwrap_or_default());
        xt::mark(&name, revision, info, self.mark);
        xt::action(&name, revision, info, self.packet.port).map_or(Step::Next, |action| Step::Do(vec![action], false))
    }
}

/// What a map's value means: a verdict, or bytes for a register.
fn chosen(values: Vec<Value>, certain: bool, target: u32, registers: &Registers) -> Step {
    let mut actions = Vec::new();
    let mut ways = Vec::new();
    let mut passes = !certain;
    for value in values {
        match value {
            Value::Verdict(code, chain) => match verdict(code, chain) {
                Some(action) => actions.push(action),
                None => passes = true,
            },
            Value::Bytes(bytes) => {
                let mut way = registers.clone();
                way.put_known(target, &bytes);
                ways.push(way);
            }
        }
    }
    if ways.is_empty() { Step::Do(actions, passes) } else { Step::Fork(ways) }
}

/// `None` for continue.
fn verdict(code: i32, chain: String) -> Option<Action> {
    match code {
        0 => Some(Action::Refuse),
        -1 => None,
        -3 => Some(Action::Jump(chain)),
        -4 => Some(Action::Goto(chain)),
        -2 | -5 => Some(Action::Return),
        _ => Some(Action::Accept),
    }
}

fn ct(data: &[u8], registers: &mut Registers) -> Step {
    const STATE: u32 = 0;
    /// NF_CT_STATE_BIT(IP_CT_NEW): the packet is the first of its connection.
    const NEW: u32 = 8;
    let (Some(register), Some(key)) = (number(data, 1), number(data, 2)) else { return Step::Next };
    if key == STATE {
        registers.put_known(register, &NEW.to_ne_bytes())
    } else {
        registers.forget(register, 16)
    }
    Step::Next
}

fn bitwise(data: &[u8], registers: &mut Registers) -> Step {
    let (Some(source), Some(target), Some(length)) = (number(data, 1), number(data, 2), number(data, 3)) else { return Step::Maybe };
    let value = |kind| find(data, kind).and_then(|nested| find(nested, 1));
    let length = length.min(64) as usize;
    let (Some(mask), Some(xor), true) = (value(4), value(5), number(data, 6).unwrap_or_default() == 0) else {
        registers.forget(target, length);
        return Step::Next;
    };
    let bytes = registers.bytes(source, length).into_iter().zip(mask.iter().zip(xor));
    let result: Vec<Option<u8>> =
        bytes.map(|(byte, (mask, xor))| if *mask == 0 { Some(*xor) } else { byte.map(|b| (b & mask) ^ xor) }).collect();
    registers.put(target, &result);
    Step::Next
}

fn compare(data: &[u8], registers: &Registers) -> Step {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (Some(source), Some(operator), Some(wanted)) = (number(data, 1), number(data, 2), find(data, 3).and_then(|d| find(d, 1))) else {
        return Step::Maybe;
    };
    let bytes = registers.bytes(source, wanted.len());
    // One known byte that differs decides equality, whatever the others are.
    if bytes.iter().zip(wanted).any(|(have, want)| have.is_some_and(|b| b != *want)) && operator < 2 {
        return if operator == 0 { Step::No } else { Step::Next };
    }
    let Some(known) = bytes.into_iter().collect::<Option<Vec<u8>>>() else { return Step::Maybe };
    let order = known.as_slice().cmp(wanted);
    let holds = match operator {
        0 => order == Equal,
        1 => order != Equal,
        2 => order == Less,
        3 => order != Greater,
        4 => order == Greater,
        5 => order != Less,
        _ => return Step::Maybe,
    };
    if holds { Step::Next } else { Step::No }
}

fn immediate(data: &[u8], registers: &mut Registers) -> Step {
    const VERDICT: u32 = 0;
    let value = find(data, 2).unwrap_or_default();
    match number(data, 1) {
        Some(VERDICT) => {
            let Some(body) = find(value, 2) else { return Step::Maybe };
            let code = number(body, 1).unwrap_or_default().cast_signed();
            match verdict(code, text(body, 2).unwrap_or_default()) {
                Some(action) => Step::Do(vec![action], false),
                None => Step::Do(Vec::new(), true),
            }
        }
        Some(register) => {
            find(value, 1).into_iter().for_each(|bytes| registers.put_known(register, bytes));
            Step::Next
        }
        None => Step::Maybe,
    }
}
