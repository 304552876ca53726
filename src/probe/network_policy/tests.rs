use super::judge::{End, Flow, Judgement, Pod, Who, judge};
use super::policy::{Labels, Policy};
use super::*;
use crate::probe::kube_client::fake::{Fake, Reply, Tls};
use crate::vantage::Net;
use serde_json::{Value, json};
use std::time::Duration;

fn policy(namespace: &str, name: &str, spec: Value) -> Policy {
    serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn pod(namespace: &str, name: &str, address: [u8; 4]) -> End {
    let pod = Pod {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        labels: labels(&[("app", name)]),
        namespace_labels: Ok(labels(&[("kubernetes.io/metadata.name", namespace)])),
        ports: vec![("http".to_owned(), "TCP".to_owned(), 6900)],
    };
    End { address: Ok(address.into()), who: Who::Pod(pod) }
}

fn node(address: [u8; 4]) -> End {
    End { address: Ok(address.into()), who: Who::Host }
}

/// From the proxy to argilla, both in `apps`.
fn flow() -> Flow {
    let (from, to) = (pod("apps", "proxy", [10, 42, 2, 17]), pod("apps", "argilla", [10, 42, 0, 226]));
    Flow { from, to, port: 6900, protocol: "TCP", own_node: false }
}

fn by(spec: Value, flow: &Flow) -> Judgement {
    judge(&[policy("apps", "p", spec)], flow)
}

fn blocked(spec: Value, flow: &Flow) -> Result<bool, String> {
    by(spec, flow).blocked
}

/// The verdict of one ingress rule for argilla.
fn rule(rule: Value, flow: &Flow) -> Result<bool, String> {
    blocked(json!({"podSelector": {"matchLabels": {"app": "argilla"}}, "ingress": [rule]}), flow)
}

#[test]
fn default_deny_blocks_whom_it_selects_and_nobody_else() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let judged = by(deny.clone(), &flow());
    assert_eq!((judged.selecting, judged.blocked), (Ok(vec!["apps/p".to_owned()]), Ok(true)));
    assert_eq!(judged.because, ["apps/p (ingress: it has no rule: it denies everything)"]);
    let elsewhere = judge(&[policy("kube-public", "p", deny)], &flow());
    assert_eq!((elsewhere.selecting, elsewhere.blocked, elsewhere.because), (Ok(vec![]), Ok(false), vec![]));
    let other = by(json!({"podSelector": {"matchLabels": {"app": "redis"}}}), &flow());
    assert_eq!((other.selecting, other.blocked), (Ok(vec![]), Ok(false)));
    assert_eq!(judge(&[], &flow()).blocked, Ok(false));
}

#[test]
fn policy_types_say_which_way_a_policy_looks() {
    // Without them: ingress, and egress only with rules for it.
    assert_eq!(blocked(json!({"podSelector": {}}), &flow()), Ok(true));
    let of_the_client = |spec: Value| by(spec, &flow());
    let client = json!({"matchLabels": {"app": "proxy"}});
    assert_eq!(of_the_client(json!({"podSelector": client})).selecting, Ok(vec![]));
    assert_eq!(of_the_client(json!({"podSelector": client, "egress": []})).blocked, Ok(false));
    let egress = of_the_client(json!({"podSelector": client, "policyTypes": ["Egress"]}));
    assert_eq!(egress.because, ["apps/p (egress: it has no rule: it denies everything)"]);
    let elsewhere = of_the_client(json!({"podSelector": client, "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "redis"}}}]}]}));
    assert_eq!(elsewhere.because, ["apps/p (egress: none of its rules is for this destination)"]);
    assert_eq!(of_the_client(json!({"podSelector": client, "policyTypes": ["Egress"], "egress": [{}]})).blocked, Ok(false));
    assert_eq!(of_the_client(json!({"podSelector": client, "policyTypes": ["Egress"]})).isolated, Ok(true));
    assert_eq!(of_the_client(json!({"podSelector": client, "egress": [{"ports": [{"port": 53}]}]})).isolated, Ok(false));
    // Both ends have to allow it.
    let both = [
        policy("apps", "in", json!({"podSelector": {}, "ingress": [{}]})),
        policy("apps", "out", json!({"podSelector": {}, "policyTypes": ["Egress"]})),
    ];
    assert_eq!(judge(&both, &flow()).because, ["apps/out (egress: it has no rule: it denies everything)"]);
}

#[test]
fn policies_add_up() {
    let deny = policy("apps", "deny", json!({"podSelector": {}}));
    let allow =
        policy("apps", "allow", json!({"podSelector": {"matchLabels": {"app": "argilla"}}, "ingress": [{"from": [{"podSelector": {}}]}]}));
    let judged = judge(&[deny, allow], &flow());
    assert_eq!((judged.selecting, judged.blocked), (Ok(vec!["apps/allow".to_owned(), "apps/deny".to_owned()]), Ok(false)));
}

#[test]
fn peers_are_pods_of_the_own_namespace_unless_they_name_others() {
    let selector = json!({"matchLabels": {"app": "proxy"}});
    assert_eq!(rule(json!({"from": [{"podSelector": selector}]}), &flow()), Ok(false));
    let stranger = Flow { from: pod("other", "proxy", [10, 42, 2, 19]), ..flow() };
    assert_eq!(rule(json!({"from": [{"podSelector": selector}]}), &stranger), Ok(true));
    let named = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["other"]}]});
    assert_eq!(rule(json!({"from": [{"namespaceSelector": named}]}), &stranger), Ok(false));
    assert_eq!(rule(json!({"from": [{"namespaceSelector": {}}]}), &stranger), Ok(false));
    // Both selectors in one peer must hold; in two peers either.
    let (both, none) = (json!({"namespaceSelector": named, "podSelector": {"matchLabels": {"app": "redis"}}}), json!({"podSelector": {}}));
    assert_eq!(rule(json!({"from": [both]}), &stranger), Ok(true));
    assert_eq!(rule(json!({"from": [both, none, {"namespaceSelector": named}]}), &stranger), Ok(false));
    // An empty list of peers means everybody, a node is nobody's pod.
    assert_eq!(rule(json!({"from": []}), &stranger), Ok(false));
    assert_eq!(rule(json!({"from": [{"namespaceSelector": {}}]}), &Flow { from: node([10, 42, 2, 0]), ..flow() }), Ok(true));
}

