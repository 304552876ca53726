//! What kube-proxy 1.33 says of itself on a node's loopback: health on port 10256, mode and metrics on port 10249.

use super::ServerHandle;
use super::http::{self, Style, answer};
use crate::vantage::Net;
use hyper::StatusCode;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Serves both ports. It has just synced, and nothing waits.
pub fn serve(net: &Net) -> io::Result<Vec<ServerHandle>> {
    let synced = chrono::Utc::now();
    let listen = |port| {
        http::serve(net, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), None, Style::Title, move |_, request| {
            let body = page(port, request.uri().path(), synced);
            async move {
                match body {
                    Some((kind, body)) => answer(StatusCode::OK, &[("content-type", kind)], body),
                    None => answer(StatusCode::NOT_FOUND, &[("content-type", "text/plain; charset=utf-8")], "404 page not found\n"),
                }
            }
        })
    };
    [10256, 10249].into_iter().map(listen).collect()
}

/// Content type and body.
fn page(port: u16, path: &str, synced: chrono::DateTime<chrono::Utc>) -> Option<(&'static str, String)> {
    let at = synced.timestamp();
    Some(match (port, path) {
        (10256, "/healthz") => {
            let now = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S%.9f +0000 UTC");
            ("application/json", format!("{{\"lastUpdated\": \"{now}\",\"currentTime\": \"{now}\", \"nodeEligible\": true}}"))
        }
        (10249, "/proxyMode") => ("text/plain; charset=utf-8", "nftables".to_owned()),
        (10249, "/metrics") => (
            "text/plain; version=0.0.4; charset=utf-8",
            format!(
                "# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge\n\
                 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds {at}\n\
                 # TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n\
                 kubeproxy_sync_proxy_rules_last_timestamp_seconds {at}\n"
            ),
        ),
        _ => return None,
    })
}
