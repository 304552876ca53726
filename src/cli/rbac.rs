//! `fathom rbac`: the ClusterRole that the catalogue needs.

use super::session::load;
use super::{Common, output};
use crate::probe::rbac::{Rule, rules_of};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write;

pub(super) fn run(common: &Common) -> Result<u8> {
    let catalog = load(common)?;
    let rules: BTreeSet<Rule> = catalog.checks.iter().flat_map(|check| rules_of(check.kind.name)).copied().collect();
    output::print(&cluster_role(&rules)?)?;
    Ok(0)
}

fn cluster_role(rules: &BTreeSet<Rule>) -> Result<String, std::fmt::Error> {
    let mut out = String::from("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: fathom\nrules:\n");
    for rule in rules {
        writeln!(out, "- apiGroups: [\"{}\"]\n  resources: [{}]\n  verbs: [{}]", rule.group, rule.resource, rule.verbs.join(", "))?;
    }
    Ok(out)
}