#[test]
fn every_operator_of_a_selector_is_understood_and_no_other() {
    let with = |operator: &str, key: &str, values: Value| {
        let expression = json!({"key": key, "operator": operator, "values": values});
        by(json!({"podSelector": {"matchExpressions": [expression]}}), &flow()).selecting.map(|selecting| !selecting.is_empty())
    };
    assert_eq!([with("In", "app", json!(["argilla"])), with("In", "tier", json!(["x"]))], [Ok(true), Ok(false)]);
    assert_eq!([with("NotIn", "app", json!(["argilla"])), with("NotIn", "tier", json!(["x"]))], [Ok(false), Ok(true)]);
    assert_eq!([with("Exists", "app", json!(null)), with("Exists", "tier", json!(null))], [Ok(true), Ok(false)]);
    assert_eq!([with("DoesNotExist", "app", json!(null)), with("DoesNotExist", "tier", json!(null))], [Ok(false), Ok(true)]);
    assert!(with("Gt", "app", json!(["1"])).unwrap_err().contains("operator `Gt`"));
}

#[test]
fn address_blocks_have_exceptions() {
    let block = |cidr: &str, except: &[&str], from: [u8; 4]| {
        rule(json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}), &Flow { from: node(from), ..flow() })
    };
    assert_eq!(block("10.42.0.0/16", &[], [10, 42, 2, 0]), Ok(false));
    assert_eq!(block("10.42.0.0/16", &["10.42.2.0/24"], [10, 42, 2, 0]), Ok(true));
    assert_eq!(block("192.0.2.0/24", &[], [10, 42, 2, 0]), Ok(true));
    assert_eq!(block("2001:db8::/32", &[], [10, 42, 2, 0]), Ok(true));
    assert!(block("everything", &[], [10, 42, 2, 0]).is_err() && block("10.42.0.0/16", &["x"], [10, 42, 2, 0]).is_err());
    let unknown = End { address: Err("by WARP".to_owned()), who: Who::Unknown("by WARP".to_owned()) };
    assert_eq!(rule(json!({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}), &Flow { from: unknown, ..flow() }), Err("by WARP".to_owned()));
}

#[test]
fn ports_are_numbers_names_and_ranges_of_one_protocol() {
    let port = |port: Value| rule(json!({"ports": [port]}), &flow());
    assert_eq!([port(json!({"port": 6900})), port(json!({"port": 80})), port(json!({}))], [Ok(false), Ok(true), Ok(false)]);
    assert_eq!([port(json!({"port": "http"})), port(json!({"port": "metrics"}))], [Ok(false), Ok(true)]);
    assert_eq!([port(json!({"port": 6000, "endPort": 6999})), port(json!({"port": 6000, "endPort": 6899}))], [Ok(false), Ok(true)]);
    assert_eq!([port(json!({"protocol": "UDP", "port": 6900})), port(json!({"protocol": "UDP"}))], [Ok(true), Ok(true)]);
    assert!(port(json!({"port": "http", "endPort": 6999})).is_err());
    let judged = by(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}), &flow());
    assert_eq!(judged.because, ["apps/p (ingress: its rules for this peer leave out port 6900/TCP)"]);
}

