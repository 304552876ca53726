//! Tests one cause, bound to one instance, against the facts of a run.

use super::concern::Concern;
use crate::check::judge::held;
use crate::check::{Facts, Scope, Truth, Verdict};
use crate::def::axis;
use crate::def::playbook::{Cause, Claim, Playbook};
use crate::def::{Catalog, Template};
use crate::report::{CauseState, Diagnosis, Fix, Rival, Support};
use crate::run::Run;
use crate::run::plan::instance_id;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How a cause stands after the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All supports hold and nothing refutes it.
    Supported,
    /// Some support holds, none fails, and some can't be decided.
    Possible,
    /// A support does not hold, or a refuter does: which.
    Out(String),
    /// None of its evidence could be looked at, or something else stands before it.
    Untested(String),
}

/// A tested cause.
#[derive(Clone, Debug)]
pub(super) struct Tested {
    pub(super) code: String,
    pub(super) standing: Standing,
    pub(super) supports: Vec<Support>,
    /// Failing checks that it would explain.
    pub(super) explains: Vec<String>,
    title: String,
    layer: u8,
    playbook: String,
    instance: BTreeMap<String, String>,
    fix: Vec<Fix>,
    verify: Vec<String>,
}

/// A failing check with the codes of the expectations that do not hold.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) id: String,
    pub(super) codes: Vec<String>,
}

/// Tests every cause of every playbook for every instance that the run's troubles may be about.
pub(super) fn all(run: &Run, catalog: &Catalog, failing: &[Failure]) -> Vec<Tested> {
    let inv = catalog.inventory.value();
    let concern = Concern::of(run, catalog);
    let mut tested = Vec::new();
    for playbook in &catalog.playbooks {
        for cause in &playbook.causes {
            for binding in concern.bindings(&cause.each) {
                let mut scope = axis::scope(&binding, &inv);
                if cause.when.as_ref().is_some_and(|w| w.truth(&scope) != Truth::True) {
                    continue;
                }
                bind_facts(cause, run, &mut scope);
                tested.push(test(playbook, cause, &binding, &scope, failing));
            }
        }
    }
    tested
}

/// Binds each alias to the facts of its check instance, with the verdict as `outcome`.
fn bind_facts(cause: &Cause, run: &Run, scope: &mut Scope) {
    for (alias, target) in &cause.facts {
        let id = target.text_or_unknown(scope);
        match run.check(&id) {
            Some(check) if matches!(check.outcome, Verdict::Skip | Verdict::Blocked) || check.attempts == 0 => {
                let reason = check.reason.clone().unwrap_or_default();
                scope.bind_unknown(alias, &format!("{id} is {} ({reason})", check.outcome));
            }
            Some(check) => {
                let facts = Facts::from_json(&check.facts);
                if facts.is_empty() {
                    scope.bind_unknown(alias, &format!("{id}: {}", check.reason.clone().unwrap_or_default()));
                } else {
                    scope.bind_facts(alias, &facts);
                }
                scope.add(alias, "outcome", json!(check.outcome));
            }
            None => {
                scope.bind_unknown(alias, &format!("{id} is not part of this run"));
            }
        }
    }
}

fn test(playbook: &Playbook, cause: &Cause, binding: &axis::Binding, scope: &Scope, failing: &[Failure]) -> Tested {
    let supports: Vec<Support> = cause.supports.iter().map(|c| support(c, scope)).collect();
    let text = |t: &Template| t.text_or_unknown(scope);
    Tested {
        code: cause.code.clone(),
        standing: standing(cause, &supports, scope),
        explains: explained(&cause.explains, scope, failing),
        supports,
        title: text(&cause.title),
        layer: cause.layer,
        playbook: playbook.id.clone(),
        instance: binding.vars.iter().map(|(name, value)| ((*name).to_owned(), name_of(value))).collect(),
        fix: cause
            .fix
            .iter()
            .map(|f| Fix { say: text(&f.say), run: f.run.as_ref().map(text), at: f.at.as_ref().map(text), risk: f.risk.as_ref().map(text) })
            .collect(),
        verify: cause.verify.iter().map(text).collect(),
    }
}

fn support(claim: &Claim, scope: &Scope) -> Support {
    Support {
        that: claim.that.source().to_owned(),
        say: claim.say.text_or_unknown(scope),
        values: claim.that.values(scope),
        held: held(&claim.that.truth(scope)),
    }
}

