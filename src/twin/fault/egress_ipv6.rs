//! The provider of tethys gives it IPv6, which no document knows and no exit node carries.

use super::Fault;
use std::net::Ipv6Addr;

/// The provider's network (RFC 3849): its router's address, and the one that tethys gets.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);
const TETHYS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x123);

pub(super) static FAULT: Fault = Fault {
    id: "egress-ipv6",
    layer: 4,
    title: "tethys has an address and a way out over IPv6 that nobody documented",
    expects: "egress-ip-differs",
    decided_from: &["tethys", "calypso,tethys", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.host("internet")?.address_six("br0", ROUTER, 64).await?;
            let tethys = twin.host("tethys")?;
            tethys.address_six("eth0", TETHYS, 64).await?;
            tethys.way_out_six(ROUTER, "eth0").await
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.host("tethys")?.without_six("eth0")?;
            twin.host("internet")?.without_six("br0")
        })
    },
};
