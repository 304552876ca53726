//! What several probes share: sockets inside a vantage's network, and the words for what `connect()` said.

use crate::vantage::Net;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Longest wait for a TCP handshake. A dead neighbour answers EHOSTUNREACH after about 3.05 s (three ARP tries), so less
/// than 4 s would turn that answer into a timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(4500);

/// The word for an I/O error: its errno name, or TIMEOUT.
pub fn errno_word(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::TimedOut) {
        return "TIMEOUT".to_owned();
    }
    match error.raw_os_error() {
        Some(code) => match nix::errno::Errno::from_raw(code) {
            nix::errno::Errno::UnknownErrno => format!("errno {code}"),
            nix::errno::Errno::ETIMEDOUT => "TIMEOUT".to_owned(),
            errno => format!("{errno:?}"),
        },
        None => format!("{:?}", error.kind()),
    }
}

/// [`errno_word`], and EOF where the peer closed the connection early.
pub fn io_word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => errno_word(error),
    }
}

/// A TCP connection that could not be made: the errno word and when it was known.
#[derive(Clone, Debug)]
pub struct ConnectError {
    /// Errno name or TIMEOUT.
    pub word: String,
    /// Time until it was known.
    pub after: Duration,
}

/// Connects from inside a network; at most [`CONNECT_TIMEOUT`] and at most until `deadline`.
pub async fn connect(net: &Net, to: SocketAddrV4, deadline: Instant) -> Result<(TcpStream, Duration), ConnectError> {
    let began = Instant::now();
    let patience = deadline.saturating_duration_since(began).min(CONNECT_TIMEOUT);
    let attempt = async {
        let socket = net.with(TcpSocket::new_v4)??;
        socket.connect(SocketAddr::V4(to)).await
    };
    let outcome = match timeout(patience, attempt).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let after = began.elapsed();
    match outcome {
        Ok(stream) => Ok((stream, after)),
        Err(error) => Err(ConnectError { word: errno_word(&error), after }),
    }
}

/// Milliseconds with three digits after the point, as facts carry them.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
