//! The expressions of nf_tables' rules, read once for all who ask about them (include/uapi/linux/netfilter/nf_tables.h).
//!
//! Here is only what an expression is. What it means for one packet is in [`follow`](super::follow), what a rule is made of in
//! [`ruleset`](super::ruleset) and [`rule_marks`](super::rule_marks).

use super::wire::{find, keyword, long, number, text};
use super::xt::Extension;

/// NFT_META_MARK.
pub(super) const META_MARK: u32 = 3;

/// A register, as expressions name it (enum nft_registers).
pub(super) type Register = u32;

/// One expression. Registers are those that it writes (`target`) or reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression<'a> {
    /// Bytes of a header (enum nft_payload_bases) into a register.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        target: Register,
    },
    /// What the kernel knows of the packet (enum nft_meta_keys) into a register.
    LoadMeta {
        key: u32,
        target: Register,
    },
    SetMeta {
        key: u32,
        source: Register,
    },
    /// What connection tracking knows of the packet (enum nft_ct_keys) into a register.
    LoadCt {
        key: u32,
        target: Register,
    },
    /// `target = source & mask ^ xor`; no such pair for a shift, and for what later kernels can do.
    Bitwise {
        source: Register,
        target: Register,
        length: u32,
        change: Option<(&'a [u8], &'a [u8])>,
    },
    /// The rule goes on if the register compares so (enum nft_cmp_ops).
    Compare {
        source: Register,
        operator: u32,
        wanted: &'a [u8],
    },
    /// The rule goes on if the set holds the register, or does not hold it. A map's value goes into a register or is the verdict.
    Lookup {
        set: String,
        source: Register,
        target: Option<Register>,
        inverted: bool,
    },
    /// Bytes into a register, or a verdict.
    Immediate {
        target: Register,
        value: Value,
    },
    /// The destination or the source is translated to what is in the registers.
    Nat {
        destination: bool,
        address: Option<Register>,
        port: Option<Register>,
    },
    Masquerade,
    /// To this machine itself (`redir`, `tproxy`).
    Redirect,
    Reject,
    /// A match of iptables: the rule goes on if it holds.
    Match(Extension<'a>),
    /// A target of iptables.
    Target(Extension<'a>),
    Counter {
        packets: Option<u64>,
    },
    /// It decides nothing here, and writes into no register.
    Aside,
    /// The rule goes on or not, and no list tells which: a rate, a quota; also an expression that is cut off.
    Condition,
    /// Something that is not read goes into this register, or into any.
    Unread {
        target: Option<Register>,
    },
}

/// Data of an expression or of a set's element: bytes, or a verdict's code (enum nft_verdicts and netfilter's own) and its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    Verdict(i32, String),
}

impl Value {
    /// From an attribute that holds NFTA_DATA_VALUE or NFTA_DATA_VERDICT.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        match (find(data, 1), find(data, 2)) {
            (Some(bytes), _) => Some(Self::Bytes(bytes.to_vec())),
            (None, Some(verdict)) => Some(Self::Verdict(number(verdict, 1)?.cast_signed(), text(verdict, 2).unwrap_or_default())),
            (None, None) => None,
        }
    }
}

impl<'a> Expression<'a> {
    /// From an element of NFTA_RULE_EXPRESSIONS.
    pub(super) fn read(expression: &'a [u8]) -> Self {
        let (name, data) = (keyword(expression, 1), find(expression, 2).unwrap_or_default());
        match name {
            "payload" => payload(data),
            "meta" => meta(data),
            "ct" => ct(data),
            "bitwise" => bitwise(data).unwrap_or(Self::Condition),
            "cmp" => compare(data).unwrap_or(Self::Condition),
            "lookup" => lookup(data).unwrap_or(Self::Condition),
            "immediate" => immediate(data).unwrap_or(Self::Condition),
            "nat" => nat(data).unwrap_or(Self::Condition),
            "masq" => Self::Masquerade,
            "redir" | "tproxy" => Self::Redirect,
            "reject" => Self::Reject,
            "match" => Self::Match(extension(data)),
            "target" => Self::Target(extension(data)),
            "counter" => Self::Counter { packets: long(data, 2) },
            "log" | "notrack" | "objref" | "dynset" | "last" => Self::Aside,
            "limit" | "quota" | "connlimit" | "range" => Self::Condition,
            "fib" | "numgen" | "rt" | "exthdr" | "osf" | "xfrm" => Self::Unread { target: number(data, 1) },
            // Their first attribute is what they read, or how.
            "hash" | "socket" | "tunnel" | "byteorder" => Self::Unread { target: number(data, 2) },
            _ => Self::Unread { target: None },
        }
    }
}

/// Without a target it writes into the packet.
fn payload(data: &[u8]) -> Expression<'_> {
    let part = |kind| number(data, kind).unwrap_or_default();
    number(data, 1).map_or(Expression::Aside, |target| Expression::Payload { base: part(2), offset: part(3), length: part(4), target })
}

fn meta(data: &[u8]) -> Expression<'_> {
    match (number(data, 2), number(data, 1), number(data, 3)) {
        (Some(key), Some(target), _) => Expression::LoadMeta { key, target },
        (Some(key), None, Some(source)) => Expression::SetMeta { key, source },
        (_, target, _) => Expression::Unread { target },
    }
}

/// Without a target it changes the connection.
fn ct(data: &[u8]) -> Expression<'_> {
    match (number(data, 2), number(data, 1)) {
        (Some(key), Some(target)) => Expression::LoadCt { key, target },
        (_, None) => Expression::Aside,
        (None, target) => Expression::Unread { target },
    }
}

fn bitwise(data: &[u8]) -> Option<Expression<'_>> {
    const MASK_XOR: u32 = 0;
    let value = |kind| find(find(data, kind)?, 1);
    let change = value(4).zip(value(5)).filter(|_| number(data, 6).unwrap_or_default() == MASK_XOR);
    Some(Expression::Bitwise { source: number(data, 1)?, target: number(data, 2)?, length: number(data, 3)?, change })
}

fn compare(data: &[u8]) -> Option<Expression<'_>> {
    Some(Expression::Compare { source: number(data, 1)?, operator: number(data, 2)?, wanted: find(find(data, 3)?, 1)? })
}

fn lookup(data: &[u8]) -> Option<Expression<'_>> {
    const INVERTED: u32 = 1;
    let inverted = number(data, 5).unwrap_or_default() & INVERTED != 0;
    Some(Expression::Lookup { set: text(data, 1)?, source: number(data, 2)?, target: number(data, 3), inverted })
}

fn immediate(data: &[u8]) -> Option<Expression<'_>> {
    Some(Expression::Immediate { target: number(data, 1)?, value: Value::read(find(data, 2)?)? })
}

fn nat(data: &[u8]) -> Option<Expression<'_>> {
    const DESTINATION: u32 = 1;
    Some(Expression::Nat { destination: number(data, 1)? == DESTINATION, address: number(data, 3), port: number(data, 5) })
}

fn extension(data: &[u8]) -> Extension<'_> {
    Extension { name: keyword(data, 1), revision: number(data, 2).unwrap_or_default(), info: find(data, 3).unwrap_or_default() }
}
