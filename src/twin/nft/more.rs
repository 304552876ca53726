//! What faults need, for the most part: drop policies, size limits, other refusals, a spoilt checksum.

use super::{Attrs, Batch, CREATE, Hook, NEWCHAIN, Rule};

impl Rule {
    /// Incoming device.
    pub fn in_by(self, device: &str) -> Self {
        let mut name = device.as_bytes().to_vec();
        name.resize(16, 0);
        self.load_meta(6).compare(true, &name)
    }

    /// IPv4 packets longer than this (total length of the header, so what the wire carries).
    pub fn longer_than(self, bytes: u16) -> Self {
        // NFT_CMP_GT on a big-endian field.
        self.load_payload(1, 2, 2)
            .expr("cmp", &Attrs::default().u32(1, 1).u32(2, 4).nest(3, &Attrs::default().raw(1, &bytes.to_be_bytes())))
    }

    /// ICMP packets of a type (RFC 792); needs a protocol before it.
    pub fn icmp_type(self, kind: u8) -> Self {
        self.load_payload(2, 0, 1).compare(true, &[kind])
    }

    /// What comes beyond so many packets a second (NFT_LIMIT_F_INV).
    pub fn beyond(self, per_second: u64) -> Self {
        let limit = Attrs::default().raw(1, &per_second.to_be_bytes()).raw(2, &1_u64.to_be_bytes());
        self.expr("limit", &limit.u32(3, 1).u32(4, 0).u32(5, 1))
    }

    /// Answers with an ICMP destination unreachable of this code (RFC 792, RFC 1812): 10 host prohibited, 13 administratively.
    pub fn reject_with(self, code: u8) -> Self {
        self.expr("reject", &Attrs::default().u32(1, 0).raw(2, &[code]))
    }

    /// Packets of connections that exist (NFT_CT_STATE: established, related).
    pub fn established(self) -> Self {
        let bits = 0x6_u32.to_ne_bytes();
        self.expr("ct", &Attrs::default().u32(1, 1).u32(2, 0)).mask(&bits).compare(false, &[0; 4])
    }

    /// Overwrites the UDP checksum.
    pub fn spoil_udp_checksum(self) -> Self {
        let wrong = Attrs::default().u32(1, 1).nest(2, &Attrs::default().raw(1, &[0xde, 0xad]));
        self.expr("immediate", &wrong).expr("payload", &Attrs::default().u32(5, 1).u32(2, 2).u32(3, 6).u32(4, 2).u32(6, 0).u32(7, 0))
    }
}

impl Batch {
    /// Adds a base chain that drops what no rule accepts and counts it, as `iptables -P FORWARD DROP` makes it.
    pub fn dropping_chain(mut self, name: &str, hook: Hook, priority: i32) -> Self {
        let at = Attrs::default().u32(1, hook as u32).raw(2, &priority.to_be_bytes());
        let counters = Attrs::default().raw(1, &0_u64.to_be_bytes()).raw(2, &0_u64.to_be_bytes());
        let chain = Attrs::default().text(1, &self.table).text(3, name).nest(4, &at).u32(5, 0).text(7, "filter").nest(8, &counters);
        self.table_message(NEWCHAIN, CREATE, &chain);
        self
    }
}
