//! kube-proxy on calypso has never written its rules for argilla: there the ClusterIP leads nowhere.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "kube-proxy-rules-missing",
    layer: 3,
    title: "calypso has no service rules for argilla",
    expects: "kube-proxy-stale-dnat",
    decided_from: &["calypso", "all"],
    apply: |twin| {
        Box::pin(async move {
            let mut services = twin.cluster.service_rules();
            services.retain(|service| service.name != "argilla");
            twin.program_services("calypso", &services)
        })
    },
    undo: |twin| Box::pin(async move { twin.sync() }),
};
