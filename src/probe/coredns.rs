//! `coredns`: every CoreDNS pod and the ClusterIP asked by UDP and by TCP; health, ready and metrics of each pod.

use super::http_get::{HttpUrl, get};
use super::kube_client::{self, encode};
use super::query::{Transport, ask};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use hickory_resolver::proto::rr::Name;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Every CoreDNS pod and the ClusterIP asked by UDP and by TCP; health, ready and metrics of each pod.
pub(super) static KIND: Kind = Kind {
    name: "coredns",
    root: "coredns",
    about: "Every CoreDNS pod and the ClusterIP asked by UDP and by TCP; health, ready and metrics of each pod",
    privilege: None,
    args: &[("name", "absolute name to ask for"), ("server", "ClusterIP of the DNS service")],
    facts: &[
        fact("source", "text", "where the pods' addresses come from: `api` (EndpointSlices) or `inventory`"),
        fact("cluster_udp", "text", "rcode or errno word of the ClusterIP by UDP"),
        fact("cluster_tcp", "text", "the same by TCP"),
        fact("pods", "list", "each pod: address, udp, tcp, health, ready (HTTP status or errno word)"),
        fact("addresses", "list of text", "addresses of the pods"),
        fact("answering", "count", "pods that answer by UDP"),
        fact("refusing", "count", "pods whose address is reachable and refuses port 53 by UDP and by TCP"),
        fact("silent", "count", "pods that do not answer in time by either"),
        fact("unhealthy", "count", "pods that answer DNS and not 200 on /health"),
        fact("upstreams", "list of text", "resolvers that the metrics name as forwarded to"),
        fact("upstream_failures", "count", "failed health checks of upstreams, all pods"),
        fact("upstreams_down", "count", "times that all upstreams were down, all pods"),
        fact("panics", "count", "panics, all pods"),
        fact("servfail", "count", "SERVFAIL answers, all pods"),
        fact("nxdomain", "count", "NXDOMAIN answers, all pods"),
        fact("noerror", "count", "NOERROR answers, all pods"),
    ],
    decode: decode::<CoreDns>,
};

/// Pods that are looked at.
const MOST_PODS: usize = 16;
/// Upstreams that are listed.
const MOST_UPSTREAMS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreDns {
    name: String,
    server: Ipv4Addr,
}

/// What one pod said.
struct Pod {
    address: Ipv4Addr,
    udp: String,
    tcp: String,
    health: String,
    ready: String,
    metrics: Result<String, String>,
}

#[async_trait]
impl Probe for CoreDns {
    async fn observe(&self, cx: &Context) -> Observation {
        let Ok(name) = Name::from_ascii(&self.name) else {
            return Observation::could_not_look("the name to ask for is no valid name");
        };
        let ask = |address: Ipv4Addr, transport| {
            let name = &name;
            async move { ask(&cx.vantage.net, SocketAddrV4::new(address, 53), name, transport, cx.deadline).await.rcode }
        };
        let look = async {
            let (source, addresses) = addresses(cx).await;
            let pods = addresses.into_iter().map(|address| pod(cx, address, &ask));
            (source, futures::future::join_all(pods).await)
        };
        let (udp, tcp, (source, pods)) = tokio::join!(ask(self.server, Transport::Udp), ask(self.server, Transport::Tcp), look);
        let mut seen = Observation::default();
        seen.note("dns", format!("{} @{}: UDP {udp}, TCP {tcp}", self.name, self.server));
        seen.facts.set("source", source).set("cluster_udp", udp).set("cluster_tcp", tcp);
        record(&mut seen, &pods);
        metrics(&mut seen, &pods);
        seen
    }

    fn target(&self) -> String {
        format!("CoreDNS behind {}", self.server)
    }
}

/// Addresses of the CoreDNS pods: from the API, else from the inventory.
async fn addresses(cx: &Context) -> (&'static str, BTreeSet<Ipv4Addr>) {
    match from_api(cx).await {
        Some(found) if !found.is_empty() => ("api", found),
        _ => {
            let pods = cx.inventory.pods.iter().filter(|p| p.labels.get("k8s-app").is_some_and(|app| app == "kube-dns"));
            ("inventory", pods.map(|p| p.address).take(MOST_PODS).collect())
        }
    }
}

/// From the API server's cache (`resourceVersion=0`): it answers also while the datastore hangs.
async fn from_api(cx: &Context) -> Option<BTreeSet<Ipv4Addr>> {
    let api = kube_client::connected(cx).await.ok()?;
    let label = encode("kubernetes.io/service-name=kube-dns");
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices?resourceVersion=0&labelSelector={label}");
    let slices: Vec<EndpointSlice> = api.list(&path, "list endpointslices").await.ok()?;
    let all = slices.iter().filter(|s| s.address_type == "IPv4").flat_map(|s| &s.endpoints).flat_map(|e| &e.addresses);
    Some(all.filter_map(|a| a.parse().ok()).take(MOST_PODS).collect())
}

async fn pod<F, R>(cx: &Context, address: Ipv4Addr, ask: &F) -> Pod
where
    F: Fn(Ipv4Addr, Transport) -> R,
    R: Future<Output = String>,
{
    let (udp, tcp, health, ready, metrics) = tokio::join!(
        ask(address, Transport::Udp),
        ask(address, Transport::Tcp),
        page(cx, address, 8080, "/health"),
        page(cx, address, 8181, "/ready"),
        page(cx, address, 9153, "/metrics"),
    );
    let word = |page: &Result<(u16, String), String>| page.as_ref().map_or_else(Clone::clone, |(status, _)| status.to_string());
    let metrics_text = match &metrics {
        Ok((200, body)) => Ok(body.clone()),
        other => Err(word(other)),
    };
    Pod { address, udp, tcp, health: word(&health), ready: word(&ready), metrics: metrics_text }
}

