//! What the tests of several probes share.

use crate::vantage::{HostFiles, Net, Source, Transport, Vantage, VantageKind};

/// A vantage in this process' own network (tests use nothing but the loopback device) with this resolv.conf.
pub(super) fn vantage(resolv_conf: &str) -> Vantage {
    Vantage {
        id: "test".into(),
        kind: VantageKind::Pod,
        transport: Transport::Local,
        why: "a test".into(),
        node: None,
        net: Net::Here,
        files: HostFiles { resolv_conf: Source::Text(resolv_conf.into()), ..HostFiles::default() },
    }
}