fn standing(cause: &Cause, supports: &[Support], scope: &Scope) -> Standing {
    if let Some(refuter) = cause.refutes.iter().find(|c| c.that.truth(scope) == Truth::True) {
        return Standing::Out(refuter.say.text_or_unknown(scope));
    }
    if let Some(hidden) = cause.needs.iter().find(|c| c.that.truth(scope) == Truth::False) {
        return Standing::Untested(hidden.say.text_or_unknown(scope));
    }
    if let Some((failed, values)) = supports.iter().find(|s| s.held == Some(false)).map(|s| (s.that.as_str(), &s.values)) {
        let seen: Vec<String> = values.iter().map(|(k, v)| format!("{k} = {}", crate::def::template::show(v))).collect();
        return Standing::Out(format!("`{failed}` does not hold: {}", seen.join(", ")));
    }
    if supports.iter().all(|s| s.held == Some(true)) {
        return Standing::Supported;
    }
    if supports.iter().any(|s| s.held == Some(true)) {
        Standing::Possible
    } else {
        Standing::Untested(undecided(supports).unwrap_or_default())
    }
}

/// What would have to be looked at to decide.
fn undecided(supports: &[Support]) -> Option<String> {
    let open = supports.iter().find(|s| s.held.is_none())?;
    let why = open.values.values().filter_map(Value::as_str).find(|v| v.starts_with("unknown"));
    Some(why.map_or_else(|| format!("`{}` could not be decided", open.that), |why| format!("`{}` could not be decided: {why}", open.that)))
}

impl Tested {
    pub(super) fn undecided(&self) -> Option<String> {
        undecided(&self.supports)
    }

    pub(super) fn diagnosis(&self, state: CauseState, rivals: Vec<Rival>) -> Diagnosis {
        Diagnosis {
            code: self.code.clone(),
            title: self.title.clone(),
            layer: self.layer,
            playbook: self.playbook.clone(),
            instance: self.instance.clone(),
            state,
            supports: self.supports.clone(),
            rivals,
            explains: self.explains.clone(),
            fix: self.fix.clone(),
            verify: self.verify.clone(),
        }
    }
}

fn name_of(value: &Value) -> String {
    let name = value.get("name").or_else(|| value.get("id")).unwrap_or(value);
    name.as_str().map_or_else(|| name.to_string(), str::to_owned)
}

/// The failing checks that patterns such as `pod-echo[*]` or `service[*]#service-not-connecting` cover.
fn explained(patterns: &[Template], scope: &Scope, failing: &[Failure]) -> Vec<String> {
    let patterns: Vec<String> = patterns.iter().map(|p| p.text_or_unknown(scope)).collect();
    failing.iter().filter(|f| patterns.iter().any(|p| covers(p, f))).map(|f| f.id.clone()).collect()
}

/// A pattern with `#code` (or `#code,code`) covers a check only when it fails with that expectation (with some of these) and no other.
fn covers(pattern: &str, failure: &Failure) -> bool {
    match pattern.split_once('#') {
        Some((instance, codes)) => matches(instance, &failure.id) && failure.codes.iter().all(|c| codes.split(',').any(|code| c == code)),
        None => matches(pattern, &failure.id),
    }
}

/// Whether an instance id fits a pattern, in which `*` stands for any text; a check id alone covers all its instances.
pub(crate) fn matches(pattern: &str, id: &str) -> bool {
    pattern == id || if pattern.contains('[') { glob(pattern, id) } else { glob(&instance_id(pattern, "*"), id) }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.strip_prefix(head).is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, covers, matches};

    #[test]
    fn a_pattern_with_codes_covers_nothing_that_fails_otherwise() {
        let failing = |codes: &[&str]| Failure { id: "v[a]".into(), codes: codes.iter().map(|c| (*c).to_owned()).collect() };
        assert!(covers("v[*]#late,slow", &failing(&["slow"])) && covers("v[*]#late,slow", &failing(&["slow", "late"])));
        assert!(!covers("v[*]#late,slow", &failing(&["slow", "lost"])) && !covers("v[*]#late", &failing(&["slow"])));
    }

    #[test]
    fn patterns() {
        assert!(matches("pod-echo[*]", "pod-echo[calypso->tethys]"));
        assert!(matches("pod-echo", "pod-echo[calypso->tethys]"));
        assert!(matches("kube-api", "kube-api"));
        assert!(matches("tcp[*/argilla]", "tcp[calypso/argilla]"));
        assert!(!matches("tcp[*/argilla]", "tcp[calypso/argilla-old]"));
        assert!(!matches("pod-echo[tethys->*]", "pod-echo[calypso->tethys]"));
    }
}
