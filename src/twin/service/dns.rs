//! DNS servers: a stand-in for CoreDNS with K3s' Corefile, and a resolver of the outside.

mod answer;
mod coredns;
mod forward;
mod metrics;
mod outside;
mod special;

pub use coredns::{CoreDns, CoreDnsHandle};
pub use outside::{OutsideHandle, serve_failing, serve_outside};

use super::ServerHandle;
use super::handle::{address_of, bind_udp, listen};
use crate::vantage::Net;
use answer::{Answers, Handler};
use hickory_server::Server;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

/// How long an idle TCP connection is kept (CoreDNS' default).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait on one TCP connection.
const TCP_BUFFER: usize = 32;

/// Serves answers by UDP and TCP at one address.
fn serve(net: &Net, address: SocketAddrV4, answers: impl Answers) -> io::Result<ServerHandle> {
    let tcp = listen(net, address)?;
    let bound = address_of(&tcp).unwrap_or(address);
    let udp = bind_udp(net, bound)?;
    let mut server = Server::new(Handler(answers));
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    server.register_socket(udp);
    let mut handle = ServerHandle::new(Some(bound));
    handle.spawn(|mut stop| async move {
        tokio::select! {
            () = stop.wait() => { server.shutdown_gracefully().await.ok(); }
            _ = server.block_until_done() => {}
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests;
