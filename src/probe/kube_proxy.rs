//! `kube-proxy`: where this node's packet filter leads connections to a Service, against its EndpointSlices.
//!
//! kube-proxy writes rules some time after the slices have changed (`minSyncPeriod`, 1 s by default). A difference counts only if it is
//! still there [`SYNC`] later.

mod word;

use super::kube_client::{self, At, Connected};
use super::nft::{OUTPUT, PREROUTING, Packet, Walker, Ways};
use super::service::backends::{self, Backends, SliceText};
use super::{Context, Kind, Probe, decode, fact, nft};
use crate::check::{Facts, Observation, clean};
use crate::def::inventory::Protocol;
use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Twice kube-proxy's `minSyncPeriod`.
const SYNC: Duration = Duration::from_secs(2);
/// The device that holds the ClusterIPs in kube-proxy's IPVS mode.
const IPVS_DEVICE: &str = "kube-ipvs0";
/// Why there are no rules to compare.
const BY_IPVS: &str = "kube-proxy runs in IPVS mode here: where its virtual servers lead is not in the packet filter, and not read";
const BY_NOBODY: &str = "there are no rules of kube-proxy's nftables or iptables mode at all: another program may lead services";
/// Addresses that are listed as a fact.
const MOST_LISTED: usize = 50;

