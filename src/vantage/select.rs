//! Which vantages a run uses: `--from`.

use super::detect::{self, tailscale_socket};
use super::{HostFiles, Net, NetNs, Source, Transport, Vantage, VantageKind};
use crate::def::{Inventory, near};
use std::path::Path;
use std::sync::Arc;

/// A place that could be looked from, opened only if it is asked for.
struct Candidate {
    id: String,
    open: Box<dyn FnOnce() -> Result<Vantage, String>>,
}

/// The vantages that `--from` names, on this machine and where the inventory's `reach` leads. Without `--from`: here.
pub fn on_this_machine(spec: Option<&str>, inventory: &Inventory) -> Result<Vec<Arc<Vantage>>, String> {
    let here = detect::here(inventory);
    let here_id = here.id.clone();
    let mut candidates = vec![Candidate { id: here_id.clone(), open: Box::new(move || Ok(here)) }];
    candidates.extend(reachable(inventory).into_iter().filter(|c| c.id != here_id));
    choose(spec, &here_id, candidates)
}

/// The vantages that `--from` names among those of the twin.
pub fn of_the_twin(spec: Option<&str>, vantages: Vec<Vantage>) -> Result<Vec<Arc<Vantage>>, String> {
    let candidates = vantages.into_iter().map(|v| Candidate { id: v.id.clone(), open: Box::new(move || Ok(v)) }).collect();
    choose(spec, "calypso", candidates)
}

fn choose(spec: Option<&str>, default: &str, candidates: Vec<Candidate>) -> Result<Vec<Arc<Vantage>>, String> {
    let wanted: Vec<String> = match spec.map(str::trim) {
        None => vec![default.to_owned()],
        Some("all") => candidates.iter().map(|c| c.id.clone()).collect(),
        Some(list) => list.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
    };
    if wanted.is_empty() {
        return Err("--from names no vantage".to_owned());
    }
    let known: Vec<String> = candidates.iter().map(|c| c.id.clone()).collect();
    if let Some(unknown) = wanted.iter().find(|w| !known.contains(w)) {
        let hint = near::hint(unknown, known.iter().map(String::as_str));
        return Err(format!("there is no way to look from `{unknown}`{hint}; known are {}", known.join(", ")));
    }
    let mut chosen: Vec<(usize, Arc<Vantage>)> = Vec::new();
    for candidate in candidates {
        if let Some(at) = wanted.iter().position(|w| *w == candidate.id) {
            chosen.push((at, Arc::new((candidate.open)()?)));
        }
    }
    chosen.sort_by_key(|(at, _)| *at);
    Ok(chosen.into_iter().map(|(_, v)| v).collect())
}

/// Everything with a `reach` in the inventory.
fn reachable(inventory: &Inventory) -> Vec<Candidate> {
    let nodes = inventory.nodes.iter().filter_map(|n| {
        let socket = tailscale_socket(n);
        let files = move || HostFiles { tailscale_socket: Some(socket), ..HostFiles::default() };
        Some(candidate(n.reach.as_deref()?, n.name.clone(), VantageKind::Node, Some(n.name.clone()), files))
    });
    let pods = inventory.pods.iter().filter_map(|p| {
        let id = format!("pod:{}/{}", p.namespace, p.name);
        Some(candidate(p.reach.as_deref()?, id, VantageKind::Pod, Some(p.node.clone()), HostFiles::default))
    });
    let others =
        inventory.vantages.iter().filter_map(|v| Some(candidate(v.reach.as_deref()?, v.name.clone(), v.kind, None, HostFiles::default)));
    nodes.chain(pods).chain(others).collect()
}

fn candidate(reach: &str, id: String, kind: VantageKind, node: Option<String>, files: impl FnOnce() -> HostFiles + 'static) -> Candidate {
    let reach = reach.to_owned();
    let name = id.clone();
    Candidate {
        id,
        open: Box::new(move || {
            let netns = reach.strip_prefix("netns:").ok_or_else(|| format!("vantage {name}: reach `{reach}` is not netns:NAME"))?;
            let path = Path::new("/run/netns").join(netns);
            let ns = NetNs::open(netns, &path).map_err(|e| format!("vantage {name}: network namespace {netns} cannot be opened: {e}"))?;
            let files = HostFiles { resolv_conf: resolv_conf(netns), ..files() };
            Ok(Vantage {
                id: name,
                kind,
                transport: Transport::Netns,
                why: format!("the inventory reaches it by {reach}"),
                node,
                net: Net::Ns(ns),
                files,
            })
        }),
    }
}

/// `ip netns exec` gives a namespace the files of `/etc/netns/NAME` (ip-netns(8)); so do we.
fn resolv_conf(netns: &str) -> Source {
    let own = Path::new("/etc/netns").join(netns).join("resolv.conf");
    if own.exists() { Source::File(own) } else { Source::default() }
}
