//! Matches and targets of iptables, in its own tables or inside of nf_tables (`nft_compat`): the few whose meaning is needed, from their raw structs.

use super::mark::Mark;
use super::rule::Action;
use super::walk::{Packet, SourceNat};
use std::net::{Ipv4Addr, SocketAddrV4};

/// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED (include/uapi/linux/netfilter/nf_nat.h).
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;
/// XT_TCP_INV_DSTPT, the same for UDP.
const INVERTED_DESTINATION: u8 = 2;

/// Whether a match accepts the first packet of a connection; `None` if that depends on what is not known here.
pub(super) fn holds(name: &str, revision: u32, info: &[u8], packet: &Packet, mark: &Mark) -> Option<bool> {
    match name {
        "comment" => Some(true),
        "tcp" | "udp" => ports(name, info, packet.port),
        "conntrack" => new_connection(revision, info),
        "mark" => marked(revision, info, mark),
        _ => None,
    }
}

/// What a target does; `None` if the packet goes on (MARK, LOG, CONNMARK, ..).
pub(super) fn action(name: &str, revision: u32, info: &[u8], port: u16) -> Option<Action> {
    match name {
        "DNAT" => Some(range(revision, info, port).map_or(Action::TranslateUnread, Action::Translate)),
        "REDIRECT" | "NETMAP" | "TPROXY" => Some(Action::TranslateUnread),
        "REJECT" | "DROP" => Some(Action::Refuse),
        "MASQUERADE" => Some(Action::TranslateSource(SourceNat::Masqueraded)),
        "SNAT" => {
            let source = range(revision, info, port).map_or(SourceNat::Unread, |to| SourceNat::To(*to.ip()));
            Some(Action::TranslateSource(source))
        }
        _ => None,
    }
}

/// What a target makes of the packet's mark.
pub(super) fn mark(name: &str, revision: u32, info: &[u8], mark: &mut Mark) {
    match (name, revision) {
        ("MARK", 2) => {
            let set = mark_set(name, revision, info).map_or([None; 4], |(keep, flip)| mark.changed(keep, flip));
            mark.may_become(&set);
        }
        // struct xt_connmark_tginfo1 and 2: three masks, then the mode, of which SAVE only reads the packet's mark.
        ("CONNMARK", _) if matches!(info.get(12), Some(0 | 1)) => {}
        ("MARK" | "CONNMARK" | "HMARK", _) => mark.may_become(&[None; 4]),
        _ => {}
    }
}

/// What a `MARK` target keeps of the mark, and the bits that it then turns over (struct xt_mark_tginfo2: mark, mask).
pub(super) fn mark_set(name: &str, revision: u32, info: &[u8]) -> Option<(u32, u32)> {
    let (flip, clear) = word(info, 0).zip(word(info, 4))?;
    (name == "MARK" && revision == 2).then_some((!clear, flip))
}

/// What a `mark` match compares with: value, mask, and whether it is turned over (struct xt_mark_mtinfo1).
pub(super) fn mark_tested(revision: u32, info: &[u8]) -> Option<(u32, u32, bool)> {
    let tested = (word(info, 0)?, word(info, 4)?, *info.get(8)? != 0);
    (revision == 1).then_some(tested)
}

/// Whether a `mark` match accepts a packet with this mark.
fn marked(revision: u32, info: &[u8], mark: &Mark) -> Option<bool> {
    let (value, mask, inverted) = mark_tested(revision, info)?;
    mark.is(value, mask).map(|held| held != inverted)
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

    #[test]
    fn marks_are_read_set_and_forgotten() {
        let words = |words: [u32; 3]| words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
        let mut seen = Mark::NONE;
        assert_eq!(marked(1, &words([0x4000, 0x4000, 0]), &seen), Some(false));
        assert_eq!(marked(1, &words([0x4000, 0x4000, 1]), &seen), Some(true));
        assert_eq!((marked(0, &words([0; 3]), &seen), marked(1, &[0; 8], &seen)), (None, None));
        mark("MARK", 2, &words([0x4000, 0x4000, 0]), &mut seen);
        assert_eq!(marked(1, &words([0x4000, 0x4000, 0]), &seen), None);
        assert_eq!(marked(1, &words([0x4_0000, 0xff_0000, 0]), &seen), Some(false));
        mark("CONNMARK", 1, &[&words([0, 0xff_0000, 0xff_0000])[..], &[1]].concat(), &mut seen);
        assert_eq!(marked(1, &words([0x4_0000, 0xff_0000, 0]), &seen), Some(false), "saving does not change it");
        mark("CONNMARK", 1, &[&words([0, 0xff_0000, 0xff_0000])[..], &[2]].concat(), &mut seen);
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
