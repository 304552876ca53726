//! What a rule has to do with marks, whatever packet comes by: which mark it asks for, how it changes it, and whether it translates sources.

use super::expression::{Expression, META_MARK, Register, Value};
use super::mark::{Change, Test};
use super::xt::{self, Extension};

/// What one rule has to do with marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleMarks {
    /// It goes on only with such a mark.
    pub(crate) test: Option<Test>,
    pub(crate) change: Option<Change>,
    /// It translates the source: masquerade or SNAT.
    pub(crate) translates_source: bool,
    /// The register that holds something made of the mark, and how it was made.
    held: Option<(Register, Change)>,
}

impl RuleMarks {
    /// Takes in the next expression of a rule.
    pub(super) fn take(&mut self, expression: &Expression<'_>) {
        match expression {
            Expression::LoadMeta { key: META_MARK, target } => self.held = Some((*target, Change::NONE)),
            Expression::SetMeta { key: META_MARK, source } => self.change = self.taken_from(*source),
            Expression::Bitwise { source, target, change, .. } => self.bitwise(*source, *target, *change),
            // A constant in a register, for `meta mark set 0x..`.
            Expression::Immediate { target, value: Value::Bytes(bytes) } => {
                self.held = word(bytes).map(|flip| (*target, Change { keep: 0, flip }));
            }
            Expression::Compare { source, operator, wanted } => self.compare(*source, *operator, wanted),
            Expression::Masquerade | Expression::Nat { destination: false, .. } => self.translates_source = true,
            Expression::Match(part) => self.foreign_match(part),
            Expression::Target(part) => self.foreign_target(part),
            Expression::Nat { .. } | Expression::Counter { .. } | Expression::Aside => {}
            // Something else may be in the register that is compared next.
            _ => self.held = None,
        }
    }

    /// What a register holds, which is asked for once.
    fn taken_from(&mut self, source: Register) -> Option<Change> {
        self.held.take().filter(|(register, _)| *register == source).map(|(_, change)| change)
    }

    fn bitwise(&mut self, source: Register, target: Register, change: Option<(&[u8], &[u8])>) {
        let next = change.and_then(|(mask, xor)| Some(Change { keep: word(mask)?, flip: word(xor)? }));
        self.held = self.taken_from(source).zip(next).map(|(so_far, next)| (target, so_far.then(next)));
    }

    fn compare(&mut self, source: Register, operator: u32, wanted: &[u8]) {
        const EQUAL: u32 = 0;
        if let (Some(held), EQUAL, Some(wanted)) = (self.taken_from(source), operator, word(wanted)) {
            self.test = Some(Test { mask: held.keep, value: wanted ^ held.flip });
        }
    }

    fn foreign_match(&mut self, part: &Extension<'_>) {
        if let Some((test, false)) = xt::mark_tested(part) {
            self.test = Some(test);
        }
    }

    fn foreign_target(&mut self, part: &Extension<'_>) {
        self.translates_source |= matches!(part.name, "MASQUERADE" | "SNAT");
        self.change = xt::mark_set(part).or(self.change);
    }
}

/// A number in the byte order of this machine, which is how marks lie in registers.
fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAILSCALE: Test = Test { mask: 0xff_0000, value: 0x4_0000 };

    fn rule(expressions: &[Expression<'_>]) -> RuleMarks {
        let mut rule = RuleMarks::default();
        expressions.iter().for_each(|expression| rule.take(expression));
        rule
    }

    fn part<'a>(name: &'a str, revision: u32, info: &'a [u8]) -> Extension<'a> {
        Extension { name, revision, info }
    }

    #[test]
    fn iptables_structs_are_read_in_the_hosts_order() {
        let info = |words: [u32; 2], tail: &[u8]| [words[0].to_ne_bytes().as_slice(), &words[1].to_ne_bytes(), tail].concat();
        let tested = info([0x4_0000, 0xff_0000], &[0, 0, 0, 0]);
        let seen = rule(&[Expression::Match(part("mark", 1, &tested)), Expression::Target(part("MASQUERADE", 0, &[]))]);
        assert_eq!((seen.test, seen.translates_source), (Some(TAILSCALE), true));
        let set = info([0x2_0000, 0x2_0000], &[]);
        let seen = rule(&[Expression::Target(part("MARK", 2, &set))]);
        assert_eq!(seen.change.map(|c| c.to_string()), Some("mark = mark & 0xfffdffff ^ 0x20000".to_owned()));
        let inverted = info([1, 1], &[1, 0, 0, 0]);
        let nothing = [
            Expression::Match(part("mark", 1, &inverted)),
            Expression::Match(part("mark", 1, &[0; 7])),
            Expression::Match(part("connmark", 1, &tested)),
            Expression::Target(part("MARK", 2, &[0; 7])),
        ];
        assert_eq!(rule(&nothing), RuleMarks::default(), "an inverted match, another one, and cut ones, say nothing");
    }

    #[test]
    fn a_native_test_counts_only_for_the_register_that_holds_the_mark() {
        let (mask, value) = (0xff_0000_u32.to_ne_bytes(), 0x4_0000_u32.to_ne_bytes());
        let load = || Expression::LoadMeta { key: META_MARK, target: 1 };
        let masked = |source| Expression::Bitwise { source, target: 9, length: 4, change: Some((&mask, &[0; 4])) };
        let compare = |source, operator| Expression::Compare { source, operator, wanted: &value };
        assert_eq!(rule(&[load(), masked(1), compare(9, 0)]).test, Some(TAILSCALE));
        for (other, why) in [
            ([load(), masked(1), compare(1, 0)], "another register is compared"),
            ([load(), masked(2), compare(9, 0)], "another register is masked"),
            ([load(), masked(1), compare(9, 1)], "any mark but this one"),
            ([load(), Expression::LoadCt { key: 0, target: 1 }, compare(1, 0)], "something else is loaded"),
        ] {
            assert_eq!(rule(&other).test, None, "{why}");
        }
        let set = |source| Expression::SetMeta { key: META_MARK, source };
        assert_eq!(rule(&[load(), masked(1), set(9)]).change, Some(Change { keep: 0xff_0000, flip: 0 }));
        assert_eq!(rule(&[load(), masked(1), set(1)]).change, None, "another register becomes the mark");
        let constant = Expression::Immediate { target: 1, value: Value::Bytes(value.to_vec()) };
        assert_eq!(rule(&[constant, set(1)]).change, Some(Change { keep: 0, flip: 0x4_0000 }));
    }
}
