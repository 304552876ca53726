//! What the probe kinds ask the Kubernetes API for: only `get` and `list`.

/// Resources of one API group, and what is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, in the plural.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn rule(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Rule {
    Rule { group, resource, verbs }
}

/// What a probe kind needs. `/version` and `/readyz` need no rule: `system:public-info-viewer` has them.
pub fn rules_of(kind: &str) -> &'static [Rule] {
    const SERVICE: &[Rule] = &[rule("", "services", &["get", "list"]), rule("", "pods", &["list"]), rule("", "events", &["list"]), SLICES];
    const KUBELET: &[Rule] = &[NODES, rule("", "pods", &["list"]), rule("", "pods/log", &["get"])];
    const POD_LOG: &[Rule] = &[rule("", "pods", &["list"]), rule("", "pods/log", &["get"])];
    const NODES: Rule = rule("", "nodes", &["get", "list"]);
    const SLICES: Rule = rule("discovery.k8s.io", "endpointslices", &["list"]);
    const COREDNS: &[Rule] =
        &[rule("", "pods", &["list"]), rule("", "pods/log", &["get"]), rule("", "nodes", &["get"]), rule("", "configmaps", &["get"])];
    const KUBE_PROXY: &[Rule] = &[rule("", "services", &["get", "list"]), SLICES];
    const NETWORK_POLICY: &[Rule] = &[
        rule("networking.k8s.io", "networkpolicies", &["list"]),
        rule("", "services", &["get", "list"]),
        SLICES,
        rule("", "pods", &["list"]),
        rule("", "namespaces", &["get"]),
    ];
    match kind {
        "kube" | "flannel" | "subnet" => &[NODES],
        "kubelet" => KUBELET,
        "service" => SERVICE,
        "network-policy" => NETWORK_POLICY,
        "kube-proxy" => KUBE_PROXY,
        "coredns" => &[SLICES],
        "coredns-pods" => COREDNS,
        "pod-log" => POD_LOG,
        _ => &[],
    }
}
