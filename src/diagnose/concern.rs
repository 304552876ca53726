//! What a run's troubles are about: in a large inventory causes are tested for that alone, so that the work grows with what
//! failed and not with the square of the nodes.

use crate::check::Verdict;
use crate::def::axis::{self, Axis, Binding};
use crate::def::{Catalog, Inventory};
use crate::report::{CheckReport, VantageReport};
use crate::run::Run;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A cause with at most so many bindings is tested for each of them: also the healthy ones refute something.
const FEW: usize = 128;
/// A list of services, databases, servers with at most so many is small enough to be kept whole.
const SHORT: usize = 16;

/// The bindings for which a run's causes are tested.
pub(super) struct Concern<'a> {
    run: &'a Run,
    inventory: &'a Inventory,
    /// One small inventory for each set of things that some trouble is about, and its vantages; made when it is needed.
    parts: OnceCell<Vec<(Inventory, Vec<VantageReport>)>>,
}

impl<'a> Concern<'a> {
    pub(super) fn of(run: &'a Run, catalog: &'a Catalog) -> Self {
        Self { run, inventory: &catalog.inventory, parts: OnceCell::new() }
    }

    /// Those of a cause with these axes.
    pub(super) fn bindings(&self, axes: &[Axis]) -> Vec<Binding> {
        if axis::count(axes, self.inventory, self.run.vantages.len()) <= FEW {
            return axis::bindings(axes, self.inventory, &self.run.vantages);
        }
        let mut known = HashSet::new();
        let parts = self.parts.get_or_init(|| parts(self.run, self.inventory));
        let all = parts.iter().flat_map(|(part, vantages)| axis::bindings(axes, part, vantages));
        all.filter(|binding| known.insert(binding.label.clone())).collect()
    }
}

fn parts(run: &Run, inventory: &Inventory) -> Vec<(Inventory, Vec<VantageReport>)> {
    let index = Index::of(run, inventory);
    let troubles = run.checks_in_order().filter(|c| matches!(c.outcome, Verdict::Fail | Verdict::Blocked | Verdict::Warn));
    let sets: BTreeSet<BTreeSet<&str>> = troubles.map(|check| index.named(check)).collect();
    sets.iter().map(|names| index.part(names)).collect()
}

/// The things of an inventory and the vantages of a run, by name.
struct Index<'a> {
    inventory: &'a Inventory,
    nodes: HashMap<&'a str, usize>,
    pods: HashMap<&'a str, usize>,
    vantages: HashMap<&'a str, &'a VantageReport>,
    first: Option<&'a VantageReport>,
    /// The inventory without nodes, pods and what there is much of.
    rest: Inventory,
}

impl<'a> Index<'a> {
    fn of(run: &'a Run, inventory: &'a Inventory) -> Self {
        let mut rest = inventory.clone();
        rest.nodes.clear();
        rest.pods.clear();
        shorten(&mut rest.services);
        shorten(&mut rest.databases);
        shorten(&mut rest.https);
        shorten(&mut rest.vllms);
        Self {
            inventory,
            nodes: inventory.nodes.iter().enumerate().map(|(n, node)| (node.name.as_str(), n)).collect(),
            pods: inventory.pods.iter().enumerate().map(|(n, pod)| (pod.name.as_str(), n)).collect(),
            vantages: run.vantages.iter().map(|v| (v.id.as_str(), v)).collect(),
            first: run.vantages.first(),
            rest,
        }
    }

    /// What a check is about: the names in its brackets and where it looked from, the nodes of pods among them, and the exit node,
    /// through which everything leaves.
    fn named<'b>(&self, check: &'b CheckReport) -> BTreeSet<&'b str>
    where
        'a: 'b,
    {
        let label = check.id.split_once('[').map_or("", |(_, label)| label.trim_end_matches(']'));
        // A pod's vantage holds a slash itself.
        let mut names: BTreeSet<&'b str> = label.split("->").flat_map(|part| part.split(['/', ','])).collect();
        names.insert(&check.vantage);
        let nodes: Vec<&'a str> = names
            .iter()
            .flat_map(|name| {
                let of_pod = self.pods.get(name).map(|n| self.inventory.pods[*n].node.as_str());
                let of_vantage = self.vantages.get(name).and_then(|v| v.node.as_deref());
                of_pod.into_iter().chain(of_vantage)
            })
            .collect();
        names.extend(nodes);
        names.extend(self.first.map(|v| v.id.as_str()));
        names.extend(self.inventory.tailnet.exit_node.as_deref());
        names
    }

    /// The inventory and the vantages as far as they have these names.
    fn part(&self, names: &BTreeSet<&str>) -> (Inventory, Vec<VantageReport>) {
        let at = |index: &HashMap<&str, usize>| -> BTreeSet<usize> { names.iter().filter_map(|name| index.get(name)).copied().collect() };
        let mut part = self.rest.clone();
        part.nodes = at(&self.nodes).into_iter().map(|n| self.inventory.nodes[n].clone()).collect();
        part.pods = at(&self.pods).into_iter().map(|n| self.inventory.pods[n].clone()).collect();
        let all = self.inventory;
        keep(&mut part.services, &all.services, |s| names.contains(s.name.as_str()));
        keep(&mut part.databases, &all.databases, |d| names.contains(d.name.as_str()));
        keep(&mut part.https, &all.https, |h| names.contains(h.name.as_str()));
        keep(&mut part.vllms, &all.vllms, |v| names.contains(v.name.as_str()));
        let others = names.iter().filter_map(|name| self.vantages.get(name)).filter(|v| self.first.is_none_or(|first| first.id != v.id));
        (part, self.first.into_iter().chain(others.copied()).cloned().collect())
    }
}

/// Empties a long list.
fn shorten<T>(list: &mut Vec<T>) {
    if list.len() > SHORT {
        list.clear();
    }
}

/// Of a list that was emptied for its length, what is concerned.
fn keep<T: Clone>(part: &mut Vec<T>, all: &[T], concerned: impl Fn(&T) -> bool) {
    if part.is_empty() {
        part.extend(all.iter().filter(|item| concerned(item)).cloned());
    }
}
