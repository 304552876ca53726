//! The exit node is on and nothing keeps the cluster's ranges out of table 52.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "exit-node-swallows-cluster-cidr",
    layer: 1,
    title: "the ip rules that keep 10.42.0.0/16 and 10.43.0.0/16 out of table 52 are gone on calypso",
    expects: "exit-node-swallows-cluster-cidr",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| Box::pin(async move { twin.overlay("calypso")?.drop_exceptions().await }),
    undo: |twin| Box::pin(async move { twin.overlay("calypso")?.lay_exceptions().await }),
};
