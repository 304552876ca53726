//! nf_tables by netlink: just the expressions that the twin needs, without the `nft` binary.
//!
//! Formats: include/uapi/linux/netfilter/nf_tables.h. Integers in attributes are big-endian.

mod maps;
mod more;

pub use maps::{Fate, service_key};

use crate::vantage::{Net, netlink};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use ipnet::Ipv4Net;

const SUBSYS: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NFPROTO_IPV4: u8 = 2;

/// Where a chain is attached (netfilter hooks of the IPv4 family).
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To this host.
    Input = 1,
    /// Through this host.
    Forward = 2,
    /// From this host.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// An attribute list under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Attrs(pub(super) Vec<u8>);

impl Attrs {
    pub(super) fn raw(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.raw(kind, &value.to_be_bytes())
    }

    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes)
    }

    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.raw(kind | 0x8000, &inner.0)
    }
}

/// One rule: expressions that are evaluated in order until one does not match.
#[derive(Clone, Debug, Default)]
pub struct Rule(Vec<Attrs>);

impl Rule {
    /// An empty rule, which matches everything.
    pub fn new() -> Self {
        Self::default()
    }

    fn expr(mut self, name: &str, data: &Attrs) -> Self {
        self.0.push(Attrs::default().text(1, name).nest(2, data));
        self
    }

    fn load_payload(self, base: u32, offset: u32, len: u32) -> Self {
        self.expr("payload", &Attrs::default().u32(1, 1).u32(2, base).u32(3, offset).u32(4, len))
    }

    fn load_meta(self, key: u32) -> Self {
        self.expr("meta", &Attrs::default().u32(1, 1).u32(2, key))
    }

    fn compare(self, equal: bool, data: &[u8]) -> Self {
        self.expr("cmp", &Attrs::default().u32(1, 1).u32(2, u32::from(!equal)).nest(3, &Attrs::default().raw(1, data)))
    }

    fn mask(self, mask: &[u8]) -> Self {
        let len = u32::try_from(mask.len()).unwrap_or(4);
        let zero = vec![0; mask.len()];
        let data = Attrs::default().u32(1, 1).u32(2, 1).u32(3, len);
        self.expr("bitwise", &data.nest(4, &Attrs::default().raw(1, mask)).nest(5, &Attrs::default().raw(1, &zero)))
    }

    fn address(self, offset: u32, net: Ipv4Net, equal: bool) -> Self {
        self.load_payload(1, offset, 4).mask(&net.netmask().octets()).compare(equal, &net.network().octets())
    }

    /// Source address lies in a range, or does not.
    pub fn from(self, net: Ipv4Net, inside: bool) -> Self {
        self.address(12, net, inside)
    }

    /// Destination address lies in a range, or does not.
    pub fn to(self, net: Ipv4Net, inside: bool) -> Self {
        self.address(16, net, inside)
    }

    /// Transport protocol (6 TCP, 17 UDP).
    pub fn protocol(self, protocol: u8) -> Self {
        self.load_meta(16).compare(true, &[protocol])
    }

    /// Destination port; needs a protocol before it.
    pub fn port(self, port: u16) -> Self {
        self.load_payload(2, 2, 2).compare(true, &port.to_be_bytes())
    }

    /// Source port; needs a protocol before it.
    pub fn source_port(self, port: u16) -> Self {
        self.load_payload(2, 0, 2).compare(true, &port.to_be_bytes())
    }

    /// Outgoing device.
    pub fn out_by(self, device: &str) -> Self {
        let mut name = device.as_bytes().to_vec();
        name.resize(16, 0);
        self.load_meta(7).compare(true, &name)
    }

    /// The connection's destination was translated (IPS_DST_NAT).
    pub fn destination_was_translated(self) -> Self {
        let bit = 0x20_u32.to_ne_bytes();
        self.expr("ct", &Attrs::default().u32(1, 1).u32(2, 2)).mask(&bit).compare(false, &[0; 4])
    }

    /// The packet belongs to no known connection (`ct state != established,related`).
    pub fn not_established(self) -> Self {
        let known = 6_u32.to_ne_bytes();
        self.expr("ct", &Attrs::default().u32(1, 1).u32(2, 0)).mask(&known).compare(true, &[0; 4])
    }

    /// Counts packets and bytes.
    pub fn counted(self) -> Self {
        self.expr("counter", &Attrs::default())
    }

    /// Translates the destination.
    pub fn dnat(self, to: Ipv4Addr, port: u16) -> Self {
        let value = |register: u32, data: &[u8]| Attrs::default().u32(1, register).nest(2, &Attrs::default().raw(1, data));
        self.expr("immediate", &value(1, &to.octets()))
            .expr("immediate", &value(2, &port.to_be_bytes()))
            .expr("nat", &Attrs::default().u32(1, 1).u32(2, u32::from(NFPROTO_IPV4)).u32(3, 1).u32(5, 2).u32(7, 2))
    }