/// Where this node's packet filter leads connections to a Service, against its EndpointSlices.
pub(super) static KIND: Kind = Kind {
    name: "kube-proxy",
    root: "proxy",
    about: "Where this node's packet filter leads connections to a Service, against its EndpointSlices",
    privilege: Some("CAP_NET_ADMIN; a kubeconfig for the comparison"),
    args: &[
        ("name", "service name"),
        ("namespace", "namespace"),
        ("port", "service port"),
        ("protocol", "`tcp` (default) or `udp`"),
        ("cluster_ip", "ClusterIP to ask for where the API does not tell it (absent: none)"),
    ],
    facts: &[
        fact(
            "layout",
            "text",
            "whose rules a packet passes: `nftables`, `iptables` (in nf_tables), `iptables-legacy`, `both` if more than one of these, `ipvs` if there are none and kube-proxy's IPVS device is there, `other`, or `none` if nothing translates it",
        ),
        fact("targets", "list of text", "where a connection of the node itself would be led, address:port"),
        fact("pod_targets", "list of text", "where a connection of a pod on the node would be led"),
        fact("refused", "bool", "no rule translates it, and one refuses it"),
        fact("policy", "text", "internalTrafficPolicy: `Cluster`, or `Local`: this node leads to its own endpoints only"),
        fact("endpoints", "list of text", "ready endpoints by the EndpointSlices; with the policy `Local` those on this node"),
        fact("elsewhere", "count", "ready endpoints on other nodes that the policy `Local` leaves out"),
        fact("stale", "list of text", "targets that the slices do not list as ready or terminating"),
        fact("missing", "list of text", "ready endpoints that no rule leads to"),
        fact(
            "in_step",
            "bool",
            "the node's own connections are led to the ready endpoints and nowhere else; a difference counts if it lasts 2 s",
        ),
        fact("healthz", "text", "kube-proxy's health on the node's loopback (port 10256): `ok`, the HTTP status or the errno word"),
        fact("mode", "text", "the mode that it says it runs in (port 10249): `nftables`, `iptables`, `ipvs`"),
        fact("synced_s_ago", "s", "age of its last sync"),
        fact("waiting_s", "s", "for how long a change has been waiting for a sync; 0 if none is"),
    ],
    decode: decode::<KubeProxy>,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KubeProxy {
    name: String,
    namespace: String,
    port: u16,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    cluster_ip: Option<Ipv4Addr>,
}

/// What the API says.
struct Wanted {
    cluster_ip: Ipv4Addr,
    backends: Backends,
    policy: String,
    /// Ready endpoints that the policy leaves out.
    elsewhere: usize,
    /// Why not every ready endpoint has to be used by this node; empty if each has to be.
    partial: &'static str,
}

#[async_trait]
impl Probe for KubeProxy {
    async fn observe(&self, cx: &Context) -> Observation {
        let (mut seen, word) = tokio::join!(self.compared(cx), word::ask(cx));
        word.record(&mut seen, chrono::Utc::now().timestamp());
        seen
    }

    fn target(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl KubeProxy {
    /// Rules and slices; a second time if they differ: kube-proxy may be about to write.
    async fn compared(&self, cx: &Context) -> Observation {
        let mut first = self.look(cx).await;
        if !differs(&first) {
            return first;
        }
        if cx.deadline.saturating_duration_since(tokio::time::Instant::now()) < SYNC * 2 {
            first.facts.unknown("in_step", "rules and slices differed, and there was no time to see whether that lasts");
            return first;
        }
        tokio::time::sleep(SYNC).await;
        let mut second = self.look(cx).await;
        if differs(&second) && ["stale", "missing"].iter().any(|path| first.facts.get(path) != second.facts.get(path)) {
            second.facts.unknown("in_step", "rules and slices differ in another way than 2 s before: they are changing");
        } else if differs(&second) {
            second.note("again", format!("the same difference was there {} s before", SYNC.as_secs()));
        }
        second
    }

    async fn look(&self, cx: &Context) -> Observation {
        let wanted = self.wanted(cx).await;
        let cluster_ip = match (&wanted, self.cluster_ip) {
            (Ok(wanted), _) => wanted.cluster_ip,
            (Err(_), Some(ip)) => ip,
            (Err(reason), None) => return Observation::could_not_look(reason.clone()),
        };
        let packet = Packet::to(cluster_ip, self.port, if self.protocol == Protocol::Udp { 17 } else { 6 });
        let net = cx.vantage.net.clone();
        let followed = tokio::task::spawn_blocking(move || follow(&net, packet)).await;
        let (own, of_pods, absent) = match followed.unwrap_or_else(|_| Err("the reader of nftables ended badly".to_owned())) {
            Ok(ways) => ways,
            Err(reason) => return Observation::could_not_look(reason),
        };
        let mut seen = Observation::default();
        let protocol = if packet.protocol == 17 { "udp" } else { "tcp" };
        seen.note("asked", format!("first packet of a connection to {}:{}/{protocol}", packet.to, packet.port));
        describe(&mut seen, &own, &of_pods);
        if absent == Some(BY_IPVS) {
            seen.note("device", IPVS_DEVICE).facts.set("layout", "ipvs");
        }
        match wanted {
            Ok(wanted) => compare(&mut seen, &wanted, &own, absent),
            Err(reason) => {
                seen.note("error", &reason);
                for path in ["policy", "endpoints", "elsewhere", "stale", "missing", "in_step"] {
                    seen.facts.unknown(path, &reason);
                }
            }
        }
        seen
    }

    /// Service and slices, through the API.
    async fn wanted(&self, cx: &Context) -> Result<Wanted, String> {
        let api = &kube_client::connected(cx).await?;
        let (namespace, name) = (kube_client::encode(&self.namespace), kube_client::encode(&self.name));
        let service = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let slices =
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}");
        let (service, slices) = tokio::join!(api.object(&service, "get services"), list(api, &slices));
        let service: core::Service = service.map_err(|failure: kube_client::Failure| match failure.at {
            At::Status(404) => "the service does not exist".to_owned(),
            _ => format!("the Kubernetes API did not give the service: {}", failure.word),
        })?;
        let spec = service.spec.clone().unwrap_or_default();
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default().parse();
        let cluster_ip = cluster_ip.map_err(|_| "the service has no IPv4 ClusterIP".to_owned())?;
        let udp = self.protocol == Protocol::Udp;
        let mut ports = spec.ports.iter().flatten().filter(|p| p.port == i32::from(self.port) && backends::is_tcp(p) != udp);
        let entry = ports.next().ok_or_else(|| format!("the service has no port {}", self.port))?;
        let slices = slices?;
        let hinted = slices.iter().any(SliceText::is_hinted);
        let policy = clean(spec.internal_traffic_policy.as_deref().unwrap_or("Cluster"), 32);
        let mut backends = backends::collect(&slices, entry.name.as_deref());
        let all = backends.ready.len();
        let own = cx.vantage.node.as_deref().and_then(|node| cx.inventory.node(node));
        let partial = match (policy.as_str(), own) {
            ("Local", Some(own)) => {
                let home = |at: &SocketAddrV4| slices.iter().find_map(|slice| slice.node_of(*at.ip()));
                backends.ready.retain(|at| home(at) == Some(own.kube_name.as_str()));
                ""
            }
            ("Local", None) => "internalTrafficPolicy is Local, and the inventory does not say which node this is",
            _ if hinted => "the slices have topology hints: each node uses some of the endpoints",
            _ => "",
        };
        let elsewhere = all - backends.ready.len();
        Ok(Wanted { cluster_ip, backends, policy, elsewhere, partial })
    }
}

async fn list(api: &Connected, path: &str) -> Result<Vec<SliceText>, String> {
    api.list(path, "list endpointslices").await.map_err(|failure| format!("the endpoints could not be listed: {}", failure.word))
}

fn differs(seen: &Observation) -> bool {
    seen.facts.get("in_step").and_then(|value| value.as_bool()) == Some(false)
}

/// Ways of the node's own packets and of its pods', and why there are no rules of kube-proxy here, if there are none.
fn follow(net: &crate::vantage::Net, packet: Packet) -> Result<(Ways, Ways, Option<&'static str>), String> {
    let mut walker = Walker::read(net).map_err(|e| nft::refused(&e))?;
    let mut ways = |hook| walker.ways(packet, hook).map_err(|e| format!("cannot follow the rules for {}:{}: {e}", packet.to, packet.port));
    let (own, of_pods) = (ways(OUTPUT)?, ways(PREROUTING)?);
    let devices = || net.with(|| std::fs::read_to_string("/proc/thread-self/net/dev")).and_then(|read| read).unwrap_or_default();
    let absent = match walker.holds_kube_proxys() || !own.targets.is_empty() {
        true => None,
        false if has_ipvs_device(&devices()) => Some(BY_IPVS),
        false => Some(BY_NOBODY),
    };
    Ok((own, of_pods, absent))
}

/// Whether proc_net_dev(5) lists the device on which kube-proxy keeps the ClusterIPs in IPVS mode.
fn has_ipvs_device(devices: &str) -> bool {
    devices.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| name.trim() == IPVS_DEVICE)
}

fn texts<'a>(addresses: impl Iterator<Item = &'a SocketAddrV4>) -> Vec<String> {
    addresses.take(MOST_LISTED).map(ToString::to_string).collect()
}

