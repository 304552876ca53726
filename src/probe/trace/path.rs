//! From single packets to a path. Pure.

use super::shot::{Answer, Shot};
use crate::probe::errqueue::Refusal;
use crate::probe::net::ms;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A path as far as somebody answers.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// One for each distance, up to the farthest that answered.
    pub(super) hops: Vec<Hop>,
    /// Who refuses to pass packets on, or to take them.
    pub(super) refusal: Option<Refusal>,
    /// Errno of the own kernel, if it took no packet at all.
    pub(super) error: String,
    reached: bool,
}

/// What is at one distance.
#[derive(Debug, Default)]
pub(super) struct Hop {
    /// The distance.
    pub(super) ttl: u8,
    /// Packets sent for it.
    pub(super) sent: usize,
    /// Who answered first.
    pub(super) address: Option<Ipv4Addr>,
    /// Times of the answers, in order.
    rtts: Vec<Duration>,
}

impl Path {
    /// The path that packets to a target took.
    pub(super) fn of(target: Ipv4Addr, shots: &[Shot]) -> Self {
        let distance = shots.iter().filter(|s| s.answer == Answer::Target).map(|s| s.ttl).min();
        let refused = shots.iter().filter(|s| matches!(s.answer, Answer::Refused(_))).min_by_key(|s| s.ttl);
        // What was sent farther than the end of the path arrived there too, and tells nothing new.
        let end = [distance, refused.map(|s| s.ttl)].into_iter().flatten().min();
        let mut path = Self { reached: distance.is_some() && distance == end, error: error(shots), ..Self::default() };
        path.refusal = refused.filter(|s| Some(s.ttl) == end).and_then(|s| match s.answer {
            Answer::Refused(refusal) => Some(refusal),
            _ => None,
        });
        // The target may also refuse by itself.
        path.reached |= path.refusal.is_some_and(|r| r.from == Some(target));
        let farthest = shots.iter().map(|s| s.ttl).max().unwrap_or(0);
        path.hops = (1..=end.unwrap_or(farthest)).map(|ttl| Hop::of(ttl, target, shots)).collect();
        while path.hops.last().is_some_and(|h| h.rtts.is_empty()) {
            path.hops.pop();
        }
        path
    }

    /// The farthest hop that answered.
    pub(super) fn last(&self) -> Option<&Hop> {
        self.hops.last()
    }

    /// The target, if it answered.
    pub(super) fn target(&self) -> Option<&Hop> {
        self.last().filter(|_| self.reached)
    }

    /// Hops on the way that answered nothing.
    pub(super) fn silent(&self) -> usize {
        self.hops.iter().filter(|h| h.rtts.is_empty()).count()
    }

    /// Hops that answered some packets only although everything behind one of the hops beyond them answered.
    pub(super) fn limited(&self) -> Vec<Ipv4Addr> {
        let partly = |h: &Hop| !h.rtts.is_empty() && h.loses();
        let before_a_whole_one = |at: usize| self.hops[at + 1..].iter().any(|h| !h.loses());
        self.hops.iter().enumerate().filter(|(at, h)| partly(h) && before_a_whole_one(*at)).filter_map(|(_, h)| h.address).collect()
    }

    /// Packets that the target did not answer.
    pub(super) fn loss_percent(&self) -> usize {
        self.target().map_or(100, |h| ((h.sent - h.rtts.len()) * 100).div_ceil(h.sent.max(1)))
    }

    /// The nearest hop from which on every hop loses packets, up to a target that answers some.
    pub(super) fn loss_from(&self) -> Option<Ipv4Addr> {
        self.target()?;
        self.hops.iter().rev().take_while(|h| h.loses()).filter_map(|h| h.address).last()
    }

    /// Whether packets go round in circles: a router comes back twice, at equal distances, and nothing gets to the target.
    /// Once is not enough: load balancers send packets over paths of different lengths.
    pub(super) fn loops(&self) -> bool {
        let is = |ttl: u8, address: Ipv4Addr| self.hops.iter().any(|h| h.ttl == ttl && h.address == Some(address));
        let comes_back =
            |h: &Hop, period: u8| h.address.is_some_and(|a| is(h.ttl + period, a) && is(h.ttl + 2 * period, a) && !is(h.ttl + 1, a));
        let farthest = self.hops.len() as u8;
        !self.reached && self.hops.iter().any(|h| (2..=farthest / 2).any(|period| comes_back(h, period)))
    }
}

/// The errno, if no packet at all was taken.
fn error(shots: &[Shot]) -> String {
    let words = shots.iter().map(|s| if let Answer::NotSent(word) = &s.answer { Some(word) } else { None });
    words.collect::<Option<Vec<_>>>().and_then(|all| all.first().map(|w| (*w).clone())).unwrap_or_default()
}

