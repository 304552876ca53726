//! What is wrong with definitions although each file decodes: names that nothing offers, arguments that do not fit.

mod network;

use super::axis::{self, Axis};
use super::check::CheckDef;
use super::document::{Document, Finding, Step};
use super::inventory::Inventory;
use super::load::Catalog;
use super::playbook::{Cause, Playbook};
use super::template::Template;
use crate::check::{Expr, Scope};
use crate::report::VantageReport;
use crate::vantage::{Transport, VantageKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that is wrong between the files of a catalogue.
pub fn catalog(catalog: &Catalog) -> Vec<Finding> {
    let inv = catalog.inventory.value();
    let mut findings = Vec::new();
    for check in &catalog.checks {
        findings.extend(lint_check(check, catalog, &inv));
    }
    let mut codes: BTreeMap<&str, &str> = BTreeMap::new();
    for playbook in &catalog.playbooks {
        findings.extend(lint_playbook(playbook, catalog, &inv));
        for (n, cause) in playbook.causes.iter().enumerate() {
            // Within one playbook a cause may be proven in more than one way, from different places.
            if let Some(other) = codes.insert(&cause.code, &playbook.id).filter(|other| *other != playbook.id) {
                let line = playbook.document.line_of(&[Step::Key("cause"), Step::At(n), Step::Key("code")]);
                findings.push(playbook.document.finding(line, format!("cause `{}` is already defined in playbook `{other}`", cause.code)));
            }
        }
    }
    findings
}

/// What an inventory's fields say about each other.
pub fn inventory(inv: &Inventory, doc: &Document) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |steps: &[Step<'_>], message: String| findings.push(doc.finding(doc.line_of(steps), message));
    if let Some(exit) = &inv.tailnet.exit_node
        && inv.node(exit).is_none()
    {
        wrong(&[Step::Key("tailnet"), Step::Key("exit_node")], format!("exit node `{exit}` is not a node of this inventory"));
    }
    addresses(inv, &mut wrong);
    network::lint(inv, &mut wrong);
    for (kind, n, reach) in reaches(inv) {
        if !reach.starts_with("netns:") {
            wrong(&[Step::Key(kind), Step::At(n), Step::Key("reach")], format!("reach `{reach}` is not understood: it must be netns:NAME"));
        }
    }
    findings
}

/// Pods run on nodes of the inventory, and addresses lie in the ranges that it gives them.
fn addresses(inv: &Inventory, wrong: &mut impl FnMut(&[Step<'_>], String)) {
    for (n, pod) in inv.pods.iter().enumerate() {
        match inv.node(&pod.node) {
            None => wrong(
                &[Step::Key("pod"), Step::At(n), Step::Key("node")],
                format!("pod `{}` runs on `{}`, which is no node", pod.name, pod.node),
            ),
            Some(node) if !node.pod_cidr.contains(&pod.address) => wrong(
                &[Step::Key("pod"), Step::At(n), Step::Key("address")],
                format!("pod `{}` has {}, outside of {}'s {}", pod.name, pod.address, node.name, node.pod_cidr),
            ),
            Some(_) => {}
        }
    }
    for (n, service) in inv.services.iter().enumerate() {
        if let Some(ip) = service.cluster_ip.filter(|ip| !inv.cluster.service_cidr.contains(ip)) {
            wrong(
                &[Step::Key("service"), Step::At(n), Step::Key("cluster_ip")],
                format!("service `{}` has {ip}, outside of {}", service.name, inv.cluster.service_cidr),
            );
        }
    }
}

fn reaches(inv: &Inventory) -> impl Iterator<Item = (&'static str, usize, &String)> {
    let nodes = inv.nodes.iter().enumerate().filter_map(|(n, x)| Some(("node", n, x.reach.as_ref()?)));
    let pods = inv.pods.iter().enumerate().filter_map(|(n, x)| Some(("pod", n, x.reach.as_ref()?)));
    let others = inv.vantages.iter().enumerate().filter_map(|(n, x)| Some(("vantage", n, x.reach.as_ref()?)));
    nodes.chain(pods).chain(others)
}

/// One vantage of each kind that the inventory can offer, to fill templates in without a run.
fn sample_vantages(inv: &Inventory) -> Vec<VantageReport> {
    let report = |id: String, kind, node: Option<String>| VantageReport { id, kind, transport: Transport::Local, why: String::new(), node };
    let nodes = inv.nodes.iter().map(|n| report(n.name.clone(), VantageKind::Node, Some(n.name.clone())));
    let pods = inv.pods.iter().map(|p| report(format!("pod:{}/{}", p.namespace, p.name), VantageKind::Pod, Some(p.node.clone())));
    let others = inv.vantages.iter().map(|v| report(v.name.clone(), v.kind, None));
    nodes.chain(pods).chain(others).collect()
}

fn lint_check(check: &CheckDef, catalog: &Catalog, inv: &Arc<Value>) -> Vec<Finding> {
    let doc = &check.document;
    let mut findings = Vec::new();
    let mut wrong = |steps: &[Step<'_>], message: String| findings.push(doc.finding(doc.line_of(steps), message));
    if let Some(name) = check.each.iter().flat_map(|a| a.names()).find(|n| **n == check.kind.root) {
        wrong(&[Step::Key("each")], format!("`{name}` would name both the facts and what the check is multiplied by"));
    }
    for key in check.with.keys() {
        if !check.kind.args.iter().any(|(name, _)| name == key) {
            let known: Vec<_> = check.kind.args.iter().map(|(name, _)| *name).collect();
            wrong(
                &[Step::Key("with"), Step::Key(key)],
                format!("probe kind `{}` takes no `{key}`; it takes {}", check.kind.name, known.join(", ")),
            );
        }
    }
    for (n, expect) in check.expects.iter().enumerate() {
        for (key, exprs) in [("that", vec![&expect.that]), ("say", expect.say.expressions().collect())] {
            for message in exprs.into_iter().filter_map(|e| unknown_name(e, &check.each, &[(check.kind.root, check)], inv)) {
                wrong(&[Step::Key("expect"), Step::At(n), Step::Key(key)], message);
            }
        }
    }
    for need in &check.needs {
        if let Some(message) = no_such_check(need, catalog) {
            wrong(&[Step::Key("needs")], message);
        }
    }
    if findings.is_empty() {
        findings.extend(arguments(check, catalog, inv));
    }
    findings
}

/// Entries of each list of a large inventory for which arguments are decoded: pairs of thousands would take minutes. What is wrong
/// with one of the others is told where a run is planned.
const SAMPLE: usize = 16;

fn sample(inv: &Inventory) -> Inventory {
    let mut few = inv.clone();
    few.nodes.truncate(SAMPLE);
    few.pods.truncate(SAMPLE);
    few.vantages.truncate(SAMPLE);
    few.services.truncate(SAMPLE);
    few.databases.truncate(SAMPLE);
    few.https.truncate(SAMPLE);
    few.vllms.truncate(SAMPLE);
    few
}

/// Decodes the arguments for every instance that the inventory, or a sample of a large one, can give.
fn arguments(check: &CheckDef, catalog: &Catalog, inv: &Arc<Value>) -> Option<Finding> {
    let doc = &check.document;
    let few = sample(&catalog.inventory);
    axis::bindings(&check.each, &few, &sample_vantages(&few)).iter().find_map(|binding| {
        let scope = axis::scope(binding, inv);
        if check.when.as_ref().is_some_and(|w| w.truth(&scope) != crate::check::Truth::True) {
            return None;
        }
        let at = |message: String| {
            doc.finding(
                doc.line_of(&[Step::Key("with")]),
                format!("{}: {message}", crate::run::plan::instance_id(&check.id, &binding.label)),
            )
        };
        match super::load_with(&check.with, &scope) {
            Err(error) => Some(at(error)),
            Ok(with) => (check.kind.decode)(&with).err().map(at),
        }
    })
}

fn lint_playbook(playbook: &Playbook, catalog: &Catalog, inv: &Arc<Value>) -> Vec<Finding> {
    let doc = &playbook.document;
    let mut findings = Vec::new();
    for (n, id) in playbook.checks.iter().enumerate() {
        if catalog.check(id).is_none() {
            findings.push(doc.finding(doc.line_of(&[Step::Key("checks"), Step::At(n)]), format!("there is no check `{id}`")));
        }
    }
    for (n, cause) in playbook.causes.iter().enumerate() {
        findings.extend(lint_cause(cause, n, doc, catalog, inv));
    }
    findings
}

fn lint_cause(cause: &Cause, n: usize, doc: &Document, catalog: &Catalog, inv: &Arc<Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |key: &str, index: Option<usize>, message: String| {
        let mut steps = vec![Step::Key("cause"), Step::At(n), Step::Key(key)];
        steps.extend(index.map(Step::At));
        findings.push(doc.finding(doc.line_of(&steps), message));
    };
    let mut roots = Vec::new();
    for (alias, target) in &cause.facts {
        match check_of(target).and_then(|id| catalog.check(&id)) {
            Some(check) => roots.push((alias.as_str(), check)),
            None => wrong("facts", None, format!("`{alias}` names a check that does not exist")),
        }
    }
    if roots.len() == cause.facts.len() {
        for (key, claims) in [("needs", &cause.needs), ("supports", &cause.supports), ("refutes", &cause.refutes)] {
            for (i, claim) in claims.iter().enumerate() {
                let exprs = std::iter::once(&claim.that).chain(claim.say.expressions());
                for message in exprs.filter_map(|e| unknown_name(e, &cause.each, &roots, inv)) {
                    wrong(key, Some(i), message);
                }
            }
        }
    }
    for (key, templates) in [("explains", &cause.explains), ("verify", &cause.verify)] {
        for (i, template) in templates.iter().enumerate() {
            if let Some(message) = no_such_check(template, catalog) {
                wrong(key, Some(i), message);
            }
        }
    }
    findings
}

/// The check id before the bracket of an instance pattern.
fn check_of(template: &Template) -> Option<String> {
    template.text_or_unknown(&Scope::new()).split(['[', '#']).next().map(str::to_owned)
}

fn no_such_check(template: &Template, catalog: &Catalog) -> Option<String> {
    let id = check_of(template)?;
    (catalog.check(&id).is_none()).then(|| format!("there is no check `{id}`"))
}

/// A sentence if the expression reads a variable or a fact that nothing offers.
fn unknown_name(expr: &Expr, each: &[Axis], facts: &[(&str, &CheckDef)], inv: &Value) -> Option<String> {
    let bound: Vec<&str> = each.iter().flat_map(|a| a.names()).copied().chain(["inv"]).collect();
    for root in expr.roots() {
        let known = bound.contains(&root.as_str()) || facts.iter().any(|(alias, _)| alias == root);
        let macro_variable = expr.source().contains(&format!("({root},"));
        if !known && !macro_variable {
            return Some(format!("`{root}` in `{}` is not a variable here", expr.source()));
        }
    }
    for path in expr.paths() {
        let (root, rest) = path.split_once('.').unwrap_or((&path, ""));
        // A part that this inventory leaves out, such as WARP, is null: what reads it has a `when`.
        let left_out = rest.split_once('.').is_some_and(|(part, _)| crate::check::fact::lookup(inv, part).is_some_and(|v| v.is_null()));
        if root == "inv" && !left_out && crate::check::fact::lookup(inv, rest).is_none() {
            return Some(format!("the inventory has no `{rest}` (in `{}`)", expr.source()));
        }
        if let Some((_, check)) = facts.iter().find(|(alias, _)| *alias == root)
            && rest != "outcome"
            && !check.kind.offers(rest)
        {
            return Some(format!("probe kind `{}` offers no fact `{rest}` (in `{}`)", check.kind.name, expr.source()));
        }
    }
    None
}
