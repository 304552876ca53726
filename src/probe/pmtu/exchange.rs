//! A tiny and a large exchange over TCP: where the tiny one works and the large one stalls, large packets get lost.

use crate::probe::net;
use crate::vantage::Net;
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// A transfer that makes no progress for this long has stalled.
const STALL: Duration = Duration::from_secs(2);
/// Bytes of padding in the large request: several full packets, less than any server's limit of a header.
const PADDING: usize = 6000;
/// Bytes of answer that are asked for, and most that are read.
const BODY: usize = 20_000;
const MOST: usize = 64 << 10;

/// What came of one request.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    /// `ok`, `stalled`, or what `connect()` said.
    pub(super) outcome: String,
    pub(super) bytes: usize,
    pub(super) took: Duration,
    /// Segments that were sent again; `None` without a connection.
    pub(super) retransmitted: Option<u32>,
}

/// A request and an answer of one small packet each.
pub(super) async fn small(net: &Net, to: SocketAddrV4, deadline: Instant) -> Transfer {
    request(net, to, "/health", 0, deadline).await
}

/// A request of several full packets, for an answer of many.
pub(super) async fn large(net: &Net, to: SocketAddrV4, deadline: Instant) -> Transfer {
    request(net, to, &format!("/bytes/{BODY}"), PADDING, deadline).await
}

async fn request(net: &Net, to: SocketAddrV4, path: &str, padding: usize, deadline: Instant) -> Transfer {
    let began = Instant::now();
    let (mut bytes, mut retransmitted) = (0, None);
    let outcome = match net::connect(net, to, deadline).await {
        Err(error) => error.word,
        Ok((mut stream, _)) => {
            let pad = if padding == 0 { String::new() } else { format!("x-padding: {}\r\n", "x".repeat(padding)) };
            let text = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n{pad}connection: close\r\n\r\n");
            let outcome = match stream.write_all(text.as_bytes()).await {
                Ok(()) => read(&mut stream, &mut bytes, deadline).await,
                Err(error) => net::io_word(&error),
            };
            retransmitted = net::retransmitted(stream.as_fd());
            outcome
        }
    };
    Transfer { outcome, bytes, took: began.elapsed(), retransmitted }
}

async fn read(stream: &mut tokio::net::TcpStream, bytes: &mut usize, deadline: Instant) -> String {
    let mut buffer = [0; 4096];
    while *bytes < MOST {
        let patience = deadline.saturating_duration_since(Instant::now()).min(STALL);
        match timeout(patience, stream.read(&mut buffer)).await {
            Err(_) => return "stalled".to_owned(),
            Ok(Ok(0)) => break,
            Ok(Ok(n)) => *bytes += n,
            // A server that refuses the long request may reset the connection behind its answer.
            Ok(Err(_)) if *bytes > 0 => break,
            Ok(Err(error)) => return net::io_word(&error),
        }
    }
    "ok".to_owned()
}