#[test]
fn a_name_of_a_port_means_the_destinations() {
    let egress =
        |port: &str| blocked(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": port}]}]}), &flow());
    assert_eq!([egress("http"), egress("metrics")], [Ok(false), Ok(true)]);
}

#[test]
fn the_pods_own_node_is_let_in_and_a_pod_does_not_block_itself() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let own = Flow { from: node([10, 42, 0, 1]), own_node: true, ..flow() };
    let judged = by(deny.clone(), &own);
    assert_eq!((judged.selecting, judged.blocked), (Ok(vec!["apps/p".to_owned()]), Ok(false)));
    assert_eq!(blocked(deny.clone(), &Flow { from: node([10, 42, 2, 0]), ..flow() }), Ok(true));
    assert_eq!(blocked(deny, &Flow { from: flow().to, ..flow() }), Ok(false));
}

#[test]
fn what_is_not_understood_is_undecided_unless_the_rest_decides() {
    let strange = json!({"fqdn": "example.com"});
    for part in [json!({"from": [strange]}), json!({"with": strange}), json!({"ports": [{"port": 80, "to": strange}]})] {
        assert!(rule(part.clone(), &flow()).unwrap_err().contains("not understood"), "{part}");
    }
    assert_eq!(rule(json!({"from": [{"podSelector": {}}, strange]}), &flow()), Ok(false));
    let opaque = policy("apps", "opaque", json!({"podSelector": {}, "ingress": 7}));
    let judged = judge(&[opaque], &flow());
    assert!(judged.selecting.unwrap_err().starts_with("apps/opaque is not understood"));
    assert!(judged.blocked.is_err() && judged.because.is_empty());
    let newer = json!({"podSelector": {}, "clientSelector": {}});
    assert_eq!(blocked(newer, &flow()), Err("apps/p: the field `clientSelector` is not understood".to_owned()));
}

#[test]
fn of_an_unknown_client_only_policies_about_egress_are_undecided() {
    let from = End { address: Err("by WARP".to_owned()), who: Who::Unknown("by WARP".to_owned()) };
    let flow = Flow { from, ..flow() };
    assert_eq!(blocked(json!({"podSelector": {}}), &flow), Ok(true));
    assert_eq!(by(json!({"podSelector": {"matchLabels": {"app": "redis"}}}), &flow).selecting, Ok(vec![]));
    let judged = by(json!({"podSelector": {"matchLabels": {"app": "redis"}}, "policyTypes": ["Egress"]}), &flow);
    assert_eq!((judged.selecting, judged.blocked), (Err("apps/p: by WARP".to_owned()), Err("apps/p: by WARP".to_owned())));
    // Whoever it selects, it allows everything.
    assert_eq!(blocked(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}), &flow), Ok(false));
}

#[test]
fn the_captured_policy_concerns_its_own_namespace_only() {
    let Reply::Body(_, body) = Reply::capture("list-networkpolicies") else { unreachable!() };
    let list: Value = serde_json::from_slice(&body).unwrap();
    let policies: Vec<Policy> = serde_json::from_value(list["items"].clone()).unwrap();
    assert_eq!(judge(&policies, &flow()).selecting, Ok(vec![]));
    let inside = Flow { from: pod("kube-public", "a", [10, 42, 0, 9]), to: pod("kube-public", "b", [10, 42, 0, 8]), ..flow() };
    let judged = judge(&policies, &inside);
    assert_eq!((judged.selecting, judged.blocked), (Ok(vec!["kube-public/deny-all".to_owned()]), Ok(true)));
    assert_eq!(judged.because.len(), 2);
}

const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

fn listed(policies: &[Value]) -> Reply {
    Reply::json(&json!({"kind": "NetworkPolicyList", "metadata": {}, "items": policies}))
}

