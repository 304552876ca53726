//! From definitions to check instances: which, from where, after which, and which not and why. Pure and synchronous.

use super::event::Planned;
use crate::check::{Expectation, Scope, Truth, Verdict};
use crate::def::axis::{self, Binding};
use crate::def::near;
use crate::def::{Catalog, CheckDef, Playbook, load_with};
use crate::probe::Probe;
use crate::report::VantageReport;
use crate::vantage::{Transport, Vantage};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What to run; empty lists mean everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Check ids.
    pub checks: Vec<String>,
    /// Layers.
    pub layers: Vec<u8>,
    /// Playbook ids: their checks.
    pub playbooks: Vec<String>,
}

/// Everything that will run.
pub struct Plan {
    /// Check instances in report order.
    pub instances: Vec<Instance>,
    /// The vantages of the run.
    pub vantages: Vec<Arc<Vantage>>,
}

/// One check bound to its node, pair, service, ... and vantage.
pub struct Instance {
    /// `check[label]`.
    pub id: String,
    /// Check id.
    pub check: String,
    /// Layer.
    pub layer: u8,
    /// Title, filled in.
    pub title: String,
    /// The facts' root variable.
    pub root: &'static str,
    /// Vantage id.
    pub vantage: String,
    /// What to do.
    pub work: Work,
    /// Instances that must pass first.
    pub needs: Vec<String>,
    /// Variables for expectations.
    pub bindings: Scope,
    /// Expectations.
    pub expectations: Vec<Expectation>,
    /// How a person would look.
    pub by_hand: Option<String>,
    /// Deadline of the probe.
    pub timeout: Duration,
}

/// What an instance comes to.
pub enum Work {
    /// Look.
    Probe {
        /// The probe with its arguments.
        probe: Box<dyn Probe>,
        /// From where.
        vantage: Arc<Vantage>,
        /// Who watches meanwhile.
        witness: Option<Arc<Vantage>>,
    },
    /// Not meaningful here, with the reason.
    Skip(String),
}

impl Plan {
    /// Makes the plan. The error is one sentence about what was asked for.
    pub fn make(catalog: &Catalog, vantages: &[Arc<Vantage>], filter: &Filter) -> Result<Self, String> {
        let wanted = wanted(catalog, filter)?;
        let inv = catalog.inventory.value();
        let named = named(catalog, filter, vantages);
        let reports: Vec<_> = vantages.iter().map(|v| vantage_report(v)).collect();
        let mut instances = Vec::new();
        for check in catalog.checks.iter().filter(|c| wanted.contains(c.id.as_str())) {
            for binding in axis::bindings(&check.each, &catalog.inventory, &reports) {
                let unasked = check.on_request.as_ref().filter(|_| !named(check));
                instances.push(instance(check, &binding, &inv, vantages, unasked)?);
            }
        }
        let known: BTreeSet<String> = instances.iter().map(|i| i.id.clone()).collect();
        for instance in &mut instances {
            instance.needs.retain(|need| known.contains(need));
        }
        Ok(Self { instances, vantages: vantages.to_vec() })
    }

    /// The same plan with these instances alone.
    pub fn only(mut self, ids: &[String]) -> Self {
        let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        self.instances.retain(|i| ids.contains(i.id.as_str()));
        self
    }

    /// The plan as the first event tells it.
    pub fn outline(&self) -> Vec<Planned> {
        self.instances
            .iter()
            .map(|i| Planned {
                id: i.id.clone(),
                check: i.check.clone(),
                layer: i.layer,
                title: i.title.clone(),
                vantage: i.vantage.clone(),
                needs: i.needs.clone(),
                decided: matches!(i.work, Work::Skip(_)).then_some(Verdict::Skip),
            })
            .collect()
    }

    /// The vantages as reports name them.
    pub fn vantage_reports(&self) -> Vec<VantageReport> {
        self.vantages.iter().map(|v| vantage_report(v)).collect()
    }
}

fn vantage_report(v: &Vantage) -> VantageReport {
    VantageReport { id: v.id.clone(), kind: v.kind, transport: v.transport, why: v.why.clone(), node: v.node.clone() }
}

/// Ids of the checks that a filter asks for, and of those they need.
fn wanted<'a>(catalog: &'a Catalog, filter: &Filter) -> Result<BTreeSet<&'a str>, String> {
    let mut asked: Vec<&str> = Vec::new();
    for id in &filter.checks {
        match catalog.check(id.split('[').next().unwrap_or(id)) {
            Some(check) => asked.push(&check.id),
            None => {
                let hint = near::hint(id.split('[').next().unwrap_or(id), catalog.checks.iter().map(|c| c.id.as_str()));
                return Err(format!("there is no check `{id}`{hint}; `fathom list` names them all"));
            }
        }
    }
    for id in &filter.playbooks {
        match catalog.playbooks.iter().find(|p| p.id == *id) {
            Some(playbook) => asked.extend(playbook.checks.iter().map(String::as_str)),
            None => {
                let hint = near::hint(id, catalog.playbooks.iter().map(|p| p.id.as_str()));
                return Err(format!("there is no playbook `{id}`{hint}; `fathom list` names them all"));
            }
        }
    }
    if filter.checks.is_empty() && filter.playbooks.is_empty() {
        asked.extend(catalog.checks.iter().map(|c| c.id.as_str()));
    }
    let mut wanted = BTreeSet::new();
    let mut queue = asked;
    queue.retain(|id| filter.layers.is_empty() || catalog.check(id).is_some_and(|c| filter.layers.contains(&c.layer)));
    // Nothing would be looked at, and the exit code would say that nothing failed.
    if queue.is_empty() && !filter.layers.is_empty() {
        let layers: Vec<String> = filter.layers.iter().map(u8::to_string).collect();
        return Err(format!("no check that was asked for is in layer {}", layers.join(" or ")));
    }
    while let Some(id) = queue.pop() {
        if let Some(check) = catalog.check(id)
            && wanted.insert(check.id.as_str())
        {
            let needs = check.needs.iter().filter_map(|n| n.text_or_unknown(&Scope::new()).split('[').next().map(str::to_owned));
            queue.extend(needs.filter_map(|n| catalog.check(&n).map(|c| c.id.as_str())));
        }
    }
    Ok(wanted)
}

