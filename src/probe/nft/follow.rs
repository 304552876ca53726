//! One rule of nf_tables, followed for one packet: what it may do.
//!
//! A condition whose answer is not known here (a random
//! number, the user, what the caller does not know of the packet) counts as "may match": both ways are followed.

use super::expression::{Expression, META_MARK, Register, Value};
use super::packet_mark::PacketMark;
use super::registers::Registers;
use super::sets::{Found, SetKey, Sets};
use super::walk::{Packet, SourceNat};
use super::wire::attributes;
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

/// How a rule goes on after one of its expressions.
enum Step {
    Next,
    /// It does not match.
    No,
    /// It may match.
    Maybe,
    /// One of these contents, or no match.
    Fork(Vec<Registers>),
    /// One of these, or no match.
    Do(Vec<Action>, bool),
}

/// Follows a rule's expressions.
pub(super) struct Follower<'a> {
    pub(super) packet: Packet,
    pub(super) family: u8,
    pub(super) table: &'a str,
    pub(super) sets: &'a mut Sets,
    pub(super) mark: &'a mut PacketMark,
}

impl Follower<'_> {
    /// What the rule with these expressions (`NFTA_RULE_EXPRESSIONS`) may do.
    pub(super) fn follow(&mut self, expressions: &[u8]) -> std::io::Result<Outcome> {
        let list: Vec<Expression<'_>> = attributes(expressions).map(|(_, e)| Expression::read(e)).collect();
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

    fn step(&mut self, expression: &Expression<'_>, registers: &mut Registers) -> std::io::Result<Step> {
        Ok(match expression {
            Expression::Payload { base, offset, length, target } => self.payload((*base, *offset, *length), *target, registers),
            Expression::LoadMeta { key, target } => self.load_meta(*key, *target, registers),
            Expression::SetMeta { key, source } => self.set_meta(*key, *source, registers),
            Expression::LoadCt { key, target } => ct(*key, *target, registers),
            Expression::Bitwise { source, target, length, change } => bitwise((*source, *target, *length), *change, registers),
            Expression::Compare { source, operator, wanted } => compare(*source, *operator, wanted, registers),
            Expression::Lookup { set, source, target, inverted } => return self.lookup(set, *source, *target, *inverted, registers),
            Expression::Immediate { value: Value::Verdict(code, chain), .. } => decided(verdict(*code, chain)),
            Expression::Immediate { target, value: Value::Bytes(bytes) } => put(*target, bytes, registers),
            Expression::Nat { destination: true, address, port } => self.translate(*address, *port, registers),
            Expression::Nat { destination: false, address, .. } => translate_source(*address, registers),
            Expression::Masquerade => decided(Some(Action::TranslateSource(SourceNat::Masqueraded))),
            Expression::Redirect => decided(Some(Action::TranslateUnread)),
            Expression::Reject => decided(Some(Action::Refuse)),
            Expression::Match(part) => xt::holds(part, &self.packet, self.mark).map_or(Step::Maybe, matched),
            Expression::Target(part) => {
                xt::mark(part, self.mark);
                xt::action(part, self.packet.port).map_or(Step::Next, |action| decided(Some(action)))
            }
            Expression::Counter { .. } | Expression::Aside => Step::Next,
            Expression::Condition => Step::Maybe,
            Expression::Unread { target } => forget(*target, registers),
        })
    }

    /// The parts of the headers that are known: protocol, addresses, destination port.
    fn payload(&self, (base, offset, length): (u32, u32, u32), target: Register, registers: &mut Registers) -> Step {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let (address, port) = (self.packet.to.octets(), self.packet.port.to_be_bytes());
        let source = self.packet.from.map(|from| from.octets());
        let byte = |n: usize| match (base, n) {
            (NETWORK, 9) => Some(self.packet.protocol),
            (NETWORK, 12..=15) => source.map(|source| source[n - 12]),
            (NETWORK, 16..=19) => Some(address[n - 16]),
            (TRANSPORT, 2..=3) => Some(port[n - 2]),
            _ => None,
        };
        let (offset, length) = (offset as usize, length.min(64) as usize);
        registers.put(target, &(offset..offset + length).map(byte).collect::<Vec<_>>());
        Step::Next
    }

    fn load_meta(&self, key: u32, target: Register, registers: &mut Registers) -> Step {
        const PROTOCOL: u32 = 1;
        const IIFNAME: u32 = 6;
        const OIFNAME: u32 = 7;
        const NFPROTO: u32 = 15;
        const L4PROTO: u32 = 16;
        let known: Option<&[u8]> = match key {
            META_MARK => {
                registers.put(target, self.mark.bytes());
                return Step::Next;
            }
            PROTOCOL => Some(&[0x08, 0x00]),
            IIFNAME => self.packet.iif.as_ref().map(|name| &name[..]),
            OIFNAME => self.packet.oif.as_ref().map(|name| &name[..]),
            NFPROTO => Some(&[2]),
            L4PROTO => Some(std::slice::from_ref(&self.packet.protocol)),
            _ => None,
        };
        match known {
            Some(bytes) => put(target, bytes, registers),
            None => forget(Some(target), registers),
        }
    }

    fn set_meta(&mut self, key: u32, source: Register, registers: &Registers) -> Step {
        if key == META_MARK {
            self.mark.may_become(&registers.bytes(source, 4));
        }
        Step::Next
    }

    fn lookup(
        &mut self,
        name: &str,
        source: Register,
        target: Option<Register>,
        inverted: bool,
        registers: &Registers,
    ) -> std::io::Result<Step> {
        let key: SetKey = (self.family, self.table.to_owned(), name.to_owned());
        let set = self.sets.get(&key)?;
        let width = set.elements.iter().map(|e| e.key.len()).max().unwrap_or(4);
        let found = set.find(&registers.bytes(source, width));
        let Some(target) = target else {
            return Ok(match found {
                Found::Any => Step::Maybe,
                Found::One(_) => matched(!inverted),
                Found::Nothing => matched(inverted),
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

    /// Without a port of its own the packet keeps its.
    fn translate(&self, address: Option<Register>, port: Option<Register>, registers: &Registers) -> Step {
        let port = match port {
            None => Some(self.packet.port),
            Some(register) => registers.known(register, 2).map(|b| u16::from_be_bytes([b[0], b[1]])),
        };
        let to = address_in(address, registers).zip(port).map(|(address, port)| SocketAddrV4::new(address, port));
        decided(Some(to.map_or(Action::TranslateUnread, Action::Translate)))
    }
}

fn translate_source(address: Option<Register>, registers: &Registers) -> Step {
    decided(Some(Action::TranslateSource(address_in(address, registers).map_or(SourceNat::Unread, SourceNat::To))))
}

fn address_in(register: Option<Register>, registers: &Registers) -> Option<Ipv4Addr> {
    let bytes = registers.known(register?, 4)?;
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn matched(holds: bool) -> Step {
    if holds { Step::Next } else { Step::No }
}

/// The rule ends with this; `None` for continue.
fn decided(action: Option<Action>) -> Step {
    let passes = action.is_none();
    Step::Do(action.into_iter().collect(), passes)
}

fn put(target: Register, bytes: &[u8], registers: &mut Registers) -> Step {
    registers.put_known(target, bytes);
    Step::Next
}

fn forget(target: Option<Register>, registers: &mut Registers) -> Step {
    match target {
        Some(register) => registers.forget(register, 16),
        None => *registers = Registers::new(),
    }
    Step::Next
}

/// What a map's value means: a verdict, or bytes for a register.
fn chosen(values: Vec<Value>, certain: bool, target: u32, registers: &Registers) -> Step {
    let mut actions = Vec::new();
    let mut ways = Vec::new();
    let mut passes = !certain;
    for value in values {
        match value {
            Value::Verdict(code, chain) => match verdict(code, &chain) {
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
fn verdict(code: i32, chain: &str) -> Option<Action> {
    match code {
        0 => Some(Action::Refuse),
        -1 => None,
        -3 => Some(Action::Jump(chain.to_owned())),
        -4 => Some(Action::Goto(chain.to_owned())),
        -2 | -5 => Some(Action::Return),
        _ => Some(Action::Accept),
    }
}

fn ct(key: u32, target: Register, registers: &mut Registers) -> Step {
    const STATE: u32 = 0;
    /// NF_CT_STATE_BIT(IP_CT_NEW): the packet is the first of its connection.
    const NEW: u32 = 8;
    if key == STATE { put(target, &NEW.to_ne_bytes(), registers) } else { forget(Some(target), registers) }
}

fn bitwise((source, target, length): (Register, Register, u32), change: Option<(&[u8], &[u8])>, registers: &mut Registers) -> Step {
    let length = length.min(64) as usize;
    let Some((mask, xor)) = change else {
        registers.forget(target, length);
        return Step::Next;
    };
    let bytes = registers.bytes(source, length).into_iter().zip(mask.iter().zip(xor));
    let result: Vec<Option<u8>> =
        bytes.map(|(byte, (mask, xor))| if *mask == 0 { Some(*xor) } else { byte.map(|b| (b & mask) ^ xor) }).collect();
    registers.put(target, &result);
    Step::Next
}

fn compare(source: Register, operator: u32, wanted: &[u8], registers: &Registers) -> Step {
    use std::cmp::Ordering::{Equal, Greater, Less};
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
    matched(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_not_taken_for_what_was_there_before() {
        let mut follower = Follower {
            packet: Packet::to(Ipv4Addr::LOCALHOST, 80, 6),
            family: 2,
            table: "filter",
            sets: &mut Sets::known(std::collections::HashMap::new()),
            mark: &mut PacketMark::default(),
        };
        let protocol = Expression::LoadMeta { key: 16, target: 1 };
        let udp = Expression::Compare { source: 1, operator: 0, wanted: &[17] };
        for (unread, maybe) in [(Some(1), true), (None, true), (Some(2), false)] {
            let mut registers = Registers::new();
            for expression in [&protocol, &Expression::Unread { target: unread }] {
                assert!(matches!(follower.step(expression, &mut registers), Ok(Step::Next)));
            }
            let step = follower.step(&udp, &mut registers).unwrap();
            assert_eq!((matches!(step, Step::Maybe), matches!(step, Step::No)), (maybe, !maybe), "into {unread:?}");
        }
    }
}
