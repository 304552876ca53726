//! The API server's clock is two days ahead, and K3s has just made its certificate anew: it is not valid yet anywhere else.

use super::Fault;
use crate::twin::service::pki::Validity;
use chrono::TimeDelta;

pub(super) static FAULT: Fault = Fault {
    id: "clock-skew",
    layer: 3,
    title: "the API server's clock is two days ahead, its certificate is from tomorrow",
    expects: "clock-skew",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.restart_api(&twin.hosts, &twin.cluster, &twin.inventory, Validity::NotYet).await?;
            twin.servers.set_api_clock(TimeDelta::days(2));
            Ok(())
        })
    },
    undo: |twin| Box::pin(async move { twin.servers.restart_api(&twin.hosts, &twin.cluster, &twin.inventory, Validity::Current).await }),
};
