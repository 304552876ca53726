//! `coredns`: the DNS grid: ClusterIP, every CoreDNS pod and the upstream resolvers, each asked for an internal and an external
//! name by UDP and by TCP; health, ready and metrics of each pod.

mod metrics;

use super::http_get::{HttpUrl, get};
use super::kube_client::{self, encode};
use super::query::{Transport, ask};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use futures::future::join_all;
use hickory_resolver::proto::rr::Name;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// ClusterIP, CoreDNS pods and upstream resolvers asked by UDP and by TCP; health, ready and metrics of each pod.
pub(super) static KIND: Kind = Kind {
    name: "coredns",
    root: "coredns",
    about: "ClusterIP, CoreDNS pods and upstream resolvers asked by UDP and by TCP; health, ready and metrics of each pod",
    privilege: None,
    args: &[
        ("name", "absolute name of the cluster to ask for"),
        ("server", "ClusterIP of the DNS service"),
        ("external", "absolute outside name to ask for too (optional)"),
        ("upstream", "resolvers that CoreDNS should forward to: asked for the outside name, without CoreDNS in between (optional)"),
    ],
    facts: &[
        fact("source", "text", "where the pods' addresses come from: `api` (EndpointSlices) or `inventory`"),
        fact("cluster_udp", "text", "rcode or errno word of the ClusterIP by UDP"),
        fact("cluster_tcp", "text", "the same by TCP"),
        fact("cluster_external_udp", "text", "the same for the outside name, by UDP"),
        fact("cluster_external_tcp", "text", "the same for the outside name, by TCP"),
        fact("pods", "list", "each pod: address, udp, tcp, external_udp, external_tcp, health, ready (HTTP status or errno word)"),
        fact("upstream_grid", "list", "each resolver of `upstream`: address, udp, tcp"),
        fact("upstream_by_udp", "count", "resolvers of `upstream` that answer by UDP"),
        fact("upstream_by_tcp", "count", "resolvers of `upstream` that answer by TCP"),
        fact("addresses", "list of text", "addresses of the pods"),
        fact("answering", "count", "pods that answer by UDP"),
        fact("refusing", "count", "pods whose port 53 is refused, TCP for certain: by the pod, or by a packet filter in its place"),
        fact("silent", "count", "pods that do not answer in time by either"),
        fact("unhealthy", "count", "pods that answer DNS and not 200 on /health"),
        fact("not_ready", "count", "pods that answer DNS and not 200 on /ready"),
        fact("version", "text", "CoreDNS' version, as its metrics name it"),
        fact("plugins", "list of text", "plugins that are enabled, of all pods"),
        fact("cache_hits", "count", "answers from the cache, all pods"),
        fact("cache_misses", "count", "queries that the cache could not answer, all pods"),
        fact("forwarded", "count", "answers of upstreams, all pods"),
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
/// Resolvers of `upstream` that are asked.
const MOST_UPSTREAMS: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreDns {
    name: String,
    server: Ipv4Addr,
    #[serde(default)]
    external: Option<String>,
    #[serde(default)]
    upstream: Vec<Ipv4Addr>,
}

/// One row of the grid: a server asked for both names by both protocols. What was not asked for is empty.
#[derive(Default)]
struct Row {
    udp: String,
    tcp: String,
    external_udp: String,
    external_tcp: String,
}

/// What one pod said.
struct Pod {
    address: Ipv4Addr,
    dns: Row,
    health: String,
    ready: String,
    metrics: Result<String, String>,
}

/// The names that are asked for.
struct Names {
    internal: Name,
    external: Option<Name>,
}

impl CoreDns {
    fn names(&self) -> Result<Names, String> {
        let absolute = |name: &String| Name::from_ascii(name).map_err(|_| format!("`{}` is no valid name", clean(name, 253)));
        Ok(Names { internal: absolute(&self.name)?, external: self.external.as_ref().map(absolute).transpose()? })
    }
}

#[async_trait]
impl Probe for CoreDns {
    async fn observe(&self, cx: &Context) -> Observation {
        let names = match self.names() {
            Ok(names) => names,
            Err(reason) => return Observation::could_not_look(reason),
        };
        let look = async {
            let (source, addresses) = addresses(cx).await;
            (source, join_all(addresses.into_iter().map(|address| pod(cx, address, &names))).await)
        };
        let upstream = join_all(self.upstream.iter().take(MOST_UPSTREAMS).map(|address| outside(cx, *address, &names)));
        let (cluster, upstream, (source, pods)) = tokio::join!(row(cx, self.server, &names), upstream, look);
        let mut seen = Observation::default();
        seen.note("dns", format!("{} {}", self.server, cluster.line()));
        seen.facts.set("source", source).set("cluster_udp", cluster.udp).set("cluster_tcp", cluster.tcp);
        for (path, word) in [("cluster_external_udp", cluster.external_udp), ("cluster_external_tcp", cluster.external_tcp)] {
            seen.facts.set_or_unknown(path, (!word.is_empty()).then_some(word), "no outside name was given");
        }
        record(&mut seen, &pods);
        record_upstream(&mut seen, self.upstream.iter().zip(&upstream));
        let texts: Vec<Result<&str, &str>> = pods.iter().map(|p| p.metrics.as_deref().map_err(String::as_str)).collect();
        metrics::record(&mut seen, &texts);
        seen
    }

    fn target(&self) -> String {
        format!("CoreDNS behind {}", self.server)
    }
}

/// For fuzzers: entries of a page of metrics.
pub(super) fn kept(text: &str) -> usize {
    metrics::Totals::default().add(text).entries()
}

async fn word(cx: &Context, server: Ipv4Addr, name: &Name, transport: Transport) -> String {
    ask(&cx.vantage.net, SocketAddrV4::new(server, 53), name, transport, cx.deadline).await.rcode
}

async fn row(cx: &Context, server: Ipv4Addr, names: &Names) -> Row {
    let internal = |transport| word(cx, server, &names.internal, transport);
    let (udp, tcp, outside) = tokio::join!(internal(Transport::Udp), internal(Transport::Tcp), outside(cx, server, names));
    Row { udp, tcp, ..outside }
}

/// Only the outside name.
async fn outside(cx: &Context, server: Ipv4Addr, names: &Names) -> Row {
    let Some(name) = &names.external else { return Row::default() };
    let (external_udp, external_tcp) = tokio::join!(word(cx, server, name, Transport::Udp), word(cx, server, name, Transport::Tcp));
    Row { external_udp, external_tcp, ..Row::default() }
}

impl Row {
    fn line(&self) -> String {
        let both = |udp: &str, tcp: &str| format!("UDP {udp}, TCP {tcp}");
        match (self.udp.is_empty(), self.external_udp.is_empty()) {
            (true, _) => format!("outside {}", both(&self.external_udp, &self.external_tcp)),
            (false, true) => both(&self.udp, &self.tcp),
            (false, false) => format!("{}; outside {}", both(&self.udp, &self.tcp), both(&self.external_udp, &self.external_tcp)),
        }
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

async fn pod(cx: &Context, address: Ipv4Addr, names: &Names) -> Pod {
    let (dns, health, ready) = tokio::join!(row(cx, address, names), page(cx, address, 8080, "/health"), page(cx, address, 8181, "/ready"));
    // After the queries: CoreDNS counts an upstream only once it has forwarded to it.
    let metrics = match page(cx, address, 9153, "/metrics").await {
        Ok((200, body)) => Ok(body),
        Ok((status, _)) => Err(status.to_string()),
        Err(word) => Err(word),
    };
    let word = |page: &Result<(u16, String), String>| page.as_ref().map_or_else(Clone::clone, |(status, _)| status.to_string());
    Pod { address, dns, health: word(&health), ready: word(&ready), metrics }
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
    for pod in pods {
        seen.note("coredns", format!("{} {}; /health {}, /ready {}", pod.address, pod.dns.line(), pod.health, pod.ready));
    }
    seen.facts
        .set("addresses", pods.iter().map(|p| p.address.to_string()).collect::<Vec<_>>())
        .set("answering", count(&|p| answered(&p.dns.udp)))
        .set("refusing", count(&Pod::refuses))
        .set("silent", count(&|p| p.dns.udp == "TIMEOUT" && !answered(&p.dns.tcp) && !p.refuses()))
        .set("unhealthy", count(&|p| answered(&p.dns.udp) && p.health != "200"))
        .set("not_ready", count(&|p| answered(&p.dns.udp) && p.ready != "200"))
        .set("pods", pods.iter().map(Pod::to_json).collect::<Vec<_>>());
}

impl Pod {
    /// A connection is refused, and no datagram is answered. The ICMP error for one may be missing: a kernel sends only a few of them
    /// in a row to the same address, then one a second (icmp_ratelimit, icmp(7)), and there are several queries.
    fn refuses(&self) -> bool {
        self.dns.tcp == "ECONNREFUSED" && matches!(self.dns.udp.as_str(), "ECONNREFUSED" | "TIMEOUT")
    }

    fn to_json(&self) -> Value {
        json!({"address": self.address.to_string(), "udp": self.dns.udp, "tcp": self.dns.tcp, "external_udp": self.dns.external_udp,
            "external_tcp": self.dns.external_tcp, "health": self.health, "ready": self.ready})
    }
}

fn record_upstream<'a>(seen: &mut Observation, asked: impl Iterator<Item = (&'a Ipv4Addr, &'a Row)>) {
    let asked: Vec<_> = asked.filter(|(_, row)| !row.external_udp.is_empty()).collect();
    let grid =
        |(address, row): &(&Ipv4Addr, &Row)| json!({"address": address.to_string(), "udp": row.external_udp, "tcp": row.external_tcp});
    for (address, row) in &asked {
        seen.note("dns", format!("{address} {}", row.line()));
    }
    seen.facts
        .set("upstream_grid", asked.iter().map(grid).collect::<Vec<_>>())
        .set("upstream_by_udp", asked.iter().filter(|(_, row)| answered(&row.external_udp)).count())
        .set("upstream_by_tcp", asked.iter().filter(|(_, row)| answered(&row.external_tcp)).count());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_counts_also_where_the_icmp_error_for_a_datagram_is_missing() {
        let pod = |udp: &str, tcp: &str| Pod {
            address: Ipv4Addr::LOCALHOST,
            dns: Row { udp: udp.to_owned(), tcp: tcp.to_owned(), ..Row::default() },
            health: String::new(),
            ready: String::new(),
            metrics: Err(String::new()),
        };
        let mut seen = Observation::default();
        let words = ["ECONNREFUSED", "TIMEOUT", "NOERROR"];
        let pods: Vec<Pod> = words.iter().flat_map(|udp| words.map(|tcp| pod(udp, tcp))).collect();
        record(&mut seen, &pods);
        let counts = ["answering", "refusing", "silent"].map(|path| seen.facts.get(path).cloned());
        // Of the silent ones, TIMEOUT by both is the only one of which nothing else is known.
        assert_eq!(counts, [3, 2, 1].map(|n| Some(json!(n))));
    }
}
