//! The mark of a packet while it is followed, byte by byte known or not.

/// A packet's mark, in the byte order of this machine as the registers hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark([Option<u8>; 4]);

impl Mark {
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

    /// `mark & keep ^ flip`, as iptables' MARK target sets it.
    pub(super) fn changed(&self, keep: u32, flip: u32) -> [Option<u8>; 4] {
        let (keep, flip) = (keep.to_ne_bytes(), flip.to_ne_bytes());
        std::array::from_fn(|n| if keep[n] == 0 { Some(flip[n]) } else { self.0[n].map(|byte| (byte & keep[n]) ^ flip[n]) })
    }

    /// Whether `mark & mask == value`; `None` if that depends on a byte that is not known.
    pub(super) fn is(&self, value: u32, mask: u32) -> Option<bool> {
        let (value, mask) = (value.to_ne_bytes(), mask.to_ne_bytes());
        let byte = |n: usize| if mask[n] == 0 { Some(value[n] == 0) } else { self.0[n].map(|byte| byte & mask[n] == value[n]) };
        let bytes: [Option<bool>; 4] = std::array::from_fn(byte);
        if bytes.contains(&Some(false)) { Some(false) } else { bytes.iter().copied().collect::<Option<Vec<bool>>>().map(|_| true) }
    }
}

#[cfg(test)]
mod tests {
    use super::Mark;

    #[test]
    fn only_what_a_rule_may_have_changed_is_not_known() {
        let mut mark = Mark::NONE;
        assert_eq!((mark.is(0x40000, 0xff_0000), mark.is(0, u32::MAX)), (Some(false), Some(true)));
        let set = mark.changed(!0x4000, 0x4000);
        mark.may_become(&set);
        assert_eq!((mark.is(0x4000, 0x4000), mark.is(0x40000, 0xff_0000), mark.is(0x4_4000, u32::MAX)), (None, Some(false), Some(false)));
        assert_eq!(Mark::default().is(0x4000, 0x4000), None);
        assert_eq!(Mark::default().changed(0, 7), 7_u32.to_ne_bytes().map(Some), "what is set as a whole is known");
    }
}