fn describe(seen: &mut Observation, own: &Ways, of_pods: &Ways) {
    for (who, ways) in [("of the node itself", own), ("of its pods", of_pods)] {
        let targets = texts(ways.targets.iter()).join(", ");
        let fate = match (targets.is_empty(), ways.refused) {
            (false, _) => format!("translated to {targets}"),
            (true, true) => "refused".to_owned(),
            (true, false) => "passes untranslated".to_owned(),
        };
        seen.note("rules", format!("{who}: {fate}{}", if ways.unread { "; or to a target that could not be read" } else { "" }));
    }
    let facts = &mut seen.facts;
    set_targets(facts, "targets", own);
    set_targets(facts, "pod_targets", of_pods);
    facts.set("refused", own.targets.is_empty() && !own.unread && own.refused);
    let layouts: BTreeSet<_> = own.layouts.union(&of_pods.layouts).copied().collect();
    let translated = !own.targets.is_empty() || own.unread;
    facts.set(
        "layout",
        match (layouts.len(), layouts.first()) {
            (2.., _) => "both",
            (_, Some(one)) => one,
            (_, None) if translated => "other",
            (_, None) => "none",
        },
    );
}

fn set_targets(facts: &mut Facts, path: &str, ways: &Ways) {
    if ways.unread {
        facts.unknown(path, "a rule translates to a target that could not be read");
    } else {
        facts.set(path, texts(ways.targets.iter()));
    }
}

