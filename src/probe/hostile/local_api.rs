//! A LocalAPI that is none.

use crate::probe::testnet;
use crate::vantage::{HostFiles, Net, NetNs, UnixAddress, VantageKind};
use serde_json::Value;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

const NAME: &str = "tailscaled";
/// The probe's own patience (3 s) and some room for a busy machine.
const SOON: Duration = Duration::from_secs(6);
/// An answer is read up to 4 MiB; what is on its way in socket buffers comes on top.
const FEW: usize = 12 << 20;

/// What the server does after it has read a request.
#[derive(Clone, Copy, Debug)]
enum Trick {
    Hangs,
    SendsHtml,
    /// So many bytes without a length.
    Floods(usize),
    /// A document that breaks off, with a length that says so or not.
    BreaksOff,
    /// One byte after the other, for ever.
    Drips,
    /// Brackets in brackets, as deep as the answer is long.
    Nests,
    /// Headers that never end.
    Heads,
}

/// How many bytes the server could get rid of.
async fn play(trick: Trick, stream: &mut UnixStream, sent: &AtomicUsize) -> std::io::Result<()> {
    let mut request = [0; 2048];
    let _ = stream.read(&mut request).await?;
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    match trick {
        Trick::Hangs => std::future::pending().await,
        Trick::SendsHtml => {
            let page = "<!doctype html><title>\u{1b}]0;Login\u{7}</title>";
            stream.write_all(format!("{ok}Content-Length: {}\r\n\r\n{page}", page.len()).as_bytes()).await
        }
        Trick::Floods(bytes) => {
            stream.write_all(format!("{ok}\r\n{{\"BackendState\": \"").as_bytes()).await?;
            pour(stream, &[b'x'; 65_536], bytes, sent).await
        }
        Trick::BreaksOff => stream.write_all(format!("{ok}Connection: close\r\n\r\n{{\"BackendState\": \"Runn").as_bytes()).await,
        Trick::Drips => {
            stream.write_all(format!("{ok}Content-Length: 1000000\r\n\r\n").as_bytes()).await?;
            loop {
                stream.write_all(b" ").await?;
                sleep(Duration::from_millis(50)).await;
            }
        }
        Trick::Nests => {
            stream.write_all(format!("{ok}Content-Length: 3000000\r\n\r\n").as_bytes()).await?;
            pour(stream, &[b'['; 60_000], 3_000_000, sent).await
        }
        Trick::Heads => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            pour(stream, "X-A: bbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(2000).as_bytes(), 100 << 20, sent).await
        }
    }
}

async fn pour(stream: &mut UnixStream, chunk: &[u8], bytes: usize, sent: &AtomicUsize) -> std::io::Result<()> {
    while sent.load(Ordering::Relaxed) < bytes {
        stream.write_all(chunk).await?;
        sent.fetch_add(chunk.len(), Ordering::Relaxed);
    }
    Ok(())
}

fn serve(ns: &NetNs, trick: Trick) -> Arc<AtomicUsize> {
    let address = SocketAddr::from_abstract_name(NAME).unwrap();
    let listener = ns.with(|| UnixListener::bind_addr(&address)).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let sent = AtomicUsize::new(0);
                let _ = play(trick, &mut stream, &sent).await;
                seen.fetch_max(sent.load(Ordering::Relaxed), Ordering::Relaxed);
            });
        }
    });
    most
}

async fn look(trick: Trick) -> (Value, usize) {
    let ns = NetNs::create("calypso").unwrap();
    let most = serve(&ns, trick);
    let files = HostFiles { tailscale_socket: Some(UnixAddress::Abstract(NAME.to_owned())), ..HostFiles::default() };
    let vantage = testnet::vantage("calypso", VantageKind::Node, Net::Ns(ns), files);
    let began = Instant::now();
    let seen = testnet::observe_at("tailscale", "peer = '100.95.51.125'\nping = true", vantage).await;
    assert!(began.elapsed() < SOON, "{trick:?} took {:?}", began.elapsed());
    assert!(seen.evidence.iter().all(|e| !e.text.contains('\u{1b}')), "{:?}", seen.evidence);
    (seen.facts.to_json(), most.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_a_local_api_that_plays_tricks_is_unknown_soon_and_cheaply() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let tricks = [Trick::Hangs, Trick::SendsHtml, Trick::Floods(100 << 20), Trick::BreaksOff, Trick::Drips, Trick::Nests, Trick::Heads];
    for (trick, (facts, sent)) in tricks.into_iter().zip(futures::future::join_all(tricks.map(look)).await) {
        for path in ["running", "backend_state", "key_expired", "exit_node_in_use", "exit_node_lan_access"] {
            assert!(facts[path]["unknown"].is_string(), "{trick:?}: {path} is {}", facts[path]);
        }
        for path in ["answers", "path", "present", "expired"] {
            assert!(facts["peer"][path]["unknown"].is_string(), "{trick:?}: peer.{path} is {}", facts["peer"][path]);
        }
        assert!(sent < FEW, "{trick:?}: {sent} bytes were taken");
    }
}
