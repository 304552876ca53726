//! NetworkPolicies that keep clients from pods of `apps`, or a pod from everything, enforced in the chains of each pod's own node.
//!
//! As kube-router does it in K3s: the node's own packets do not pass that chain, what belongs to a connection passes, echo requests
//! pass, and the rest is refused with port-unreachable. Other enforcers drop.

use super::Fault;
use crate::def::inventory::Pod;
use crate::twin::Twin;
use crate::twin::cluster::{Resource, name_of};
use crate::twin::nft::{Batch, Hook, Rule};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The table that holds an enforcer's rules.
const TABLE: &str = "filter";
const NAMESPACE: &str = "apps";
/// The policy's name, as the document's example has it.
const NAME: &str = "deny-all-ingress";
/// ICMP in an IPv4 header.
const ICMP: u8 = 1;

/// What happens to a connection that no rule allows.
#[derive(Clone, Copy)]
enum Refusal {
    Reject,
    Drop,
}

/// Somebody who is kept out, and the pod's own node, which is not. Not from everywhere: under whose address WARP's connector
/// brings the workstation is not known, and a policy may let that one in.
const DROPPED_FROM: &[&str] = &["calypso,tethys", "tethys,pod:apps/md-query-proxy"];
/// An enforcer that rejects is told from the pod by its ICMP error: the pod would reset the connection.
const REJECTED_FROM: &[&str] = &["calypso", "pod:apps/md-query-proxy", "calypso,tethys", "tethys,pod:apps/md-query-proxy", "all"];

pub(super) static REJECTS: Fault = Fault {
    id: "networkpolicy-blocks",
    layer: 3,
    title: "a NetworkPolicy denies all ingress to the pods of apps, and its enforcer rejects",
    expects: "networkpolicy-blocks",
    decided_from: REJECTED_FROM,
    apply: |twin| {
        Box::pin(async move {
            add(twin, json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
            let all: Vec<&Pod> = twin.inventory.pods.iter().filter(|pod| pod.namespace == NAMESPACE).collect();
            enforce(twin, &all, &[], Refusal::Reject)
        })
    },
    undo: |twin| Box::pin(async move { lift(twin) }),
};

pub(super) static DROPS: Fault = Fault {
    id: "networkpolicy-drops",
    layer: 3,
    title: "a NetworkPolicy lets only the ingestion worker in to argilla, and its enforcer drops the rest",
    expects: "networkpolicy-blocks",
    decided_from: DROPPED_FROM,
    apply: |twin| {
        Box::pin(async move {
            let (argilla, worker) = (pod(twin, "argilla")?, pod(twin, "csv-ingestion-worker")?);
            let rule = json!({"from": [{"podSelector": {"matchLabels": worker.labels}}], "ports": [{"port": "http"}]});
            add(twin, json!({"podSelector": {"matchLabels": argilla.labels}, "policyTypes": ["Ingress"], "ingress": [rule]}));
            enforce(twin, &[argilla], &[worker.address], Refusal::Drop)
        })
    },
    undo: |twin| Box::pin(async move { lift(twin) }),
};

pub(super) static EGRESS: Fault = Fault {
    id: "networkpolicy-egress",
    layer: 3,
    title: "a NetworkPolicy denies all egress to md-query-proxy's pod: it cannot even ask for a name",
    expects: "networkpolicy-blocks",
    decided_from: &["calypso,pod:apps/md-query-proxy", "all"],
    apply: |twin| {
        Box::pin(async move {
            let proxy = pod(twin, "md-query-proxy")?;
            add(twin, json!({"podSelector": {"matchLabels": proxy.labels}, "policyTypes": ["Egress"]}));
            let own = Ipv4Net::from(proxy.address);
            let node = &twin.overlay(&proxy.node)?.wire.net;
            // What a pod sends to its own node does not pass FORWARD.
            let refused = || Rule::new().from(own, true).counted().reject();
            let batch = chains(&["FORWARD", "INPUT"]);
            Ok(batch.rule("FORWARD", refused()).rule("INPUT", refused()).commit(node)?)
        })
    },
    undo: |twin| Box::pin(async move { lift(twin) }),
};

pub(super) static STARTUP: Fault = Fault {
    id: "netpol-startup-race",
    layer: 3,
    title: "argilla's pod has just started: a NetworkPolicy lets calypso's pods in, its enforcer does not know the pod yet",
    expects: "netpol-startup-race",
    decided_from: &["calypso", "pod:apps/md-query-proxy"],
    apply: |twin| {
        Box::pin(async move {
            let (argilla, proxy) = (pod(twin, "argilla")?, pod(twin, "md-query-proxy")?);
            let node = twin.inventory.node(&proxy.node).context("the proxy's node")?;
            let rule = json!({"from": [{"podSelector": {"matchLabels": proxy.labels}}, {"ipBlock": {"cidr": node.pod_cidr}}]});
            add(twin, json!({"podSelector": {"matchLabels": argilla.labels}, "ingress": [rule]}));
            started(twin, "argilla", &chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
            enforce(twin, &[argilla], &[], Refusal::Reject)
        })
    },
    undo: |twin| {
        Box::pin(async move {
            let before = start_of(twin, "md-query-proxy").context("the proxy's start")?;
            started(twin, "argilla", &before);
            lift(twin)
        })
    },
};

/// Changes when a pod has started.
fn started(twin: &Twin, name: &str, time: &str) {
    twin.cluster.update(|objects| {
        objects.each_mut(Resource::Pods, |pod| {
            if name_of(pod).starts_with(name) {
                pod["status"]["startTime"] = json!(time);
            }
        });
    });
}

fn start_of(twin: &Twin, name: &str) -> Option<String> {
    twin.cluster.read(|objects| {
        let (_, pod) = objects.list(Resource::Pods).find(|(_, pod)| name_of(pod).starts_with(name))?;
        Some(pod["status"]["startTime"].as_str()?.to_owned())
    })
}

fn pod<'t>(twin: &'t Twin, name: &str) -> Result<&'t Pod> {
    twin.inventory.pods.iter().find(|pod| pod.name == name).with_context(|| format!("the inventory has no pod {name}"))
}

