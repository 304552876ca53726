//! Of full-size VXLAN packets in a row only the first passes the tailnet: the symptom of segmentation offload that goes wrong. The
//! twin's tailscale0 has no such offload; its relay loses what offload would lose.

use super::Fault;
use crate::twin::Twin;
use crate::twin::tailscaled::Impairment;

fn impair(twin: &Twin, loses_trains: bool) {
    for overlay in &twin.overlays {
        for peer in twin.overlays.iter().filter(|peer| peer.node.name != overlay.node.name) {
            overlay.impair(&peer.node.name, Impairment::trains(loses_trains));
        }
    }
}

pub(super) static FAULT: Fault = Fault {
    id: "vxlan-over-ts-gso-stall",
    layer: 1,
    title: "of full-size VXLAN packets in a row only the first gets through the tailnet",
    expects: "vxlan-over-ts-gso-stall",
    decided_from: &["calypso"],
    apply: |twin| {
        Box::pin(async move {
            impair(twin, true);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            impair(twin, false);
            Ok(())
        })
    },
};
