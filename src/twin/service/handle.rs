//! Running servers: sockets born in a network, accept loops, and how to stop them.

use crate::vantage::Net;
use socket2::{Domain, SockRef, Socket, Type};
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections that one server holds at most; more are closed at once.
const MOST_CONNECTIONS: usize = 512;
/// Pause after a failed `accept` (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct ServerHandle {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    address: Option<SocketAddrV4>,
}

impl ServerHandle {
    /// A handle without tasks.
    pub(crate) fn new(address: Option<SocketAddrV4>) -> Self {
        Self { stop: watch::Sender::new(false), tasks: Vec::new(), address }
    }

    /// Where it listens, with the port that the kernel chose if it was asked for port 0; `None` for a unix socket.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.address
    }

    /// Starts a task of the server; it gets the signal to end.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(Stop) -> F) {
        let future = task(Stop(self.stop.subscribe()));
        self.tasks.push(tokio::spawn(future));
    }

    /// Starts an accept loop: one task per connection.
    pub(crate) fn accept<A, H, F>(&mut self, acceptor: A, handler: H)
    where
        A: Accept,
        H: Fn(A::Stream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(|stop| accept_loop(acceptor, stop, handler));
    }

    /// Stops it as a killed process stops: connections are closed, and when this returns its ports are free.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // An error means that the task has ended already.
            task.await.ok();
        }
    }
}

/// The signal to end.
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Completes when the server must end; never if its handle was dropped.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    }
}

/// A socket that accepts streams.
pub(crate) trait Accept: Send + 'static {
    /// What it accepts.
    type Stream: Send + 'static;
    /// Waits for the next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// Ends it, so that its port is free at once: closing does not do that while a child that was just forked, and has not yet
    /// become another program, holds a copy of the socket.
    fn end(&self);
}

impl Accept for TcpListener {
    type Stream = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<Self::Stream> {
        let (stream, peer) = self.accept().await?;
        // The pace of a streamed answer must be the server's, not Nagle's.
        stream.set_nodelay(true).ok();
        Ok((stream, peer))
    }

    fn end(&self) {
        SockRef::from(self).shutdown(Shutdown::Both).ok();
    }
}

impl Accept for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }

    fn end(&self) {
        SockRef::from(self).shutdown(Shutdown::Both).ok();
    }
}

async fn accept_loop<A, H, F>(acceptor: A, mut stop: Stop, handler: H)
where
    A: Accept,
    H: Fn(A::Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => break,
            accepted = acceptor.next() => match accepted {
                Ok(stream) if connections.len() < MOST_CONNECTIONS => {
                    connections.spawn(handler(stream));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    acceptor.end();
    drop(acceptor);
    connections.shutdown().await;
}

/// A listening TCP socket in a network.
pub(crate) fn listen(net: &Net, address: impl Into<SocketAddr>) -> io::Result<TcpListener> {
    let address = address.into();
    let listener = net.with(|| std::net::TcpListener::bind(address))??;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A bound UDP socket in a network.
pub(crate) fn bind_udp(net: &Net, address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = net.with(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        // A server that is started anew takes its port over from the copy that a child may still hold (see [`Accept::end`]):
        // datagrams go to the socket that was bound last.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into()).map(|()| socket)
    })??;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// The address of a listener.
pub(crate) fn address_of(listener: &TcpListener) -> Option<SocketAddrV4> {
    match listener.local_addr() {
        Ok(SocketAddr::V4(address)) => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port)
    }

    /// As a child does between fork and exec.
    fn copy_of<'a, T>(socket: &'a T) -> Socket
    where
        SockRef<'a>: From<&'a T>,
    {
        SockRef::from(socket).try_clone().unwrap()
    }

    #[tokio::test]
    async fn a_stopped_server_leaves_its_port_although_somebody_holds_a_copy_of_its_socket() {
        let listener = listen(&Net::Here, here(0)).unwrap();
        let address = address_of(&listener).unwrap();
        let copy = copy_of(&listener);
        let mut server = ServerHandle::new(Some(address));
        server.accept(listener, |_| async {});
        assert!(TcpStream::connect(address).await.is_ok());
        server.stop().await;
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        listen(&Net::Here, address).unwrap();
        drop(copy);
    }

    #[tokio::test]
    async fn datagrams_go_to_the_server_that_was_started_last() {
        let first = bind_udp(&Net::Here, here(0)).unwrap();
        let at = first.local_addr().unwrap();
        let copy = copy_of(&first);
        drop(first);
        let second = bind_udp(&Net::Here, here(at.port())).unwrap();
        let client = bind_udp(&Net::Here, here(0)).unwrap();
        client.send_to(b"x", at).await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(second.recv(&mut buffer).await.unwrap(), 1);
        drop(copy);
    }
}
