//! What kube-proxy's nftables mode needs: chains without a hook, sets and verdict maps, and rules that look things up in them.

use super::{Attrs, Batch, CREATE, NEWCHAIN, Rule};
use std::net::Ipv4Addr;

const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
/// NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_MAP.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const MAP: u32 = 8;
/// Types as the `nft` program numbers them; the kernel stores them unseen.
const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const INTEGER: u32 = 4;
/// NFT_DATA_VERDICT.
const VERDICT: u32 = 0xffff_ff00;
const GOTO: i32 = -4;
const JUMP: i32 = -3;

/// The key of a service in a map: `ipv4_addr . inet_proto . inet_service`, each padded to four bytes.
pub fn service_key(address: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&address.octets()[..], &[protocol, 0, 0, 0, port[0], port[1], 0, 0]].concat()
}

fn verdict(code: i32, chain: &str) -> Attrs {
    Attrs::default().nest(2, &Attrs::default().raw(1, &code.to_be_bytes()).text(2, chain))
}

/// What becomes of a packet that an element of a map is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to a chain.
    Goto(String),
    /// It is dropped.
    Drop,
}

impl Fate {
    fn data(&self) -> Attrs {
        const DROP: i32 = 0;
        match self {
            Self::Goto(chain) => verdict(GOTO, chain),
            Self::Drop => Attrs::default().nest(2, &Attrs::default().raw(1, &DROP.to_be_bytes())),
        }
    }
}

impl Rule {
    fn lead(self, code: i32, chain: &str) -> Self {
        self.expr("immediate", &Attrs::default().u32(1, 0).nest(2, &verdict(code, chain)))
    }

    /// Goes through a chain and comes back.
    pub fn jump(self, chain: &str) -> Self {
        self.lead(JUMP, chain)
    }

    /// The first packet of a connection (`ct state new`).
    pub fn new_connection(self) -> Self {
        let new = 8_u32.to_ne_bytes();
        self.expr("ct", &Attrs::default().u32(1, 1).u32(2, 0)).mask(&new).compare(false, &[0; 4])
    }

    /// `ip daddr . meta l4proto . th dport vmap @MAP`: goes where the map's element for the packet's service says.
    pub fn service_map(self, map: &str) -> Self {
        self.load_payload(1, 16, 4)
            .expr("meta", &Attrs::default().u32(1, 9).u32(2, 16))
            .expr("payload", &Attrs::default().u32(1, 10).u32(2, 2).u32(3, 2).u32(4, 2))
            .expr("lookup", &Attrs::default().text(1, map).u32(2, 1).u32(3, 0))
    }

    /// The destination address is in a set.
    pub fn to_any_of(self, set: &str) -> Self {
        self.load_payload(1, 16, 4).expr("lookup", &Attrs::default().text(1, set).u32(2, 1))
    }

    /// `numgen random mod N vmap {..}` with the anonymous map of this number.
    pub fn random_of(self, count: u32, map: u32) -> Self {
        self.expr("numgen", &Attrs::default().u32(1, 1).u32(2, count).u32(3, 1).u32(4, 0))
            .expr("lookup", &Attrs::default().text(1, ANONYMOUS_MAP).u32(2, 1).u32(3, 0).u32(4, map))
    }

    /// Leaves the chain unless the packet has this mark.
    pub fn return_without_mark(self, mark: u32) -> Self {
        const RETURN: i32 = -5;
        self.load_meta(3).mask(&mark.to_ne_bytes()).compare(true, &[0; 4]).verdict(RETURN)
    }

    /// The packet's mark has this value under this mask.
    pub fn with_mark(self, value: u32, mask: u32) -> Self {
        self.load_meta(3).mask(&mask.to_ne_bytes()).compare(true, &value.to_ne_bytes())
    }

    /// Sets (or, with `keep` and `flip`, changes) the packet's mark: `mark & keep ^ flip`.
    pub fn set_mark(self, keep: u32, flip: u32) -> Self {
        let value = |bits: u32| Attrs::default().raw(1, &bits.to_ne_bytes());
        let change = Attrs::default().u32(1, 1).u32(2, 1).u32(3, 4).nest(4, &value(keep)).nest(5, &value(flip));
        self.load_meta(3).expr("bitwise", &change).expr("meta", &Attrs::default().u32(2, 3).u32(3, 1))
    }

    /// Masquerades from any port (`fully-random`).
    pub fn masquerade_fully_random(self) -> Self {
        const FULLY_RANDOM: u32 = 1 << 4;
        self.expr("masq", &Attrs::default().u32(1, FULLY_RANDOM))
    }
}

/// The kernel puts a number in the place of `%d`.
const ANONYMOUS_MAP: &str = "__map%d";

impl Batch {
    /// Adds a chain that only other chains lead to.
    pub fn inner_chain(mut self, name: &str) -> Self {
        let chain = Attrs::default().text(1, &self.table).text(3, name);
        self.table_message(NEWCHAIN, CREATE, &chain);
        self
    }

    fn set(&mut self, name: &str, id: u32, flags: u32, (key, length): (u32, u32)) {
        let set = Attrs::default().text(1, &self.table).text(2, name).u32(3, flags).u32(4, key).u32(5, length);
        let set = if flags & MAP != 0 { set.u32(6, VERDICT).u32(7, 16) } else { set };
        self.table_message(NEWSET, CREATE, &set.u32(10, id));
    }

    fn elements(&mut self, name: &str, id: u32, elements: impl Iterator<Item = Attrs>) {
        let list = elements.fold(Attrs::default(), |list, element| list.nest(1, &element));
        if !list.0.is_empty() {
            let attrs = Attrs::default().text(1, &self.table).text(2, name).nest(3, &list).u32(4, id);
            self.table_message(NEWSETELEM, CREATE, &attrs);
        }
    }

    /// Adds a set of addresses.
    pub fn addresses(mut self, name: &str, id: u32, addresses: &[Ipv4Addr]) -> Self {
        self.set(name, id, 0, (ADDRESS, 4));
        self.elements(name, id, addresses.iter().map(|a| Attrs::default().nest(1, &Attrs::default().raw(1, &a.octets()))));
        self
    }

    /// Adds a map from services to what becomes of packets for them.
    pub fn services(mut self, name: &str, id: u32, fates: &[(Vec<u8>, Fate)]) -> Self {
        self.set(name, id, MAP, ((ADDRESS << 12) | (PROTOCOL << 6) | PORT, 12));
        self.elements(name, id, fates.iter().map(|(key, fate)| element(key, fate)));
        self
    }

    /// Adds the anonymous map from 0, 1, .. to chains, for the next rule with [`Rule::random_of`].
    pub fn numbered(mut self, id: u32, chains: &[String]) -> Self {
        self.set(ANONYMOUS_MAP, id, ANONYMOUS | CONSTANT | MAP, (INTEGER, 4));
        self.elements(ANONYMOUS_MAP, id, (0_u32..).zip(chains).map(|(n, chain)| element(&n.to_ne_bytes(), &Fate::Goto(chain.clone()))));
        self
    }
}

fn element(key: &[u8], fate: &Fate) -> Attrs {
    Attrs::default().nest(1, &Attrs::default().raw(1, key)).nest(2, &fate.data())
}
