//! Two MTU faults that look alike: an overlay MTU too large for its underlay, and a path that loses large packets.

use super::Fault;
use crate::twin::Twin;
use crate::twin::nft::{Batch, Hook, Rule};
use anyhow::Result;

/// The table that holds the black hole.
const TABLE: &str = "path-filter";
/// What flannel had before it moved to tailscale0: Ethernet's 1500 less 50.
const FORMER: u32 = 1450;
/// Longest packet that the narrow hop takes.
const NARROW: u16 = 1100;

/// The kernel refuses a VXLAN MTU beyond its parent's; lowering the parent afterwards, as happens in life, it lets through.
async fn set(twin: &Twin, mtu: u32) -> Result<()> {
    let inv = &twin.inventory;
    for overlay in &twin.overlays {
        overlay.wire.set_mtu(&inv.overlay.parent, mtu + inv.overlay.overhead_bytes).await?;
        overlay.wire.set_mtu(&inv.overlay.device, mtu).await?;
        overlay.wire.set_mtu(&inv.overlay.parent, crate::twin::tailscaled::MTU).await?;
    }
    Ok(())
}

pub(super) static FRAGMENTS: Fault = Fault {
    id: "mtu-overlay-fragments",
    layer: 1,
    title: "flannel.1 has MTU 1450 over a tailscale0 of 1280",
    expects: "mtu-overlay-fragments",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| Box::pin(set(twin, FORMER)),
    undo: |twin| Box::pin(set(twin, crate::twin::topology::POD_MTU)),
};

pub(super) static BLACK_HOLE: Fault = Fault {
    id: "mtu-path-blackhole",
    layer: 1,
    title: "a hop between the nodes loses packets over 1100 bytes and says nothing",
    expects: "mtu-path-blackhole",
    decided_from: &["calypso", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            for overlay in &twin.overlays {
                let lost = Rule::new().in_by(&twin.inventory.tailnet.device).longer_than(NARROW).counted().drop();
                Batch::replace(TABLE).fresh().chain("in", "filter", Hook::Prerouting, -300).rule("in", lost).commit(&overlay.wire.net)?;
            }
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            for overlay in &twin.overlays {
                Batch::replace(TABLE).removed().commit(&overlay.wire.net)?;
            }
            Ok(())
        })
    },
};
