//! What stands in front of the documented HTTP endpoints answers in their place.

use super::Fault;
use crate::twin::Twin;
use crate::twin::service::apps::Instead;
use anyhow::Result;
use futures::future::BoxFuture;

pub(super) static EXTERNAL_5XX: Fault = Fault {
    id: "external-5xx",
    layer: 4,
    title: "Cloudflare answers 530 (error 1033) in the place of the upload portal: its tunnel is gone",
    expects: "external-5xx",
    decided_from: &["calypso", "workstation", "ci", "all"],
    apply: |twin| Box::pin(async move { edge(twin, 530, "error code: 1033") }),
    undo: mend,
};

pub(super) static CF_524: Fault = Fault {
    id: "cf-524",
    layer: 4,
    title: "Cloudflare gives up on the origin of the upload portal: 524",
    expects: "cf-524",
    decided_from: &["calypso", "workstation", "ci", "all"],
    apply: |twin| Box::pin(async move { edge(twin, 524, "error code: 524") }),
    undo: mend,
};

/// An answer of Cloudflare's edge itself. The real 524 takes 100 s or more; here the edge is less patient.
fn edge(twin: &Twin, status: u16, body: &str) -> Result<()> {
    let headers = vec![("cf-ray", "9a3b1f2c4d5e6f70-FRA".to_owned()), ("cache-control", "no-store".to_owned())];
    twin.servers.set_portals(Some(&Instead { status, server: "cloudflare", headers, body: body.to_owned() }));
    Ok(())
}

fn mend(twin: &Twin) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        twin.servers.set_portals(None);
        Ok(())
    })
}