/// Status and body, or the word for what went wrong.
async fn page(cx: &Context, address: Ipv4Addr, port: u16, path: &str) -> Result<(u16, String), String> {
    let url = HttpUrl::try_from(format!("http://{address}:{port}{path}"))?;
    let exchange = get(&cx.vantage, &url, None, cx.deadline).await?;
    if exchange.status == 0 {
        return Err(exchange.error);
    }
    Ok((exchange.status, String::from_utf8_lossy(&exchange.body).into_owned()))
}

/// Whether a word says that a server answered, however it did.
fn answered(word: &str) -> bool {
    !word.starts_with('E') && word != "TIMEOUT"
}

fn record(seen: &mut Observation, pods: &[Pod]) {
    let count = |which: &dyn Fn(&Pod) -> bool| pods.iter().filter(|p| which(p)).count();
    let listed: Vec<Value> = pods
        .iter()
        .map(|p| json!({"address": p.address.to_string(), "udp": p.udp, "tcp": p.tcp, "health": p.health, "ready": p.ready}))
        .collect();
    for pod in pods {
        let line = format!("{}: UDP {}, TCP {}, /health {}, /ready {}", pod.address, pod.udp, pod.tcp, pod.health, pod.ready);
        seen.note("coredns", line);
    }
    seen.facts
        .set("addresses", pods.iter().map(|p| p.address.to_string()).collect::<Vec<_>>())
        .set("answering", count(&|p| answered(&p.udp)))
        .set("refusing", count(&|p| p.udp == "ECONNREFUSED" && p.tcp == "ECONNREFUSED"))
        .set("silent", count(&|p| p.udp == "TIMEOUT" && !answered(&p.tcp)))
        .set("unhealthy", count(&|p| answered(&p.udp) && p.health != "200"))
        .set("pods", listed);
}

/// Facts from the metrics of all pods together; unknown if no pod shows any.
fn metrics(seen: &mut Observation, pods: &[Pod]) {
    const PATHS: [&str; 7] = ["upstreams", "upstream_failures", "upstreams_down", "panics", "servfail", "nxdomain", "noerror"];
    let texts: Vec<&String> = pods.iter().filter_map(|p| p.metrics.as_ref().ok()).collect();
    if texts.is_empty() {
        let why = pods.iter().find_map(|p| p.metrics.as_ref().err()).map_or("no CoreDNS pod is known", String::as_str);
        PATHS.iter().for_each(|path| _ = seen.facts.unknown(path, format!("no metrics: {why}")));
        return;
    }
    let totals = texts.iter().fold(Totals::default(), |totals, text| totals.add(text));
    let rcode = |rcode: &str| totals.rcodes.get(rcode).copied().unwrap_or_default();
    seen.facts
        .set("upstreams", totals.upstreams.iter().cloned().collect::<Vec<_>>())
        .set("upstream_failures", totals.failures)
        .set("upstreams_down", totals.down)
        .set("panics", totals.panics)
        .set("servfail", rcode("SERVFAIL"))
        .set("nxdomain", rcode("NXDOMAIN"))
        .set("noerror", rcode("NOERROR"));
}

#[derive(Default)]
struct Totals {
    upstreams: BTreeSet<String>,
    failures: u64,
    down: u64,
    panics: u64,
    rcodes: BTreeMap<String, u64>,
}

impl Totals {
    fn add(mut self, text: &str) -> Self {
        for line in text.lines() {
            let (head, labels) = line.split_once('{').unwrap_or_else(|| (line.split_whitespace().next().unwrap_or_default(), ""));
            let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).filter(|v| v.is_finite()).unwrap_or_default() as u64;
            let forwards = head.starts_with("coredns_proxy_") || head.starts_with("coredns_forward_");
            if let Some(to) = label(labels, "to").filter(|_| forwards && self.upstreams.len() < MOST_UPSTREAMS) {
                self.upstreams.insert(clean(to, 64));
            }
            match head {
                "coredns_proxy_healthcheck_failures_total" => self.failures += value,
                "coredns_forward_healthcheck_broken_total" => self.down += value,
                "coredns_panics_total" => self.panics += value,
                "coredns_dns_responses_total" => {
                    if let Some(rcode) = label(labels, "rcode").filter(|_| self.rcodes.len() < 32) {
                        *self.rcodes.entry(rcode.to_owned()).or_default() += value;
                    }
                }
                _ => {}
            }
        }
        self
    }
}

/// The value of a label in `a="b",c="d"} 1`; CoreDNS' own values hold no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let rest = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_metrics_name_the_upstream_and_its_failures() {
        let totals = Totals::default().add(include_str!("../../tests/data/coredns/metrics-upstream-dropped.http"));
        assert_eq!(totals.upstreams.iter().map(String::as_str).collect::<Vec<_>>(), ["203.0.113.10:53"]);
        assert!(totals.failures > 0 && totals.down > 0 && totals.panics == 0);
        assert!(totals.rcodes["SERVFAIL"] > 0 && totals.rcodes["NXDOMAIN"] > 0);
    }

    #[test]
    fn hostile_metrics_never_panic() {
        for text in
            ["", "{", "coredns_proxy_x{to=\"", "coredns_dns_responses_total{rcode=\"A} NaN", "coredns_panics_total 1e400", "é{é=\"é"]
        {
            Totals::default().add(text);
        }
    }
}
