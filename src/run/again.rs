//! Which checks to run again, and why. Pure: it looks at the run so far and at the definitions.

use super::event::Planned;
use super::state::Run;
use super::watch::Change;
use crate::check::Verdict;
use crate::def::Catalog;
use crate::diagnose::matches;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// What to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// What reads the state that has changed, and everything that needs it.
    Changed(Vec<Change>),
    /// Whatever was seen before a moment, so that no verdict is older than that.
    Older(DateTime<Utc>),
    /// These checks, with everything that they wait for or keep waiting.
    Checks {
        /// Instance ids, or patterns as in a cause's `verify`: `pod-echo`, `flannel-peer[calypso->*]`.
        ids: Vec<String>,
        /// Why, as a clause.
        because: String,
    },
}

impl Again {
    /// The instances, in plan order.
    pub fn ids(&self, catalog: &Catalog, run: &Run) -> Vec<String> {
        let chosen = match self {
            Self::Changed(changes) => affected(catalog, run, changes),
            Self::Older(at) => older(run, *at),
            Self::Checks { ids, .. } => related(run, ids),
        };
        undecided(run).filter(|p| chosen.contains(p.id.as_str())).map(|p| p.id.clone()).collect()
    }

    /// Why, as a clause.
    pub fn because(&self) -> String {
        match self {
            Self::Changed(changes) => summary(changes),
            Self::Older(_) => "what was seen before the change".to_owned(),
            Self::Checks { because, .. } => because.clone(),
        }
    }
}

/// The first change in words, and how many more there are.
pub fn summary(changes: &[Change]) -> String {
    match changes {
        [] => "nothing changed".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} and {} more changes", rest.len()),
    }
}

/// Planned checks that really run.
fn undecided(run: &Run) -> impl Iterator<Item = &Planned> {
    run.planned.iter().filter(|p| p.decided.is_none())
}

fn affected<'a>(catalog: &Catalog, run: &'a Run, changes: &[Change]) -> BTreeSet<&'a str> {
    let reads = |p: &Planned, change: &Change| {
        let kind = catalog.check(&p.check).map(|c| c.kind.name);
        kind.is_some_and(|kind| change.what.concerns().contains(&kind)) && looks_at(p, &change.vantage)
    };
    let seeds = undecided(run).filter(|p| changes.iter().any(|c| reads(p, c))).map(|p| p.id.as_str()).collect();
    with_dependants(run, seeds)
}

/// Whether a check looks from a vantage or is about it: `[calypso->tethys]` has a witness on the second one.
fn looks_at(planned: &Planned, vantage: &str) -> bool {
    let label = planned.id.split_once('[').map_or("", |(_, label)| label.trim_end_matches(']'));
    planned.vantage == vantage || label.split("->").flat_map(|part| part.split(['/', ','])).any(|part| part == vantage)
}

fn with_dependants<'a>(run: &'a Run, mut chosen: BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    loop {
        let more: Vec<&str> = undecided(run)
            .filter(|p| !chosen.contains(p.id.as_str()) && p.needs.iter().any(|need| chosen.contains(need.as_str())))
            .map(|p| p.id.as_str())
            .collect();
        if more.is_empty() {
            return chosen;
        }
        chosen.extend(more);
    }
}

/// Began before a moment, or never ran because something else was in the way.
fn older(run: &Run, at: DateTime<Utc>) -> BTreeSet<&str> {
    let old = |p: &&Planned| run.check(&p.id).is_none_or(|c| c.started_at.is_none_or(|began| began < at));
    undecided(run).filter(old).map(|p| p.id.as_str()).collect()
}