fn compare(seen: &mut Observation, wanted: &Wanted, own: &Ways, absent: Option<&'static str>) {
    let ready = &wanted.backends.ready;
    let facts = &mut seen.facts;
    facts.set("endpoints", texts(ready.iter())).set("policy", wanted.policy.as_str()).set("elsewhere", wanted.elsewhere);
    let undecided = if own.unread { Some("a rule translates to a target that could not be read") } else { absent };
    if let Some(reason) = undecided {
        facts.unknown("stale", reason).unknown("missing", reason).unknown("in_step", reason);
        return;
    }
    // While no endpoint is ready, kube-proxy keeps those that terminate and still serve (KEP-1669).
    let stale: Vec<_> = own.targets.iter().filter(|t| !ready.contains(t) && !wanted.backends.terminating.contains(t.ip())).collect();
    let missing: Vec<_> = ready.iter().filter(|e| !own.targets.contains(e)).collect();
    facts.set("stale", texts(stale.iter().copied()));
    if wanted.partial.is_empty() {
        facts.set("missing", texts(missing.iter().copied())).set("in_step", stale.is_empty() && missing.is_empty());
    } else {
        facts.unknown("missing", wanted.partial);
        if stale.is_empty() {
            facts.unknown("in_step", wanted.partial)
        } else {
            facts.set("in_step", false)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn wanted(backends: Backends, partial: &'static str) -> Wanted {
        Wanted { cluster_ip: Ipv4Addr::new(10, 43, 0, 80), backends, policy: "Cluster".to_owned(), elsewhere: 0, partial }
    }

    fn facts(ready: &[&str], targets: &[&str], partial: &'static str, unread: bool) -> Value {
        let backends = Backends {
            ready: ready.iter().map(|a| address(a)).collect(),
            terminating: [Ipv4Addr::new(10, 42, 0, 8)].into(),
            ..Backends::default()
        };
        let own = Ways { targets: targets.iter().map(|a| address(a)).collect(), unread, ..Ways::default() };
        let mut seen = Observation::default();
        describe(&mut seen, &own, &Ways::default());
        compare(&mut seen, &wanted(backends, partial), &own, None);
        seen.facts.to_json()
    }

    #[test]
    fn stale_and_missing_targets_are_told_apart() {
        let both = facts(&["10.42.0.6:80", "10.42.0.7:80"], &["10.42.0.7:80", "10.42.0.9:80"], "", false);
        assert_eq!(
            (&both["stale"], &both["missing"], &both["in_step"]),
            (&json!(["10.42.0.9:80"]), &json!(["10.42.0.6:80"]), &json!(false))
        );
        let equal = facts(&["10.42.0.6:80"], &["10.42.0.6:80"], "", false);
        assert_eq!((&equal["stale"], &equal["missing"], &equal["in_step"]), (&json!([]), &json!([]), &json!(true)));
        let none = facts(&[], &[], "", false);
        assert_eq!((&none["in_step"], &none["layout"], &none["refused"]), (&json!(true), &json!("none"), &json!(false)));
    }

    #[test]
    fn endpoints_that_terminate_may_still_be_targets() {
        let facts = facts(&[], &["10.42.0.8:80"], "", false);
        assert_eq!((&facts["stale"], &facts["in_step"]), (&json!([]), &json!(true)));
    }

    #[test]
    fn nodes_that_use_only_some_endpoints_miss_none() {
        let own = facts(&["10.42.0.6:80", "10.42.0.7:80"], &["10.42.0.7:80"], "internalTrafficPolicy is Local", false);
        assert_eq!(own["missing"], json!({"unknown": "internalTrafficPolicy is Local"}));
        assert_eq!(own["in_step"], json!({"unknown": "internalTrafficPolicy is Local"}));
        let stale = facts(&["10.42.0.6:80"], &["10.42.0.9:80"], "internalTrafficPolicy is Local", false);
        assert_eq!(stale["in_step"], json!(false));
    }

    #[test]
    fn without_any_rules_of_kube_proxy_nothing_is_missing() {
        let backends = Backends { ready: [address("10.42.0.6:80")].into(), ..Backends::default() };
        let mut seen = Observation::default();
        compare(&mut seen, &wanted(backends, ""), &Ways { untouched: true, ..Ways::default() }, Some(BY_NOBODY));
        let facts = seen.facts.to_json();
        assert!(facts["in_step"]["unknown"].as_str().is_some_and(|reason| reason.contains("another program")), "{facts}");
    }

    #[test]
    fn the_device_of_ipvs_mode_is_told_by_its_whole_name() {
        let devices = |name: &str| format!("Inter-|   Receive\n face |bytes\n    lo: 0 0\n{name}:     0 0\n");
        assert!(has_ipvs_device(&devices("kube-ipvs0")) && has_ipvs_device(&devices("  kube-ipvs0")));
        assert!(!has_ipvs_device(&devices("kube-ipvs01")) && !has_ipvs_device(""));
    }

    #[test]
    fn a_target_that_cannot_be_read_decides_nothing() {
        let facts = facts(&["10.42.0.6:80"], &[], "", true);
        for path in ["targets", "stale", "missing", "in_step"] {
            assert!(facts[path]["unknown"].is_string(), "{path}: {facts}");
        }
        assert_eq!(facts["layout"], json!("other"));
    }
}
