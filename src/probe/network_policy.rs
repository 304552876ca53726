//! `network-policy`: which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same.

mod gather;
mod judge;
mod policy;

use super::icmp::Echo;
use super::net::ms;
use super::{Context, Kind, Probe, decode, fact, tcp, udp};
use crate::check::{Observation, clean};
use crate::def::inventory::Protocol;
use async_trait::async_trait;
use gather::Gathered;
use judge::{Judgement, judge};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same.
pub(super) static KIND: Kind = Kind {
    name: "network-policy",
    root: "netpol",
    about: "Which NetworkPolicies stand between this vantage and a pod behind a Service, and whether it connects all the same",
    privilege: Some("a kubeconfig; the witness's, if one is given and the vantage's own does not reach the API"),
    args: &[("name", "service name"), ("namespace", "namespace"), ("port", "service port"), ("protocol", "`tcp` (default) or `udp`")],
    facts: &[
        fact("policies", "count", "NetworkPolicies of the cluster"),
        fact("selecting", "list of text", "those that select the pod for ingress or this vantage's pod for egress, namespace/name"),
        fact("blocked", "bool", "they do, and no rule of theirs allows the connection"),
        fact("because", "list of text", "the policies that do not allow it, and why; empty if it is not blocked"),
        fact(
            "other_engines",
            "list of text",
            "API groups of other policy engines (Cilium, Calico, AdminNetworkPolicy, ..) that the cluster has; what their policies allow or refuse is not read: with one of them, `selecting`, `blocked` and `isolated` are unknown",
        ),
        fact(
            "isolated",
            "bool",
            "this vantage's pod may not connect to anything: policies select it for egress, and none of them has a rule",
        ),
        fact("pod", "text", "the pod, namespace/name; empty if the endpoint is no pod"),
        fact("pod_node", "text", "the Kubernetes node that it runs on; empty if the endpoint is no pod"),
        fact("address", "text", "the endpoint in question, the first ready one: address:port"),
        fact("client", "text", "what the policies see of this vantage: `pod NAMESPACE/NAME`, `node ADDRESS`"),
        fact("own_node", "bool", "this vantage is the node that the pod runs on: it is always let in, as kubelet has to probe the pod"),
        fact(
            "age_s",
            "s",
            "since the younger of the two pods has started, by this machine's clock: rules for a new pod come some seconds after it",
        ),
        fact(
            "connect",
            "text",
            "`ok` or the errno of a connection to the endpoint, for UDP that of a refused datagram; asked for only if policies concern it",
        ),
        fact("connect_ms", "ms", "how long that took"),
        fact("ping", "bool", "the pod answers echo requests; asked for only if it does not connect"),
        fact("refused_by", "address", "who refuses it with an ICMP error, if somebody does"),
        fact(
            "filtered",
            "bool",
            "a packet filter refuses it: with an ICMP error, where a pod on which nothing listens resets a TCP connection, or before the pod; unknown if nobody refuses it",
        ),
    ],
    decode: decode::<NetworkPolicy>,
};