fn related<'a>(run: &'a Run, ids: &[String]) -> BTreeSet<&'a str> {
    let mut chosen: BTreeSet<&str> = undecided(run).filter(|p| ids.iter().any(|id| matches(id, &p.id))).map(|p| p.id.as_str()).collect();
    chosen = with_dependants(run, chosen);
    // What they wait for: a need that passed stands.
    loop {
        let passed = |id: &str| run.verdict_of(id).is_some_and(Verdict::lets_dependants_run);
        let more: Vec<&str> = undecided(run)
            .filter(|p| chosen.contains(p.id.as_str()))
            .flat_map(|p| p.needs.iter().map(String::as_str))
            .filter(|need| !chosen.contains(need) && !passed(need))
            .collect();
        if more.is_empty() {
            return chosen;
        }
        chosen.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::Sources;
    use crate::run::watch::What;
    use crate::tui::fixture;

    fn catalog() -> Catalog {
        Catalog::load(&Sources::default()).unwrap()
    }

    /// A run in which these are planned, each from the first name in its brackets.
    fn planned(ids: &[(&str, &[&str])]) -> Run {
        let mut run = Run::fold(&fixture::blocked_vxlan());
        run.planned = ids
            .iter()
            .map(|(id, needs)| Planned {
                id: (*id).to_owned(),
                check: id.split('[').next().unwrap().to_owned(),
                layer: 2,
                title: String::new(),
                vantage: id.split(['[', ']', '-']).find(|part| ["calypso", "tethys"].contains(part)).unwrap_or("tethys").to_owned(),
                needs: needs.iter().map(|need| (*need).to_owned()).collect(),
                decided: None,
            })
            .collect();
        run
    }

    #[test]
    fn a_change_concerns_what_reads_it_and_what_needs_that() {
        let run = planned(&[
            ("flannel-device[calypso]", &[]),
            ("flannel-device[tethys]", &[]),
            ("pod-echo[calypso->tethys]", &[]),
            ("pod-echo[tethys->calypso]", &[]),
            ("dns-search-order[calypso]", &["pod-echo[calypso->tethys]"]),
            ("postgres[tethys]", &[]),
        ]);
        let gone = Change { vantage: "calypso".into(), what: What::Link, gone: true, device: Some("flannel.1".into()) };
        let again = Again::Changed(vec![gone]);
        let wanted = [
            "flannel-device[calypso]",
            "pod-echo[calypso->tethys]",
            // Its witness is on calypso.
            "pod-echo[tethys->calypso]",
            // It needs one of these.
            "dns-search-order[calypso]",
        ];
        assert_eq!(again.ids(&catalog(), &run), wanted);
        assert_eq!(again.because(), "flannel.1 deleted on calypso");
    }

    #[test]
    fn what_a_cause_names_may_be_a_pattern() {
        let run = planned(&[("pod-echo[calypso->tethys]", &[]), ("pod-echo[tethys->calypso]", &[]), ("postgres[tethys]", &[])]);
        let ids = |of: &str| Again::Checks { ids: vec![of.to_owned()], because: String::new() }.ids(&catalog(), &run).len();
        assert_eq!((ids("pod-echo"), ids("pod-echo[tethys->*]"), ids("nothing")), (2, 1, 0));
    }

    #[test]
    fn what_is_older_is_everything_that_began_before() {
        let run = Run::fold(&fixture::blocked_vxlan());
        let all = undecided(&run).count();
        assert_eq!(Again::Older(fixture::at(1_000_000)).ids(&catalog(), &run).len(), all);
        let ids = Again::Older(fixture::at(41)).ids(&catalog(), &run);
        let first = run.checks_in_order().find(|c| c.attempts > 0).unwrap();
        assert!(ids.contains(&first.id) && ids.len() < all, "{ids:?}");
    }

    #[test]
    fn a_blocked_check_comes_with_its_root() {
        let run = Run::fold(&fixture::blocked_vxlan());
        let again = Again::Checks { ids: vec!["pod-echo[calypso>tethys]".into()], because: "asked for".into() };
        let ids = again.ids(&catalog(), &run);
        assert!(ids.contains(&"vxlan-wire[calypso>tethys]".to_owned()), "{ids:?}");
        assert!(!ids.contains(&"postgres[tethys]".to_owned()), "{ids:?}");
    }
}