impl Hop {
    fn of(ttl: u8, target: Ipv4Addr, shots: &[Shot]) -> Self {
        let mut hop = Self { ttl, ..Self::default() };
        for shot in shots.iter().filter(|s| s.ttl == ttl && !matches!(s.answer, Answer::NotSent(_))) {
            hop.sent += 1;
            let from = match &shot.answer {
                Answer::Target => Some(target),
                Answer::Expired(from) => Some(*from),
                Answer::Refused(refusal) => refusal.from,
                Answer::Silence | Answer::NotSent(_) => None,
            };
            if from.is_some() {
                hop.address = hop.address.or(from);
                hop.rtts.push(shot.after);
            }
        }
        hop.rtts.sort_unstable();
        hop
    }

    /// Median round trip, if there was an answer.
    pub(super) fn median(&self) -> Option<Duration> {
        self.rtts.get(self.rtts.len() / 2).copied()
    }

    fn loses(&self) -> bool {
        self.rtts.len() < self.sent
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, self.median()) {
            (Some(address), Some(median)) => write!(f, "{} {address} {}/{} {} ms", self.ttl, self.rtts.len(), self.sent, ms(median)),
            _ => write!(f, "{} * 0/{}", self.ttl, self.sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn hop(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n)
    }

    /// Three packets for each distance: a digit is the hop that answers, `T` the target, `R` a refusal of the target's router,
    /// `.` silence.
    fn path(rows: &[&str]) -> Path {
        let refusal = Refusal { from: Some(hop(2)), kind: 3, code: 13, mtu: 0, errno: 113 };
        let answer = |c: char| match c {
            'T' => Answer::Target,
            'R' => Answer::Refused(refusal),
            '.' => Answer::Silence,
            '!' => Answer::NotSent("ENETUNREACH".to_owned()),
            digit => Answer::Expired(hop(digit.to_digit(10).unwrap() as u8)),
        };
        let shots: Vec<Shot> = rows
            .iter()
            .zip(1_u8..)
            .flat_map(|(row, ttl)| row.chars().map(move |c| (c, ttl)))
            .map(|(c, ttl)| Shot { ttl, answer: answer(c), after: Duration::from_millis(u64::from(ttl)) })
            .collect();
        Path::of(TARGET, &shots)
    }

    #[test]
    fn a_hop_that_limits_its_errors_loses_nothing() {
        let limited = path(&["111", "2..", "TTT", "TTT"]);
        assert_eq!((limited.limited(), limited.loss_percent(), limited.loss_from()), (vec![hop(2)], 0, None));
        let silent = path(&["111", "...", "TTT", "TTT"]);
        assert_eq!((silent.limited(), silent.silent(), silent.loss_percent()), (vec![], 1, 0));
        assert_eq!(silent.target().map(|h| h.ttl), Some(3));
        assert_eq!(silent.hops[1].to_string(), "2 * 0/3");
    }

    #[test]
    fn loss_counts_from_where_it_stays() {
        let lossy = path(&["111", "22.", "3.3", "T.."]);
        assert_eq!((lossy.loss_percent(), lossy.loss_from(), lossy.limited()), (67, Some(hop(2)), vec![]));
        // Hop 1 loses too, but hop 2 answers everything: only the end of the path loses.
        let end = path(&["1..", "222", "T.."]);
        assert_eq!((end.loss_from(), end.limited()), (Some(TARGET), vec![hop(1)]));
    }

    #[test]
    fn a_path_that_ends() {
        let ends = path(&["111", "222", "...", "..."]);
        assert_eq!((ends.last().map(|h| h.ttl), ends.target().is_none(), ends.loss_percent()), (Some(2), true, 100));
        assert_eq!((ends.silent(), ends.loss_from(), ends.hops.len()), (0, None, 2));
        let refused = path(&["111", "RRR", "RRR", "RRR"]);
        assert_eq!((refused.refusal.map(|r| r.code), refused.target().is_none(), refused.hops.len()), (Some(13), true, 2));
        let nobody = path(&["...", "..."]);
        assert_eq!((nobody.last().is_none(), nobody.error.as_str()), (true, ""));
        let unsent = path(&["!!!", "!!!"]);
        assert_eq!((unsent.last().is_none(), unsent.error.as_str()), (true, "ENETUNREACH"));
    }

    #[test]
    fn a_router_that_keeps_coming_back_is_a_loop() {
        assert!(path(&["111", "222", "333", "222", "333", "222"]).loops());
        assert!(path(&["111", "222", "333", "2..", "...", "222"]).loops());
        // Over paths of different lengths one may be met again.
        assert!(!path(&["111", "222", "333", "222", "444"]).loops());
        // One that answers twice in a row is none, nor is whatever gets there.
        assert!(!path(&["111", "111", "111", "111", "111"]).loops());
        assert!(!path(&["111", "222", "111", "222", "111", "TTT"]).loops());
    }
}
