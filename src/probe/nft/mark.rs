//! The words for marks (skb->mark), 32 bits that rules test and change. They serve two questions: which mark a packet may have where it
//! is followed ([`packet_mark`](super::packet_mark)), and what a rule has to do with marks, whatever comes by ([`rule_marks`](super::rule_marks)).

use std::fmt;

/// `mark & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

/// `mark = mark & keep ^ flip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(super) keep: u32,
    pub(super) flip: u32,
}

impl Change {
    /// The one after which the mark is as before.
    pub(super) const NONE: Self = Self { keep: u32::MAX, flip: 0 };

    /// This change and then another one.
    pub(super) fn then(self, next: Self) -> Self {
        Self { keep: self.keep & next.keep, flip: (self.flip & next.keep) ^ next.flip }
    }

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
        assert!(or(0x2_0000).then(Change { keep: !0x2_0000, flip: 0 }).flip == 0, "what is set and then cleared is not set");
    }
}