fn add(twin: &Twin, spec: Value) {
    let policy = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec});
    twin.cluster.update(|objects| objects.insert(Resource::NetworkPolicies, policy));
}

/// A table whose chains let pass what an enforcer always does.
fn chains(names: &[&str]) -> Batch {
    names.iter().fold(Batch::replace(TABLE).fresh(), |batch, name| {
        let hook = if *name == "INPUT" { Hook::Input } else { Hook::Forward };
        let batch = batch.chain(name, "filter", hook, 0).rule(name, Rule::new().established().accept());
        batch.rule(name, Rule::new().protocol(ICMP).accept())
    })
}

/// Lets only some sources in to pods, on their own nodes.
fn enforce(twin: &Twin, pods: &[&Pod], allowed: &[Ipv4Addr], refusal: Refusal) -> Result<()> {
    for overlay in &twin.overlays {
        let batch = chains(&["FORWARD"]);
        let own = pods.iter().filter(|pod| pod.node == overlay.node.name);
        let batch = own.fold(batch, |batch, pod| {
            let to = || Rule::new().to(Ipv4Net::from(pod.address), true);
            // A pod cannot be kept from itself.
            let allowed = allowed.iter().chain([&pod.address]);
            let batch = allowed.fold(batch, |batch, from| batch.rule("FORWARD", to().from(Ipv4Net::from(*from), true).counted().accept()));
            batch.rule(
                "FORWARD",
                match refusal {
                    Refusal::Reject => to().counted().reject(),
                    Refusal::Drop => to().counted().drop(),
                },
            )
        });
        batch.commit(&overlay.wire.net)?;
    }
    Ok(())
}

fn lift(twin: &Twin) -> Result<()> {
    twin.cluster.update(|objects| objects.remove(Resource::NetworkPolicies, NAMESPACE, NAME));
    for overlay in &twin.overlays {
        Batch::replace(TABLE).removed().commit(&overlay.wire.net)?;
    }
    Ok(())
}
