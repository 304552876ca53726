//! The mark of one packet while it is followed, byte by byte known or not.

use super::mark::{Change, Test};

/// A packet's mark, in the byte order of this machine as the registers hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketMark([Option<u8>; 4]);

impl PacketMark {
    /// Of a packet that nothing has marked.
    pub(super) const NONE: Self = Self([Some(0); 4]);

    pub(super) fn bytes(&self) -> &[Option<u8>; 4] {
        &self.0
    }

    /// A rule that may match sets it: what it was and what it becomes are possible, so a byte stays known only where both are the same.
    pub(super) fn may_become(&mut self, bytes: &[Option<u8>]) {
        for (n, was) in self.0.iter_mut().enumerate() {
            *was = was.filter(|byte| bytes.get(n).copied().flatten() == Some(*byte));
        }
    }

    /// What it is after a change.
    pub(super) fn after(&self, change: Change) -> [Option<u8>; 4] {
        let (keep, flip) = (change.keep.to_ne_bytes(), change.flip.to_ne_bytes());
        std::array::from_fn(|n| if keep[n] == 0 { Some(flip[n]) } else { self.0[n].map(|byte| (byte & keep[n]) ^ flip[n]) })
    }

    /// Whether it passes a test; `None` if that depends on a byte that is not known.
    pub(super) fn passes(&self, test: Test) -> Option<bool> {
        let (value, mask) = (test.value.to_ne_bytes(), test.mask.to_ne_bytes());
        let byte = |n: usize| if mask[n] == 0 { Some(value[n] == 0) } else { self.0[n].map(|byte| byte & mask[n] == value[n]) };
        let bytes: [Option<bool>; 4] = std::array::from_fn(byte);
        if bytes.contains(&Some(false)) { Some(false) } else { bytes.iter().copied().collect::<Option<Vec<bool>>>().map(|_| true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_rule_may_have_changed_is_not_known() {
        let passes = |mark: &PacketMark, value, mask| mark.passes(Test { mask, value });
        let mut mark = PacketMark::NONE;
        assert_eq!((passes(&mark, 0x40000, 0xff_0000), passes(&mark, 0, u32::MAX)), (Some(false), Some(true)));
        let set = mark.after(Change { keep: !0x4000, flip: 0x4000 });
        mark.may_become(&set);
        let seen = (passes(&mark, 0x4000, 0x4000), passes(&mark, 0x40000, 0xff_0000), passes(&mark, 0x4_4000, u32::MAX));
        assert_eq!(seen, (None, Some(false), Some(false)));
        let unknown = PacketMark::default();
        assert_eq!(passes(&unknown, 0x4000, 0x4000), None);
        assert_eq!(unknown.after(Change { keep: 0, flip: 7 }), 7_u32.to_ne_bytes().map(Some), "what is set as a whole is known");
    }
}
