//! argilla's selector matches no pod: the service has no endpoints.

use super::Fault;
use crate::twin::Twin;
use anyhow::Result;
use std::collections::BTreeMap;

pub(super) static FAULT: Fault = Fault {
    id: "endpoints-empty-selector",
    layer: 3,
    title: "the selector of the service argilla matches no pod",
    expects: "endpoints-empty-selector",
    decided_from: &["calypso", "tethys", "workstation", "all"],
    apply: |twin| Box::pin(async move { select(twin, "argila") }),
    undo: |twin| Box::pin(async move { select(twin, "argilla") }),
};

fn select(twin: &Twin, value: &str) -> Result<()> {
    let selector = BTreeMap::from([("app.kubernetes.io/name".to_owned(), value.to_owned())]);
    twin.cluster.set_selector("apps", "argilla", selector);
    twin.sync()
}