/// Whether a check that disturbs its target was asked for by name. In the twin there is nobody to disturb.
fn named<'a>(catalog: &'a Catalog, filter: &'a Filter, vantages: &[Arc<Vantage>]) -> impl Fn(&CheckDef) -> bool + 'a {
    let twin = !vantages.is_empty() && vantages.iter().all(|v| v.transport == Transport::Twin);
    let playbooks: Vec<&Playbook> = catalog.playbooks.iter().filter(|p| filter.playbooks.contains(&p.id)).collect();
    move |check| {
        let by_id = filter.checks.iter().any(|id| id.split('[').next() == Some(check.id.as_str()));
        twin || by_id || playbooks.iter().any(|p| p.checks.contains(&check.id))
    }
}

fn instance(
    check: &CheckDef,
    binding: &Binding,
    inv: &Arc<serde_json::Value>,
    vantages: &[Arc<Vantage>],
    unasked: Option<&String>,
) -> Result<Instance, String> {
    let scope = axis::scope(binding, inv);
    let id = instance_id(&check.id, &binding.label);
    let text = |t: &crate::def::Template| t.text(&scope).map_err(|e| format!("{}: {id}: {e}", check.document.path));
    let from = text(&check.from)?;
    let witness = check.witness.as_ref().map(&text).transpose()?;
    let find = |id: &str| vantages.iter().find(|v| v.id == id).cloned();
    let unasked = unasked.map(|why| format!("{why}: ask for it by name, `fathom check {}`", check.id));
    let work = match (makes_no_sense(check, &scope).or(unasked), find(&from)) {
        (Some(reason), _) => Work::Skip(reason),
        (None, None) => Work::Skip(format!("can be seen only from {from}: run with --from {from}")),
        (None, Some(vantage)) => {
            let with = load_with(&check.with, &scope).map_err(|e| format!("{}: {id}: {e}", check.document.path))?;
            let probe = (check.kind.decode)(&with).map_err(|e| format!("{}: {id}: {e}", check.document.path))?;
            Work::Probe { probe, vantage, witness: witness.as_deref().and_then(find) }
        }
    };
    Ok(Instance {
        title: check.title.text_or_unknown(&scope),
        needs: check.needs.iter().map(&text).collect::<Result<_, _>>()?,
        by_hand: check.by_hand.as_ref().map(|t| t.text_or_unknown(&scope)),
        expectations: check
            .expects
            .iter()
            .map(|e| Expectation { that: e.that.clone(), code: e.code.clone(), say: e.say.clone(), grade: e.grade })
            .collect(),
        id,
        check: check.id.clone(),
        layer: check.layer,
        root: check.kind.root,
        vantage: from,
        work,
        bindings: scope,
        timeout: check.timeout,
    })
}

/// Why a check is skipped where its `when` does not hold, or cannot be told to.
fn makes_no_sense(check: &CheckDef, scope: &Scope) -> Option<String> {
    let when = check.when.as_ref().filter(|when| when.truth(scope) != Truth::True)?;
    Some(check.skip.as_ref().map_or_else(|| format!("only where {}", when.source()), |s| s.text_or_unknown(scope)))
}

/// `check[label]`, or `check` alone.
pub fn instance_id(check: &str, label: &str) -> String {
    if label.is_empty() { check.to_owned() } else { format!("{check}[{label}]") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::Sources;
    use crate::vantage::{HostFiles, Net, VantageKind};

    /// Why the instance of a check on calypso is skipped, if it is.
    fn skipped(filter: &Filter, transport: Transport) -> Option<String> {
        let catalog = Catalog::load(&Sources::default()).unwrap();
        let calypso = Vantage {
            id: "calypso".into(),
            kind: VantageKind::Node,
            transport,
            why: String::new(),
            node: Some("calypso".into()),
            net: Net::Here,
            files: HostFiles::default(),
        };
        let plan = Plan::make(&catalog, &[Arc::new(calypso)], filter).unwrap();
        let instance = plan.instances.into_iter().find(|i| i.id == "ocr-page[calypso/deepseek-ocr]").unwrap();
        if let Work::Skip(why) = instance.work { Some(why) } else { None }
    }

    #[test]
    fn what_disturbs_its_target_runs_only_when_it_is_named() {
        let why = skipped(&Filter::default(), Transport::Local).unwrap();
        assert!(why.contains("`fathom check ocr-page`"), "{why}");
        for filter in [
            Filter { checks: vec!["ocr-page".into()], ..Filter::default() },
            Filter { checks: vec!["ocr-page[calypso/deepseek-ocr]".into()], ..Filter::default() },
            Filter { playbooks: vec!["model-server".into()], ..Filter::default() },
        ] {
            assert_eq!(skipped(&filter, Transport::Local), None, "{filter:?}");
        }
        assert_eq!(
            skipped(&Filter { layers: vec![4], ..Filter::default() }, Transport::Local),
            skipped(&Filter::default(), Transport::Local)
        );
        assert_eq!(skipped(&Filter::default(), Transport::Twin), None);
    }
}
