//! From an observation to a verdict. Pure.

use super::{Expectation, Grade, Observation, Scope, Truth, Verdict};
use crate::report::ExpectationReport;

/// A verdict with its reason and every expectation judged.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The sentence that explains a verdict other than pass.
    pub reason: Option<String>,
    /// Every expectation.
    pub expectations: Vec<ExpectationReport>,
}

/// Judges an observation: a failure that was seen outweighs what could not be seen, and that outweighs a warning.
pub fn judge(observation: &Observation, root: &str, bindings: &Scope, expectations: &[Expectation]) -> Judgement {
    let mut scope = bindings.clone();
    scope.bind_facts(root, &observation.facts);
    if let Some(reason) = &observation.could_not_look {
        scope.bind_unknown(root, reason);
    }
    let mut worst = Verdict::Pass;
    let mut reason = observation.could_not_look.clone();
    let mut reports = Vec::new();
    for expectation in expectations {
        let truth = if observation.could_not_look.is_some() {
            Truth::Unknown(reason.clone().unwrap_or_default())
        } else {
            expectation.that.truth(&scope)
        };
        let say = expectation.say.text_or_unknown(&scope);
        let (verdict, why) = match &truth {
            Truth::True => (Verdict::Pass, None),
            Truth::False if expectation.grade == Grade::Warn => (Verdict::Warn, Some(say.clone())),
            Truth::False => (Verdict::Fail, Some(say.clone())),
            Truth::Unknown(why) => (Verdict::Unknown, Some(why.clone())),
        };
        if weight(verdict) > weight(worst) {
            worst = verdict;
            reason = why;
        }
        reports.push(ExpectationReport {
            that: expectation.that.source().to_owned(),
            code: expectation.code.clone(),
            say,
            grade: expectation.grade,
            held: held(&truth),
            values: expectation.that.values(&scope),
        });
    }
    Judgement { verdict: worst, reason, expectations: reports }
}

/// Whether a truth is decided.
pub fn held(truth: &Truth) -> Option<bool> {
    match truth {
        Truth::True => Some(true),
        Truth::False => Some(false),
        Truth::Unknown(_) => None,
    }
}

fn weight(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fail => 3,
        Verdict::Unknown => 2,
        Verdict::Warn => 1,
        _ => 0,
    }
}