    /// Translates the source to the outgoing device's address.
    pub fn masquerade(self) -> Self {
        self.expr("masq", &Attrs::default())
    }

    /// Answers with ICMP port unreachable, as kube-proxy does for a service without endpoints.
    pub fn reject(self) -> Self {
        self.expr("reject", &Attrs::default().u32(1, 0).raw(2, &[3]))
    }

    /// Drops.
    pub fn drop(self) -> Self {
        self.verdict(0)
    }

    /// Accepts.
    pub fn accept(self) -> Self {
        self.verdict(1)
    }

    fn verdict(self, code: i32) -> Self {
        let verdict = Attrs::default().nest(2, &Attrs::default().raw(1, &code.to_be_bytes()));
        self.expr("immediate", &Attrs::default().u32(1, 0).nest(2, &verdict))
    }
}

/// One transaction on one table of the IPv4 family.
pub struct Batch {
    table: String,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Batch {
    /// Replaces the table: whatever it held is gone when the transaction is committed.
    pub fn replace(table: &str) -> Self {
        let mut batch = Self::extend(table);
        let name = Attrs::default().text(1, table);
        // Creating first makes the deletion succeed also when there was no such table.
        batch.table_message(NEWTABLE, CREATE, &name);
        batch.table_message(DELTABLE, 0, &name);
        batch
    }

    /// Adds to the table, which is there already.
    pub fn extend(table: &str) -> Self {
        let mut batch = Self { table: table.to_owned(), buffer: Vec::new(), sequence: 0 };
        batch.message(BATCH_BEGIN, REQUEST, 0, SUBSYS, &Attrs::default());
        batch
    }

    /// Ends with the table gone.
    pub fn removed(self) -> Self {
        self
    }

    /// Ends with a new, empty table.
    pub fn fresh(mut self) -> Self {
        let name = Attrs::default().text(1, &self.table);
        self.table_message(NEWTABLE, CREATE, &name);
        self
    }

    /// Adds a base chain of a type (`filter` or `nat`) at a priority.
    pub fn chain(mut self, name: &str, kind: &str, hook: Hook, priority: i32) -> Self {
        let at = Attrs::default().u32(1, hook as u32).raw(2, &priority.to_be_bytes());
        let chain = Attrs::default().text(1, &self.table).text(3, name).nest(4, &at).text(7, kind);
        self.table_message(NEWCHAIN, CREATE, &chain);
        self
    }

    /// Appends a rule.
    pub fn rule(mut self, chain: &str, rule: Rule) -> Self {
        let list = rule.0.iter().fold(Attrs::default(), |list, expr| list.nest(1, expr));
        let attrs = Attrs::default().text(1, &self.table).text(2, chain).nest(4, &list);
        self.table_message(NEWRULE, CREATE | APPEND, &attrs);
        self
    }

    /// Commits; the error names the table.
    pub fn commit(mut self, net: &Net) -> io::Result<()> {
        let wanted = self.sequence - 1;
        self.message(BATCH_END, REQUEST, 0, SUBSYS, &Attrs::default());
        let context = |e: io::Error| io::Error::new(e.kind(), format!("nf_tables table {}: {e}", self.table));
        let socket = netlink::netfilter(net).map_err(context)?;
        netlink::send(&socket, &self.buffer).map_err(context)?;
        await_acks(&socket, wanted).map_err(context)
    }

    fn table_message(&mut self, operation: u16, flags: u16, attrs: &Attrs) {
        self.message((SUBSYS << 8) | operation, REQUEST | ACK | flags, NFPROTO_IPV4, 0, attrs);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attrs: &Attrs) {
        let len = u32::try_from(20 + attrs.0.len()).unwrap_or(u32::MAX);
        self.sequence += 1;
        self.buffer.extend_from_slice(&len.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        self.buffer.extend_from_slice(&attrs.0);
    }
}

/// Every message asked for an acknowledgement; a failing one carries its errno.
fn await_acks(socket: &OwnedFd, wanted: u32) -> io::Result<()> {
    let mut buffer = vec![0_u8; 1 << 16];
    let mut seen = 0;
    while seen < wanted {
        let n = netlink::receive(socket, &mut buffer)?;
        let mut rest = &buffer[..n];
        while rest.len() >= 20 {
            let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let len = word(0) as usize;
            let error = i32::from_ne_bytes(word(16).to_ne_bytes());
            if error != 0 {
                let message = word(8);
                return Err(io::Error::new(
                    io::Error::from_raw_os_error(-error).kind(),
                    format!("message {message}: {}", io::Error::from_raw_os_error(-error)),
                ));
            }
            seen += 1;
            rest = &rest[len.next_multiple_of(4).clamp(20, rest.len())..];
        }
    }
    Ok(())
}
