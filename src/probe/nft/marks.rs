//! What rules do with the packet's mark: which masquerade what carries one, and which change it.
//!
//! Native expressions (include/uapi/linux/netfilter/nf_tables.h) and iptables' own inside of nf_tables: `struct xt_mark_mtinfo1`,
//! `struct xt_mark_tginfo2`.

use super::wire::{find, number, text};
use super::xt;
use std::fmt;

/// NFT_META_MARK.
const META_MARK: u32 = 3;

/// `mark & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

/// `mark = mark & keep ^ flip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    keep: u32,
    flip: u32,
}

/// What one rule has to do with marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// It goes on only with such a mark.
    pub(crate) test: Option<Test>,
    pub(crate) change: Option<Change>,
    /// It translates the source: masquerade or SNAT.
    pub(crate) translates_source: bool,
    /// What the mark was loaded, and masked, as.
    loaded: Option<Change>,
}

impl Change {
    /// Whether a packet that passes a test does not pass it any more afterwards.
    pub(crate) fn spoils(self, test: Test) -> bool {
        ((test.value & self.keep) ^ self.flip) & test.mask != test.value & test.mask
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark & {:#x} == {:#x}", self.mask, self.value)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mark = mark & {:#x} ^ {:#x}", self.keep, self.flip)
    }
}

impl Marks {
    /// Takes in the next expression of a rule.
    pub(super) fn take(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" if number(data, 2) == Some(META_MARK) => self.meta(data),
            "bitwise" => self.bitwise(data),
            "immediate" => self.immediate(data),
            "cmp" => self.compare(data),
            "masq" => self.translates_source = true,
            "counter" => {}
            "nat" => self.translates_source |= number(data, 1) == Some(0),
            "match" if text(data, 1).as_deref() == Some("mark") => {
                self.foreign_match(number(data, 2).unwrap_or_default(), find(data, 3).unwrap_or_default());
            }
            "target" => {
                let (name, revision) = (text(data, 1).unwrap_or_default(), number(data, 2).unwrap_or_default());
                self.foreign_target(&name, revision, find(data, 3).unwrap_or_default());
            }
            // Something else may be in the register that is compared next.
            _ => self.loaded = None,
        }
    }

    fn meta(&mut self, data: &[u8]) {
        const SOURCE: u16 = 3;
        if find(data, SOURCE).is_some() {
            self.change = self.loaded.take();
        } else {
            self.loaded = Some(Change { keep: u32::MAX, flip: 0 });
        }
    }

    fn bitwise(&mut self, data: &[u8]) {
        let value = |kind| word(find(find(data, kind)?, 1)?);
        self.loaded = self
            .loaded
            .zip(value(4).zip(value(5)))
            .map(|(so_far, (mask, xor))| Change { keep: so_far.keep & mask, flip: (so_far.flip & mask) ^ xor });
    }

    /// A constant in a register, for `meta mark set 0x..`.
    fn immediate(&mut self, data: &[u8]) {
        self.loaded = find(data, 2).and_then(|value| word(find(value, 1)?)).map(|flip| Change { keep: 0, flip });
    }

    fn compare(&mut self, data: &[u8]) {
        const EQUAL: u32 = 0;
        let wanted = find(data, 3).and_then(|value| word(find(value, 1)?));
        if let (Some(EQUAL), Some(loaded), Some(wanted)) = (number(data, 2), self.loaded.take(), wanted) {
            self.test = Some(Test { mask: loaded.keep, value: wanted ^ loaded.flip });
        }
    }

    fn foreign_match(&mut self, revision: u32, info: &[u8]) {
        if let Some((value, mask, false)) = xt::mark_tested(revision, info) {
            self.test = Some(Test { mask, value });
        }
    }

    fn foreign_target(&mut self, name: &str, revision: u32, info: &[u8]) {
        self.translates_source |= matches!(name, "MASQUERADE" | "SNAT");
        self.change = xt::mark_set(name, revision, info).map(|(keep, flip)| Change { keep, flip }).or(self.change);
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAILSCALE: Test = Test { mask: 0xff_0000, value: 0x4_0000 };

    #[test]
    fn bits_that_another_agent_sets_inside_of_the_mask_spoil_the_test() {
        let or = |bits: u32| Change { keep: !bits, flip: bits };
        assert!(or(0x2_0000).spoils(TAILSCALE) && or(0x1_0000).spoils(TAILSCALE), "kube-router's");
        assert!(!or(0x4000).spoils(TAILSCALE), "kube-proxy's lies outside");
        assert!(!Change { keep: 0xff00_ffff, flip: 0x4_0000 }.spoils(TAILSCALE), "tailscaled's own sets what it tests");
        assert!(Change { keep: 0, flip: 0 }.spoils(TAILSCALE), "one that clears the mark");
        assert!(!or(0x4_0000).spoils(TAILSCALE), "a bit that is set already");
    }

    #[test]
    fn iptables_structs_are_read_in_the_hosts_order() {
        let info = |words: [u32; 2], tail: &[u8]| [words[0].to_ne_bytes().as_slice(), &words[1].to_ne_bytes(), tail].concat();
        let mut rule = Marks::default();
        rule.foreign_match(1, &info([0x4_0000, 0xff_0000], &[0, 0, 0, 0]));
        rule.foreign_target("MASQUERADE", 0, &[]);
        assert_eq!((rule.test, rule.translates_source), (Some(TAILSCALE), true));
        let mut rule = Marks::default();
        rule.foreign_target("MARK", 2, &info([0x2_0000, 0x2_0000], &[]));
        assert_eq!(rule.change.map(|c| c.to_string()), Some("mark = mark & 0xfffdffff ^ 0x20000".to_owned()));
        let mut rule = Marks::default();
        rule.foreign_match(1, &info([1, 1], &[1, 0, 0, 0]));
        rule.foreign_match(1, &[0; 7]);
        rule.foreign_target("MARK", 2, &[0; 7]);
        assert_eq!(rule, Marks::default(), "an inverted match, and cut ones, say nothing");
    }
}
