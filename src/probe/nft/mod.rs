//! `nft`: the firewall at one hook: policies of its base chains, rules that refuse, and what they have counted.
//!
//! Two readers share [`expression`]: [`ruleset`] lists what rules are made of, [`walk`] follows one packet through them ([`follow`] through
//! one rule), also where `nft_compat` ([`xt`]) or the old iptables ([`legacy`]) hold them.

mod expression;
mod follow;
mod legacy;
mod mark;
mod packet_mark;
mod registers;
mod rule_marks;
mod ruleset;
mod sets;
mod walk;
mod wire;
mod xt;

pub(super) use legacy::kept as kept_of_xt;
pub(super) use mark::Test;
#[cfg(test)]
pub(super) use ruleset::sample;
pub(super) use ruleset::{Rule, Ruleset, Verdict, kept, refused};
pub(super) use walk::{DeviceName, OUTPUT, PREROUTING, Packet, SourceNat, Walker, Ways};

use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use async_trait::async_trait;
use serde::Deserialize;
use std::collections::HashMap;

/// The firewall at one hook: policies of its base chains, rules that refuse, and what they have counted.
pub(super) static KIND: Kind = Kind {
    name: "nft",
    root: "nft",
    about: "The firewall at one hook: policies of its base chains, rules that refuse, and what they have counted",
    privilege: Some("CAP_NET_ADMIN"),
    args: &[("hook", "`input`, `forward` or `output`")],
    facts: &[
        fact("policy", "text", "`drop` if a base chain (IPv4 or inet) at the hook drops what no rule accepts, else `accept`"),
        fact("policy_chain", "text", "that chain: family, table, name; empty if none"),
        fact("policy_packets", "count", "packets that the drop policy has decided, where the chain counts"),
        fact("accepts", "count", "rules with the verdict accept in the table of that chain"),
        fact("refusing_rules", "count", "rules with the verdict drop or reject in the base chains at the hook"),
        fact("refused_packets", "count", "packets that these rules have counted"),
        fact("chains", "list of text", "base chains at the hook, with priority and policy"),
        fact("duplicates", "count", "most rules in one chain that are equal to each other, beyond the first"),
        fact("duplicates_in", "text", "that chain: family, table, name; empty if no rule is there twice"),
        fact("legacy", "bool", "tables of the old iptables are loaded too, which are not seen here"),
    ],
    decode: decode::<Nft>,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nft {
    hook: Hook,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hook {
    Input = 1,
    Forward = 2,
    Output = 3,
}

/// Number of the forward hook (NF_INET_FORWARD).
pub(super) const FORWARD: u32 = 2;

#[async_trait]
impl Probe for Nft {
    async fn observe(&self, cx: &Context) -> Observation {
        let (net, hook) = (cx.vantage.net.clone(), self.hook as u32);
        let read = tokio::task::spawn_blocking(move || Ruleset::read(&net)).await;
        match read.unwrap_or_else(|_| Err("the reader of nftables ended badly".to_owned())) {
            Ok(ruleset) => self.facts(&ruleset, hook, loaded_legacy(cx)),
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    fn target(&self) -> String {
        format!("nftables, hook {:?}", self.hook).to_lowercase()
    }
}

impl Nft {
    fn facts(&self, ruleset: &Ruleset, hook: u32, legacy: bool) -> Observation {
        let mut seen = Observation::default();
        let chains: Vec<String> = ruleset.at(hook).map(describe).collect();
        for chain in chains.iter().take(16) {
            seen.note("nft", chain);
        }
        seen.facts.set("chains", chains).set("legacy", legacy);
        let (most, chain) = duplicates(ruleset);
        seen.facts.set("duplicates", most).set("duplicates_in", chain);
        policy_facts(&mut seen.facts, ruleset, hook);
        let base = |r: &&Rule| ruleset.at(hook).any(|c| c.family == r.family && c.table == r.table && c.name == r.chain);
        let refusing: Vec<_> = ruleset.rules.iter().filter(base).filter(|r| r.verdict == Verdict::Refuse).collect();
        seen.facts.set("refusing_rules", refusing.len()).set("refused_packets", refusing.iter().filter_map(|r| r.packets).sum::<u64>());
        seen
    }
}

fn policy_facts(facts: &mut Facts, ruleset: &Ruleset, hook: u32) {
    let dropping = ruleset.at(hook).find(|c| c.drops);
    facts.set("policy", if dropping.is_some() { "drop" } else { "accept" });
    facts.set("policy_chain", dropping.map_or(String::new(), |c| format!("{} {} {}", c.family, c.table, c.name)));
    let reason = if dropping.is_some() { "the chain does not count" } else { "no chain at this hook drops by policy" };
    facts.set_or_unknown("policy_packets", ruleset.dropped_by_policy(hook), reason);
    let accepts = dropping.map(|c| {
        let same = ruleset.rules.iter().filter(|r| r.family == c.family && r.table == c.table);
        same.filter(|r| r.verdict == Verdict::Accept).count()
    });
    facts.set_or_unknown("accepts", accepts, "no chain at this hook drops by policy");
}

fn describe(chain: &ruleset::Chain) -> String {
    let policy = if chain.drops { "drop" } else { "accept" };
    let counted = chain.packets.map_or(String::new(), |n| format!(" ({n} packets)"));
    let priority = chain.hook.map_or(0, |(_, priority)| priority);
    format!("{} {} {} priority {priority} policy {policy}{counted}", chain.family, chain.table, chain.name)
}

/// Rules that repeat another rule of their chain: the most in one chain, and which chain that is.
fn duplicates(ruleset: &Ruleset) -> (usize, String) {
    let mut equal: HashMap<(&str, &str, &str, &[u8]), usize> = HashMap::new();
    for rule in ruleset.rules.iter().filter(|r| !r.identity.is_empty()) {
        *equal.entry((rule.family, &rule.table, &rule.chain, &rule.identity)).or_default() += 1;
    }
    let most = equal.into_iter().filter(|(_, count)| *count > 1).max_by_key(|(rule, count)| (*count, std::cmp::Reverse(*rule)));
    most.map_or((0, String::new()), |((family, table, chain, _), count)| (count - 1, format!("{family} {table} {chain}")))
}

/// Tables of the old iptables announce themselves by name (`ip_tables_names`); the file is only there with the module.
fn loaded_legacy(cx: &Context) -> bool {
    let names = cx.vantage.net.with(|| std::fs::read_to_string("/proc/thread-self/net/ip_tables_names"));
    names.is_ok_and(|read| read.is_ok_and(|text| !text.trim().is_empty()))
}
