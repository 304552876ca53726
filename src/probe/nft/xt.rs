//! Matches and targets of iptables, in its own tables or inside of nf_tables (`nft_compat`): the few whose meaning is needed, from their raw structs.

use super::follow::Action;
use super::mark::{Change, Test};
use super::packet_mark::PacketMark;
use super::walk::{Packet, SourceNat};
use std::net::{Ipv4Addr, SocketAddrV4};

/// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED (include/uapi/linux/netfilter/nf_nat.h).
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;
/// XT_TCP_INV_DSTPT, the same for UDP.
const INVERTED_DESTINATION: u8 = 2;

/// A match or target of iptables, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    /// Its name; empty for the standard target, whose data is a verdict.
    pub(super) name: &'a str,
    pub(super) revision: u32,
    /// Its struct.
    pub(super) info: &'a [u8],
}

/// Whether a match accepts the first packet of a connection; `None` if that depends on what is not known here.
pub(super) fn holds(part: &Extension<'_>, packet: &Packet, mark: &PacketMark) -> Option<bool> {
    match part.name {
        "comment" => Some(true),
        "tcp" | "udp" => ports(part.name, part.info, packet.port),
        "conntrack" => new_connection(part.revision, part.info),
        "mark" => mark_tested(part).and_then(|(test, inverted)| Some(mark.passes(test)? != inverted)),
        _ => None,
    }
}

/// What a target does; `None` if the packet goes on (MARK, LOG, CONNMARK, ..).
pub(super) fn action(part: &Extension<'_>, port: u16) -> Option<Action> {
    let range = || range(part.revision, part.info, port);
    match part.name {
        "DNAT" => Some(range().map_or(Action::TranslateUnread, Action::Translate)),
        "REDIRECT" | "NETMAP" | "TPROXY" => Some(Action::TranslateUnread),
        "REJECT" | "DROP" => Some(Action::Refuse),
        "MASQUERADE" => Some(Action::TranslateSource(SourceNat::Masqueraded)),
        "SNAT" => {
            let source = range().map_or(SourceNat::Unread, |to| SourceNat::To(*to.ip()));
            Some(Action::TranslateSource(source))
        }
        _ => None,
    }
}

/// What a target makes of the packet's mark.
pub(super) fn mark(part: &Extension<'_>, mark: &mut PacketMark) {
    match part.name {
        // struct xt_connmark_tginfo1 and 2: three masks, then the mode, of which SAVE only reads the packet's mark.
        "CONNMARK" if matches!(part.info.get(12), Some(0 | 1)) => {}
        "MARK" | "CONNMARK" | "HMARK" => {
            let set = mark_set(part).map_or([None; 4], |change| mark.after(change));
            mark.may_become(&set);
        }
        _ => {}
    }
}

/// How a `MARK` target changes the mark (struct xt_mark_tginfo2: mark, mask).
pub(super) fn mark_set(part: &Extension<'_>) -> Option<Change> {
    let (flip, clear) = word(part.info, 0).zip(word(part.info, 4))?;
    (part.name == "MARK" && part.revision == 2).then_some(Change { keep: !clear, flip })
}

/// What a `mark` match asks of the mark, and whether it is turned over (struct xt_mark_mtinfo1: mark, mask, invert).
pub(super) fn mark_tested(part: &Extension<'_>) -> Option<(Test, bool)> {
    let (value, mask, inverted) = (word(part.info, 0)?, word(part.info, 4)?, *part.info.get(8)? != 0);
    (part.name == "mark" && part.revision == 1).then_some((Test { mask, value }, inverted))
}

/// A number in the byte order of this machine.
fn word(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?))
}

/// Whether a `tcp` or `udp` match accepts a destination port; `None` if it also looks at something that is not known here.
fn ports(name: &str, info: &[u8], port: u16) -> Option<bool> {
    let at = |n: usize| Some(u16::from_ne_bytes(info.get(n..n + 2)?.try_into().ok()?));
    // struct xt_tcp and struct xt_udp both begin with the ranges of source and destination ports, in the host's byte order.
    let (source, low, high) = ((at(0)?, at(2)?), at(4)?, at(6)?);
    let (flags, options) = if name == "tcp" { (*info.get(11)?, (*info.get(8)?, *info.get(9)?)) } else { (*info.get(8)?, (0, 0)) };
    let inside = (low..=high).contains(&port) != (flags & INVERTED_DESTINATION != 0);
    let more = source != (0, u16::MAX) || flags & !INVERTED_DESTINATION != 0 || options != (0, 0);
    match (inside, more) {
        (false, _) => Some(false),
        (true, false) => Some(true),
        (true, true) => None,
    }
}

/// Whether a `conntrack` match accepts the first packet of a connection; `None` if it looks at more than the state.
fn new_connection(revision: u32, info: &[u8]) -> Option<bool> {
    const STATE: u16 = 1;
    const NEW: u16 = 8;
    let at = |n: usize| Some(u16::from_ne_bytes(info.get(n..n + 2)?.try_into().ok()?));
    // struct xt_conntrack_mtinfo2 and 3: eight addresses, two times, five 16-bit fields, then flags, inversions, states.
    let (flags, inverted, states) = (at(146)?, at(148)?, at(150)?);
    (revision >= 2 && flags == STATE).then_some((states & NEW != 0) != (inverted & STATE != 0))
}

