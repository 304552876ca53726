//! UDP 41641 is blocked at the home router: a relay carries everything.

use super::Fault;
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::tailscaled::{PORT, Path};

/// The table that holds the fault.
const TABLE: &str = "home-filter";

pub(super) static FAULT: Fault = Fault {
    id: "derp-relay",
    layer: 1,
    title: "UDP 41641 is blocked at the home router",
    expects: "derp-relay",
    decided_from: &["calypso", "tethys", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            let home = twin.host("home")?;
            let from = Rule::new().protocol(17).source_port(PORT).counted().drop();
            let to = Rule::new().protocol(17).port(PORT).counted().drop();
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0);
            batch.rule("forward", from).rule("forward", to).commit(&home.net)?;
            twin.overlay("calypso")?.until_paths(|p| p == Path::Relayed).await?;
            twin.overlay("tethys")?.until_paths(|p| p == Path::Relayed).await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            Batch::replace(TABLE).removed().commit(&twin.host("home")?.net)?;
            twin.overlay("calypso")?.until_direct().await?;
            twin.overlay("tethys")?.until_direct().await
        })
    },
};
