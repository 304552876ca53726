//! The split tunnel of the workstation's WARP excludes the service network.

use super::Fault;
use crate::twin::Twin;
use crate::twin::warp::{WarpSettings, set};
use anyhow::Result;

pub(super) static FAULT: Fault = Fault {
    id: "warp-split-tunnel-excludes-cidr",
    layer: 4,
    title: "WARP's split tunnel excludes 10.43.0.0/16 on the workstation",
    expects: "warp-split-tunnel-excludes-cidr",
    decided_from: &["workstation", "calypso,workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let services = twin.inventory.cluster.service_cidr;
            tell(twin, WarpSettings { excluded: vec![services], ..WarpSettings::default() })?;
            twin.host("workstation")?.delete_route(services, MAIN).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            tell(twin, WarpSettings::default())?;
            twin.warp_route(twin.inventory.cluster.service_cidr).await
        })
    },
};

const MAIN: u32 = 254;

fn tell(twin: &Twin, settings: WarpSettings) -> Result<()> {
    set(&twin.servers.warp, &twin.inventory, &settings)
}