/// A service whose endpoint is a pod on loopback, and the policies.
fn routes(policies: Reply, port: u16) -> Vec<(&'static str, Reply)> {
    let service = json!({"metadata": {"name": "argilla", "namespace": "apps"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "http", "port": port}]});
    let pod = json!({"metadata": {"name": "argilla-1", "namespace": "apps", "labels": {"app": "argilla"}},
        "spec": {"nodeName": "tethys", "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": port}]}]}});
    vec![
        (POLICIES, policies),
        ("/apis", offered(&["discovery.k8s.io"])),
        ("/api/v1/namespaces/apps/services/argilla", Reply::json(&service)),
        ("/apis/discovery.k8s.io/v1/namespaces/apps/endpointslices", Reply::json(&json!({"metadata": {}, "items": [slice]}))),
        ("/api/v1/pods", Reply::json(&json!({"metadata": {}, "items": [pod]}))),
    ]
}

/// What `/apis` says: groups.
fn offered(groups: &[&str]) -> Reply {
    let groups: Vec<Value> = groups.iter().map(|name| json!({"name": name, "versions": []})).collect();
    Reply::json(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

async fn observe(routes: &[(&'static str, Reply)]) -> Observation {
    let fake = Fake::start(&Net::Here, Tls::Good, routes);
    let probe = (KIND.decode)(&toml::from_str("name = 'argilla'\nnamespace = 'apps'\nport = 80").unwrap()).unwrap();
    probe.observe(&fake.context(Net::Here, Duration::from_secs(9))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_policies_nothing_else_is_asked_for() {
    let facts = observe(&[(POLICIES, listed(&[])), ("/apis", offered(&["networking.k8s.io"]))]).await.facts.to_json();
    assert_eq!((&facts["policies"], &facts["selecting"], &facts["blocked"]), (&json!(0), &json!([]), &json!(false)));
    assert_eq!(facts["connect"], json!({"unknown": "not asked for: there are no policies"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_list_policies_knows_nothing() {
    let seen = observe(&[(POLICIES, Reply::capture("forbidden-pods"))]).await;
    assert_eq!(seen.could_not_look.as_deref(), Some("403 Forbidden (list networkpolicies)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_concerns_the_pod_is_judged_and_connected_through() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let deny = json!({"metadata": {"name": "deny", "namespace": "apps"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    let facts = observe(&routes(listed(&[deny]), port)).await.facts.to_json();
    assert_eq!((&facts["pod"], &facts["pod_node"], &facts["own_node"]), (&json!("apps/argilla-1"), &json!("tethys"), &json!(false)));
    // On loopback both ends are one: a pod does not block itself.
    assert_eq!((&facts["selecting"], &facts["blocked"], &facts["connect"]), (&json!(["apps/deny"]), &json!(false), &json!("ok")));
    assert_eq!(facts["ping"], json!({"unknown": "not asked for: it connects"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_elsewhere_costs_no_connection() {
    let elsewhere = json!({"metadata": {"name": "deny", "namespace": "other"}, "spec": {"podSelector": {}}});
    let facts = observe(&routes(listed(&[elsewhere]), 6900)).await.facts.to_json();
    assert_eq!((&facts["selecting"], &facts["blocked"], &facts["because"]), (&json!([]), &json!(false), &json!([])));
    assert_eq!(facts["connect"], json!({"unknown": "not asked for: no policy concerns it"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_namespaces_that_may_not_be_read_leave_it_undecided() {
    let by_namespace = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]});
    let policy = policy("apps", "p", by_namespace);
    let (mut from, to) = (pod("apps", "proxy", [10, 42, 2, 17]), flow().to);
    if let Who::Pod(pod) = &mut from.who {
        pod.namespace_labels = Err("403 Forbidden (get namespaces)".to_owned());
    }
    assert_eq!(judge(&[policy], &Flow { from, to, ..flow() }).blocked, Err("403 Forbidden (get namespaces)".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_policy_engine_nothing_is_claimed_and_it_connects_all_the_same() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut routes = routes(listed(&[]), listener.local_addr().unwrap().port());
    routes[1].1 = offered(&["discovery.k8s.io", "cilium.io"]);
    let facts = observe(&routes).await.facts.to_json();
    assert_eq!((&facts["policies"], &facts["other_engines"]), (&json!(0), &json!(["cilium.io"])));
    for path in ["selecting", "blocked", "because", "isolated"] {
        assert_eq!(facts[path], json!({"unknown": "policies of cilium.io may decide as well, and are not read"}), "{path}");
    }
    assert_eq!(facts["connect"], json!("ok"));
    // Who cannot find out which engines there are knows no more.
    routes[1].1 = Reply::capture("forbidden-pods");
    let facts = observe(&routes).await.facts.to_json();
    assert!(facts["other_engines"]["unknown"].is_string() && facts["blocked"]["unknown"].is_string(), "{facts}");
}
