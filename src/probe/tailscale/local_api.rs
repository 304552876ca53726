//! tailscaled's LocalAPI: HTTP over a unix socket. Only `GET`, and `POST ping`: nothing that changes anything.

use crate::probe::net::errno_word;
use crate::vantage::{Net, UnixAddress};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// The name that tailscaled insists on; it answers 403 to any other.
const HOST_NAME: &str = "local-tailscaled.sock";

/// Largest answer that is read. A status has about 1 kB per peer.
const MOST: usize = 4 << 20;

/// Longest wait for an answer; tailscaled answers from memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects to the socket. Abstract names belong to a network namespace, so the socket must be made inside it.
/// Errors: ECONNREFUSED (a socket file without a listener), ENOENT, EACCES, EAGAIN (its backlog is full).
pub(super) fn connect(net: &Net, to: &UnixAddress) -> io::Result<UnixStream> {
    let address = address(to)?;
    let socket = net.with(|| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&address)?;
        Ok::<_, io::Error>(socket)
    })??;
    UnixStream::from_std(std::os::fd::OwnedFd::from(socket).into())
}

fn address(to: &UnixAddress) -> io::Result<SockAddr> {
    match to {
        UnixAddress::Path(path) => SockAddr::unix(path),
        UnixAddress::Abstract(name) => SockAddr::unix(PathBuf::from(format!("\0{name}"))),
    }
}

/// Asks for one JSON document over a fresh connection. The error is a clause.
pub(super) async fn get(stream: UnixStream, path: &str, deadline: Instant) -> Result<Value, String> {
    ask(stream, Method::GET, path, deadline.saturating_duration_since(Instant::now()).min(PATIENCE)).await
}

/// Asks tailscaled to ping a peer. It never answers for one that is dead, so the caller says how long to wait.
pub(super) async fn ping(stream: UnixStream, path: &str, patience: Duration) -> Result<Value, String> {
    ask(stream, Method::POST, path, patience).await
}

async fn ask(stream: UnixStream, method: Method, path: &str, patience: Duration) -> Result<Value, String> {
    match timeout(patience, exchange(stream, method, path)).await {
        Ok(result) => result,
        Err(_) => Err(format!("tailscaled did not answer {path} in time")),
    }
}

async fn exchange(stream: UnixStream, method: Method, path: &str) -> Result<Value, String> {
    let failed = |e: hyper::Error| format!("tailscaled's answer to {path} cannot be read: {e}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request =
        Request::builder().method(method).uri(path).header(HOST, HOST_NAME).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|e| format!("tailscaled's answer to {path} cannot be read: {e}"))?.to_bytes();
        document(path, status.as_u16(), &body)
    };
    // The connection must be driven along; it ends with the answer and is dropped here.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        result = &mut answer => result,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(failed(error)),
        },
    }
}

fn document(path: &str, status: u16, body: &[u8]) -> Result<Value, String> {
    if status != 200 {
        let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        return Err(format!("tailscaled answered {path} with status {status}: {}", said.trim()));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(Value::Object(map)),
        _ => Err(format!("tailscaled answered {path} with something that is not a JSON object")),
    }
}

/// What a failed [`connect`] means, as the fact `daemon`; `None` if nothing can be said.
pub(super) fn daemon_word(error: &io::Error) -> Option<&'static str> {
    match errno_word(error).as_str() {
        "ECONNREFUSED" => Some("refused"),
        "ENOENT" => Some("absent"),
        _ => None,
    }
}
