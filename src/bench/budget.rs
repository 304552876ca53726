//! What a whole bench may still send. Warm-up, every rung of a ladder and the run itself draw from one budget, so a ceiling
//! is a ceiling on what the server sees, not on a part of it.

use super::drive::Stop;
use super::plan::{Ceilings, Plan};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The ceilings of a bench and what has been used of them.
///
/// A request reserves the most tokens that it can cost before it is sent, and gives back what it did not use when it has
/// ended: requests under way cannot carry the sum over the ceiling.
#[derive(Debug)]
pub struct Budget {
    ceilings: Ceilings,
    until: Instant,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    requests: u32,
    /// Of requests that have ended.
    tokens: u64,
    flying: u64,
    /// The most that one request can cost: the plan's estimate, or more if one did cost more.
    each: u64,
}

impl Budget {
    /// The whole of the plan's ceilings; its time begins now.
    pub fn new(plan: &Plan) -> Self {
        let used = Used { requests: 0, tokens: 0, flying: 0, each: plan.tokens_each() };
        // A ceiling of centuries is none.
        let seconds = plan.ceilings.seconds.clamp(0.0, 1e9);
        Self { ceilings: plan.ceilings, until: Instant::now() + Duration::from_secs_f64(seconds), used: Mutex::new(used) }
    }

    /// When its time is up.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Reserves one request; the error is the ceiling that has no room for it.
    pub fn take(&self) -> Result<(), Stop> {
        let mut used = self.used();
        if used.requests >= self.ceilings.requests {
            return Err(Stop::Requests);
        }
        if used.tokens.saturating_add(used.each.saturating_mul(used.flying + 1)) > self.ceilings.tokens {
            return Err(Stop::Tokens);
        }
        used.requests += 1;
        used.flying += 1;
        Ok(())
    }

    /// A request has ended and has cost this many tokens; the most, where the server did not say.
    pub fn settle(&self, tokens: Option<u64>) {
        let mut used = self.used();
        used.flying = used.flying.saturating_sub(1);
        used.each = used.each.max(tokens.unwrap_or(0));
        used.tokens = used.tokens.saturating_add(tokens.unwrap_or(used.each));
    }

    /// Requests sent, and the tokens of those that have ended.
    pub fn spent(&self) -> (u32, u64) {
        let used = self.used();
        (used.requests, used.tokens)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Load, tests::plan};
    use super::*;

    fn budget(requests: u32, tokens: u64) -> Budget {
        let mut plan = plan(Load::Closed { concurrency: 1 });
        plan.ceilings = Ceilings { requests, tokens, seconds: 1.0 };
        assert_eq!(plan.tokens_each(), 282);
        Budget::new(&plan)
    }

    #[tokio::test]
    async fn requests_under_way_are_reserved_for() {
        let b = budget(100, 3 * 282);
        assert_eq!([b.take(), b.take(), b.take(), b.take()], [Ok(()), Ok(()), Ok(()), Err(Stop::Tokens)]);
        // One that used little makes room for one more, one that did not say makes none.
        b.settle(Some(0));
        assert_eq!((b.take(), b.take()), (Ok(()), Err(Stop::Tokens)));
        b.settle(None);
        assert_eq!((b.take(), b.spent()), (Err(Stop::Tokens), (4, 282)));
    }

    #[tokio::test]
    async fn requests_have_a_ceiling_of_their_own_and_dear_ones_are_learnt_from() {
        let b = budget(2, u64::MAX);
        assert_eq!([b.take(), b.take(), b.take()], [Ok(()), Ok(()), Err(Stop::Requests)]);
        let b = budget(100, 1500);
        assert_eq!(b.take(), Ok(()));
        b.settle(Some(800));
        assert_eq!(b.take(), Err(Stop::Tokens), "what cost 800 once may cost 800 again");
    }
}
