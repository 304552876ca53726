//! `network-policy`: which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same.

mod gather;
mod judge;
mod policy;

use super::icmp::Echo;
use super::net::{self, ms};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use crate::def::inventory::Protocol;
use async_trait::async_trait;
use gather::Gathered;
use judge::judge;
use serde::Deserialize;
use std::net::SocketAddrV4;

/// Which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same.
pub(super) static KIND: Kind = Kind {
    name: "network-policy",
    root: "netpol",
    about: "Which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same",
    privilege: Some("a kubeconfig; the witness's, if one is given and the vantage's own does not reach the API"),
    args: &[
        ("name", "service name"),
        ("namespace", "namespace"),
        ("port", "service port"),
        ("protocol", "`tcp` (default) or `udp`; only TCP is connected to"),
    ],
    facts: &[
        fact("policies", "count", "NetworkPolicies of the cluster"),
        fact("selecting", "list of text", "those that select the pod for ingress or this vantage's pod for egress, namespace/name"),
        fact("blocked", "bool", "they do, and no rule of theirs allows the connection"),
        fact("because", "list of text", "the policies that do not allow it, and why; empty if it is not blocked"),
        fact("pod", "text", "the pod, namespace/name; empty if the endpoint is no pod"),
        fact("pod_node", "text", "the Kubernetes node that it runs on; empty if the endpoint is no pod"),
        fact("address", "text", "the endpoint in question, the first ready one: address:port"),
        fact("client", "text", "what the policies see of this vantage: `pod NAMESPACE/NAME`, `node ADDRESS`"),
        fact("own_node", "bool", "this vantage is the node that the pod runs on: it is always let in, as kubelet has to probe the pod"),
        fact("connect", "text", "`ok` or the errno of a connection to the endpoint; asked for only if policies concern it"),
        fact("connect_ms", "ms", "how long that took"),
        fact("ping", "bool", "the pod answers echo requests; asked for only if it does not connect"),
    ],
    decode: decode::<NetworkPolicy>,
};

/// Policies and reasons that are listed as facts.
const MOST_LISTED: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkPolicy {
    name: String,
    namespace: String,
    port: u16,
    #[serde(default)]
    protocol: Protocol,
}

#[async_trait]
impl Probe for NetworkPolicy {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        if let Err(reason) = self.look(cx, &mut seen).await {
            seen.note("error", &reason);
            if seen.facts.is_empty() {
                return Observation::could_not_look(reason);
            }
            unknown_rest(&mut seen, &reason);
        }
        seen
    }

    fn target(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

fn unknown_rest(seen: &mut Observation, reason: &str) {
    for doc in KIND.facts {
        if !seen.facts.unknowns().contains_key(doc.path) {
            seen.facts.unknown(doc.path, reason);
        }
    }
}

impl NetworkPolicy {
    async fn look(&self, cx: &Context, seen: &mut Observation) -> Result<(), String> {
        let Some(Gathered { policies, flow, pod_node }) = gather::gather(self, cx, seen).await? else {
            seen.facts.set("selecting", Vec::<String>::new()).set("blocked", false).set("because", Vec::<String>::new());
            unknown_rest(seen, "not asked for: there are no policies");
            return Ok(());
        };
        let judgement = judge(&policies, &flow);
        let texts = |texts: &[String]| texts.iter().take(MOST_LISTED).map(|text| clean(text, 400)).collect::<Vec<_>>();
        let facts = &mut seen.facts;
        facts.set("because", texts(&judgement.because)).set("own_node", flow.own_node).set("pod_node", clean(&pod_node, 253));
        match &judgement.selecting {
            Ok(selecting) => facts.set("selecting", texts(selecting)),
            Err(reason) => facts.unknown("selecting", clean(reason, 300)),
        };
        match &judgement.blocked {
            Ok(blocked) => facts.set("blocked", *blocked),
            Err(reason) => facts.unknown("blocked", clean(reason, 300)),
        };
        match &flow.to.address {
            _ if judgement.selecting.as_ref().is_ok_and(Vec::is_empty) => unknown_rest(seen, "not asked for: no policy concerns it"),
            _ if self.protocol == Protocol::Udp => unknown_rest(seen, "only TCP is connected to"),
            Ok(address) => attempt(cx, SocketAddrV4::new(*address, flow.port), seen).await,
            Err(reason) => unknown_rest(seen, reason),
        }
        Ok(())
    }
}

/// Connects, and asks for an echo where that fails: who answers it is not out of reach.
async fn attempt(cx: &Context, to: SocketAddrV4, seen: &mut Observation) {
    let (word, after) = match net::connect(&cx.vantage.net, to, cx.deadline).await {
        Ok((_, after)) => ("ok".to_owned(), after),
        Err(error) => (error.word, error.after),
    };
    seen.note("connect", format!("{to}: {word} after {} ms", ms(after)));
    seen.facts.set("connect", word.as_str()).set("connect_ms", ms(after));
    if word == "ok" {
        seen.facts.unknown("ping", "not asked for: it connects");
        return;
    }
    match Echo::open(&cx.vantage.net) {
        Ok(echo) => {
            let echoes = echo.run(*to.ip(), 3, &[0; 56], cx.deadline).await;
            seen.note("icmp", format!("{}: {} of {} echoes answered", to.ip(), echoes.received(), echoes.sent));
            seen.facts.set("ping", echoes.received() > 0);
        }
        Err(reason) => _ = seen.facts.unknown("ping", reason),
    }
}

#[cfg(test)]
mod tests;