/// Policies and reasons that are listed as facts.
const MOST_LISTED: usize = 20;
/// Echo requests to a pod that does not connect.
const ECHOES: u16 = 3;

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
            seen.rest_unknown(&KIND, &reason);
        }
        seen
    }

    fn target(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl NetworkPolicy {
    async fn look(&self, cx: &Context, seen: &mut Observation) -> Result<(), String> {
        let Some(Gathered { policies, flow, pod_node, age_s, not_all }) = gather::gather(self, cx, seen).await? else {
            seen.facts.set("selecting", Vec::<String>::new()).set("blocked", false);
            seen.facts.set("because", Vec::<String>::new()).set("isolated", false);
            seen.rest_unknown(&KIND, "not asked for: there are no policies");
            return Ok(());
        };
        let judgement = if not_all.is_empty() { judge(&policies, &flow) } else { Judgement::unknown(&not_all) };
        let texts = |texts: &[String]| texts.iter().take(MOST_LISTED).map(|text| clean(text, 400)).collect::<Vec<_>>();
        let facts = &mut seen.facts;
        facts.set("own_node", flow.own_node).set("pod_node", clean(&pod_node, 253));
        match &judgement.isolated {
            Ok(isolated) => facts.set("isolated", *isolated),
            Err(reason) => facts.unknown("isolated", clean(reason, 300)),
        };
        facts.set_or_unknown("age_s", age_s, "neither end is a pod whose start is known");
        match &judgement.selecting {
            Ok(selecting) => facts.set("selecting", texts(selecting)),
            Err(reason) => facts.unknown("selecting", clean(reason, 300)),
        };
        match &judgement.blocked {
            Ok(blocked) => facts.set("blocked", *blocked).set("because", texts(&judgement.because)),
            Err(reason) => facts.unknown("blocked", clean(reason, 300)).unknown("because", clean(reason, 300)),
        };
        match &flow.to.address {
            _ if judgement.selecting.as_ref().is_ok_and(Vec::is_empty) => seen.rest_unknown(&KIND, "not asked for: no policy concerns it"),
            Ok(address) => self.attempt(cx, SocketAddrV4::new(*address, flow.port), seen).await,
            Err(reason) => seen.rest_unknown(&KIND, reason),
        }
        Ok(())
    }

    /// Tries it, and asks for an echo where that fails: who answers one is not out of reach.
    async fn attempt(&self, cx: &Context, to: SocketAddrV4, seen: &mut Observation) {
        match self.protocol {
            Protocol::Tcp => connect(cx, to, seen).await,
            Protocol::Udp => datagram(cx, to, seen).await,
        }
        if seen.facts.get("connect").is_some_and(|word| word == "ok") {
            return seen.rest_unknown(&KIND, "not asked for: it connects");
        }
        match echo(cx, *to.ip()).await {
            Ok(received) => {
                seen.note("icmp", format!("{}: {received} of {ECHOES} echoes answered", to.ip()));
                seen.facts.set("ping", received > 0);
            }
            Err(reason) => _ = seen.facts.unknown("ping", reason),
        }
    }
}

async fn connect(cx: &Context, to: SocketAddrV4, seen: &mut Observation) {
    let tried = tcp::connect(&cx.vantage.net, to, cx.deadline).await;
    let by = tried.refused_by().map(|hop| format!(", by an ICMP error of {hop}")).unwrap_or_default();
    seen.note("connect", format!("{to}: {} after {} ms{by}", tried.word(), ms(tried.after)));
    seen.facts.set("connect", tried.word()).set("connect_ms", ms(tried.after));
    seen.facts.set_or_unknown("refused_by", tried.refused_by().map(|hop| hop.to_string()), "no ICMP error came");
    seen.facts.set_or_unknown("filtered", tried.filtered(), "nobody refuses it");
}

/// Without connections only a refusal tells something.
async fn datagram(cx: &Context, to: SocketAddrV4, seen: &mut Observation) {
    let refused_by = udp::refused_by(&cx.vantage.net, to, cx.deadline).await;
    let text = refused_by.as_ref().map_or_else(Clone::clone, |hop| format!("refused by {hop}"));
    seen.note("udp", format!("datagram to {to}: {text}"));
    match refused_by {
        Ok(hop) => _ = seen.facts.set("connect", "ECONNREFUSED").set("refused_by", hop.to_string()).set("filtered", hop != *to.ip()),
        Err(reason) => _ = seen.facts.unknown("connect", &reason).unknown("refused_by", &reason).unknown("filtered", &reason),
    }
    seen.facts.unknown("connect_ms", "only TCP is connected to");
}

/// How many echo requests were answered.
async fn echo(cx: &Context, to: Ipv4Addr) -> Result<u16, String> {
    Ok(Echo::open(&cx.vantage.net)?.run(to, ECHOES, &[0; 56], cx.deadline).await.received())
}

#[cfg(test)]
mod tests;