/// What a `DNAT` or `SNAT` target translates to, if that is one address; a port that it does not name is the packet's own.
fn range(revision: u32, info: &[u8], port: u16) -> Option<SocketAddrV4> {
    let word = |n: usize| Some(u32::from_ne_bytes(info.get(n..n + 4)?.try_into().ok()?));
    let octets = |n: usize| <[u8; 4]>::try_from(info.get(n..n + 4)?).ok();
    let named = |n: usize| Some(u16::from_be_bytes(info.get(n..n + 2)?.try_into().ok()?));
    // Revision 0: struct nf_nat_ipv4_multi_range_compat; later ones: struct nf_nat_range and nf_nat_range2. First and last each.
    let (flags, addresses, ports) = if revision == 0 { (word(4)?, (8, 12), (16, 18)) } else { (word(0)?, (4, 20), (36, 38)) };
    let (address, named_port) = (octets(addresses.0)?, named(ports.0)?);
    let one = octets(addresses.1)? == address && (flags & PROTO_SPECIFIED == 0 || named(ports.1)? == named_port);
    let port = if flags & PROTO_SPECIFIED != 0 { named_port } else { port };
    (flags & MAP_IPS != 0 && one).then(|| SocketAddrV4::new(Ipv4Addr::from(address), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(source: [u16; 2], destination: [u16; 2], tail: [u8; 4]) -> Vec<u8> {
        source.iter().chain(&destination).flat_map(|p| p.to_ne_bytes()).chain(tail).collect()
    }

    #[test]
    fn port_ranges() {
        let every = [0, u16::MAX];
        assert_eq!(ports("tcp", &tcp(every, [80, 80], [0; 4]), 80), Some(true));
        assert_eq!(ports("tcp", &tcp(every, [80, 90], [0; 4]), 91), Some(false));
        assert_eq!(ports("tcp", &tcp(every, [80, 80], [0, 0, 0, INVERTED_DESTINATION]), 80), Some(false));
        assert_eq!(ports("tcp", &tcp([1, 2], [80, 80], [0; 4]), 80), None);
        assert_eq!(ports("udp", &tcp(every, [53, 53], [0; 4]), 53), Some(true));
        assert_eq!(ports("tcp", &[0; 7], 80), None);
    }

    #[test]
    fn states_of_connections() {
        let state = |flags: u16, inverted: u16, states: u16| {
            let mut info = vec![0; 160];
            for (at, value) in [(146, flags), (148, inverted), (150, states)] {
                info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            }
            info
        };
        assert_eq!(new_connection(3, &state(1, 0, 8)), Some(true));
        assert_eq!(new_connection(3, &state(1, 0, 6)), Some(false));
        assert_eq!(new_connection(2, &state(1, 1, 6)), Some(true));
        assert_eq!(new_connection(3, &state(3, 0, 8)), None);
        assert_eq!(new_connection(1, &state(1, 0, 8)), None);
        assert_eq!(new_connection(3, &[0; 151]), None);
    }

    fn part<'a>(name: &'a str, revision: u32, info: &'a [u8]) -> Extension<'a> {
        Extension { name, revision, info }
    }

    fn marked(revision: u32, info: &[u8], mark: &PacketMark) -> Option<bool> {
        holds(&part("mark", revision, info), &Packet::to(Ipv4Addr::LOCALHOST, 80, 6), mark)
    }

    #[test]
    fn marks_are_read_set_and_forgotten() {
        let words = |words: [u32; 3]| words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
        let mut seen = PacketMark::NONE;
        assert_eq!(marked(1, &words([0x4000, 0x4000, 0]), &seen), Some(false));
        assert_eq!(marked(1, &words([0x4000, 0x4000, 1]), &seen), Some(true));
        assert_eq!((marked(0, &words([0; 3]), &seen), marked(1, &[0; 8], &seen)), (None, None));
        mark(&part("MARK", 2, &words([0x4000, 0x4000, 0])), &mut seen);
        assert_eq!(marked(1, &words([0x4000, 0x4000, 0]), &seen), None);
        assert_eq!(marked(1, &words([0x4_0000, 0xff_0000, 0]), &seen), Some(false));
        let connection = |mode: u8| [&words([0, 0xff_0000, 0xff_0000])[..], &[mode]].concat();
        mark(&part("CONNMARK", 1, &connection(1)), &mut seen);
        assert_eq!(marked(1, &words([0x4_0000, 0xff_0000, 0]), &seen), Some(false), "saving does not change it");
        mark(&part("CONNMARK", 1, &connection(2)), &mut seen);
        assert_eq!(marked(1, &words([0x4_0000, 0xff_0000, 0]), &seen), None, "what a connection's mark was is not known");
    }

    #[test]
    fn targets_of_all_revisions() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 42, 0, 6), 6900);
        let mut new = vec![0; 40];
        new[0..4].copy_from_slice(&(MAP_IPS | PROTO_SPECIFIED).to_ne_bytes());
        new[4..8].copy_from_slice(&to.ip().octets());
        new[20..24].copy_from_slice(&to.ip().octets());
        new[36..38].copy_from_slice(&6900_u16.to_be_bytes());
        new[38..40].copy_from_slice(&6900_u16.to_be_bytes());
        assert_eq!((range(1, &new, 80), range(2, &new, 80)), (Some(to), Some(to)));
        let mut old = vec![0; 20];
        old[4..8].copy_from_slice(&MAP_IPS.to_ne_bytes());
        old[8..12].copy_from_slice(&to.ip().octets());
        old[12..16].copy_from_slice(&to.ip().octets());
        assert_eq!(range(0, &old, 80), Some(SocketAddrV4::new(*to.ip(), 80)));
        assert_eq!(range(2, &new[..37], 80), None);
        for (at, what) in [(20, "one of several addresses"), (38, "one of several ports")] {
            let mut several = new.clone();
            several[at] += 1;
            assert_eq!(range(2, &several, 80), None, "{what} is not known");
        }
    }
}
