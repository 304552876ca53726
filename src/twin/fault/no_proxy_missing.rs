//! A proxy for the web is set in everybody's environment, and nobody has excepted the cluster's own names and addresses.

use super::Fault;
use crate::twin::service::apps::{App, Instead};
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddrV4};

pub(super) static FAULT: Fault = Fault {
    id: "no-proxy-missing",
    layer: 3,
    title: "HTTP_PROXY and HTTPS_PROXY are set without a NO_PROXY for the cluster, and the proxy has no way to it",
    expects: "no-proxy-missing",
    decided_from: &["workstation", "pod:apps/md-query-proxy"],
    apply: |twin| {
        Box::pin(async move {
            let here: Ipv4Addr = *twin.inventory.dns.upstream.first().context("the inventory has no upstream resolver")?;
            let app = App::new("proxy", "squid/6.13");
            let headers = vec![("via", "1.1 gate.example (squid/6.13)".to_owned()), ("x-squid-error", "ERR_CANNOT_FORWARD 0".to_owned())];
            let body = "<html><title>ERROR: The requested URL could not be retrieved</title></html>".to_owned();
            app.switch.set(Some(Instead { status: 503, server: "squid/6.13", headers, body }));
            let server = app.serve(&twin.host("internet")?.net, SocketAddrV4::new(here, 0), None)?;
            let at = server.address().context("the proxy has no address")?;
            twin.servers
                .set_environment(&format!("HTTP_PROXY=http://{at}\nHTTPS_PROXY=http://{at}\nNO_PROXY=localhost,127.0.0.1,.example\n"));
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_environment("");
            Ok(())
        })
    },
};
