//! What it means: from the facts of a run to causes, each with its evidence. Pure and synchronous.
//!
//! 1. A failing check whose needs all passed is a root; its dependants are blocked and fold under it.
//! 2. Every cause of every playbook is tested against the facts ([`test`]): supported, possible, or out.
//! 3. The diagnosis is the smallest set of supported causes that explains the failing checks (`cover`). What no cause
//!    explains is listed as unexplained. A cause that could not be tested is never claimed.

mod concern;
#[cfg(test)]
mod recorded;
mod test;

use crate::check::{Grade, Verdict};
use crate::def::Catalog;
use crate::report::{CauseState, CheckReport, Diagnosis, Rival, RivalState};
use crate::run::Run;
pub(crate) use test::matches;
use test::{Failure, Standing, Tested};

/// The causes of a run's failures, and the failing checks that none of them explains.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Supported causes, most explaining first; then possible ones.
    pub diagnoses: Vec<Diagnosis>,
    /// Ids of failing checks without a supported cause.
    pub unexplained: Vec<String>,
}

/// Diagnoses a run as far as it has come.
pub fn diagnose(run: &Run, catalog: &Catalog) -> Findings {
    let failing: Vec<Failure> = run.checks_in_order().filter(|c| c.outcome == Verdict::Fail).map(failure).collect();
    if failing.is_empty() {
        return Findings::default();
    }
    let tested = test::all(run, catalog, &failing);
    let supported: Vec<&Tested> = tested.iter().filter(|t| t.standing == Standing::Supported && !t.explains.is_empty()).collect();
    let chosen = cover(&supported);
    let explained: Vec<&String> = chosen.iter().flat_map(|t| &t.explains).collect();
    let unexplained: Vec<String> = failing.into_iter().map(|f| f.id).filter(|id| !explained.contains(&id)).collect();
    let possible = tested.iter().filter(|t| t.standing == Standing::Possible && t.explains.iter().any(|id| unexplained.contains(id)));
    let mut diagnoses: Vec<Diagnosis> = Vec::new();
    for (t, state) in chosen.iter().map(|t| (*t, CauseState::Supported)).chain(possible.map(|t| (t, CauseState::Possible))) {
        fold_in(&mut diagnoses, t.diagnosis(state, rivals(t, &tested, &chosen)));
    }
    Findings { diagnoses, unexplained }
}

fn failure(check: &CheckReport) -> Failure {
    let codes = check.expectations.iter().filter(|e| e.held == Some(false) && e.grade == Grade::Fail).map(|e| e.code.clone()).collect();
    Failure { id: check.id.clone(), codes }
}

/// One cause seen from several places is one diagnosis: its evidence, effects and steps are put together.
fn fold_in(diagnoses: &mut Vec<Diagnosis>, new: Diagnosis) {
    /// Evidence of more places than this says nothing new.
    const PLACES: usize = 3;
    let Some(known) = diagnoses.iter_mut().find(|d| d.code == new.code && d.state == new.state) else {
        diagnoses.push(new);
        return;
    };
    for (name, value) in new.instance {
        let names = known.instance.entry(name).or_default();
        if !names.split(", ").any(|n| n == value) {
            *names = if names.is_empty() { value } else { format!("{names}, {value}") };
        }
    }
    for support in new.supports {
        let same = known.supports.iter().filter(|s| s.that == support.that);
        if same.clone().count() < PLACES && !same.clone().any(|s| s.say == support.say) {
            known.supports.push(support);
        }
    }
    extend(&mut known.explains, new.explains, |a, b| a == b);
    extend(&mut known.fix, new.fix, |a, b| a.say == b.say && a.run == b.run && a.at == b.at);
    extend(&mut known.verify, new.verify, |a, b| a == b);
    extend(&mut known.rivals, new.rivals, |a, b| a.code == b.code);
}

fn extend<T>(known: &mut Vec<T>, new: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for item in new {
        if !known.iter().any(|k| same(k, &item)) {
            known.push(item);
        }
    }
}

/// The smallest set of causes that explains what they all explain: greedily, the one that explains most first; of
/// equals, the one with more evidence.
fn cover<'a>(supported: &[&'a Tested]) -> Vec<&'a Tested> {
    let mut left: Vec<&Tested> = supported.to_vec();
    let mut chosen: Vec<&Tested> = Vec::new();
    let mut explained: Vec<&String> = Vec::new();
    loop {
        let news = |t: &Tested| t.explains.iter().filter(|id| !explained.contains(id)).count();
        let Some((at, best)) = left.iter().enumerate().max_by_key(|(n, t)| (news(t), t.supports.len(), std::cmp::Reverse(*n))) else {
            break;
        };
        if news(best) == 0 {
            break;
        }
        chosen.push(best);
        explained.extend(&best.explains);
        left.remove(at);
    }
    chosen
}

/// Other causes that could have made the same checks fail, and why they are out. A cause that fits several places is
/// refuted only when it is ruled out in each of them, also where it would explain what the named cause does not.
fn rivals(of: &Tested, all: &[Tested], chosen: &[&Tested]) -> Vec<Rival> {
    let mut rivals: Vec<Rival> = Vec::new();
    for other in all {
        let shares = other.explains.iter().any(|id| of.explains.contains(id));
        let is_chosen = chosen.iter().any(|c| c.code == other.code);
        if !shares || other.code == of.code || is_chosen || rivals.iter().any(|r| r.code == other.code) {
            continue;
        }
        let mut places = all.iter().filter(|t| t.code == other.code && !t.explains.is_empty());
        let open = places.find(|t| !matches!(t.standing, Standing::Out(_)));
        rivals.push(rival(open.unwrap_or(other)));
    }
    rivals
}

fn rival(of: &Tested) -> Rival {
    let (state, because) = match &of.standing {
        Standing::Out(because) => (RivalState::Refuted, because.clone()),
        Standing::Untested(because) => (RivalState::Untested, because.clone()),
        Standing::Possible => (RivalState::Untested, of.undecided().unwrap_or_default()),
        Standing::Supported => (RivalState::Untested, "leaves nothing to explain that the named cause does not explain".to_owned()),
    };
    Rival { code: of.code.clone(), state, because }
}
