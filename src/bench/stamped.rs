//! A TCP stream that knows how long its bytes lay in the socket before they were read: the kernel stamps each segment when it
//! comes (socket(7), `SO_TIMESTAMPNS`), and the difference is what the client itself put on top of a latency. Nothing else
//! shows it for a single token: a thread may lose its processor once, at the wrong moment, and hardly wait on average.

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How late the last read of a stream was; a handle that outlives layers on top of the stream, TLS for instance.
#[derive(Clone, Debug)]
pub(super) struct Late(Arc<AtomicU64>);

/// No stamp came with the last read.
const UNKNOWN: u64 = u64::MAX;

impl Late {
    fn set(&self, late: Option<Duration>) {
        let nanos = late.map_or(UNKNOWN, |late| u64::try_from(late.as_nanos()).unwrap_or(UNKNOWN));
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// Milliseconds from the arrival of the last segment of the last read to that read; `None` where the kernel does not tell.
    pub(super) fn ms(&self) -> Option<f64> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            nanos => Some(nanos as f64 / 1e6),
        }
    }
}

/// The stream.
pub(super) struct Stamped {
    stream: TcpStream,
    late: Late,
}

impl Stamped {
    pub(super) fn new(stream: TcpStream) -> Self {
        // A kernel without stamps leaves the lateness unknown; the bench has other evidence about its client.
        setsockopt(&stream, ReceiveTimestampns, &true).ok();
        Self { stream, late: Late(Arc::new(AtomicU64::new(UNKNOWN))) }
    }

    pub(super) fn late(&self) -> Late {
        self.late.clone()
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let now = SystemTime::now();
        let stamp = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(at) => Some(SystemTime::UNIX_EPOCH + Duration::from(at)),
            _ => None,
        });
        // A clock that was set back in between makes no lateness.
        self.late.set(stamp.and_then(|stamp| now.duration_since(stamp).ok()));
        Ok(message.bytes)
    }
}

impl AsyncRead for Stamped {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_io(Interest::READABLE, || self.receive(buffer.initialize_unfilled())) {
                Ok(n) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The reader is kept away for a time that it measures itself: it is later than that, and not by much more than a turn takes.
    #[tokio::test]
    async fn a_read_knows_how_long_its_bytes_lay_there() {
        const AWAY: Duration = Duration::from_millis(40);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, mut server) = (Stamped::new(stream), listener.accept().unwrap().0);
        let late = stream.late();
        assert_eq!(late.ms(), None);
        let mut word = [0; 4];
        // Stamping begins a moment after it is first asked for, on the whole machine.
        while late.ms().is_none() {
            server.write_all(b"word").unwrap();
            stream.read_exact(&mut word).await.unwrap();
        }
        server.write_all(b"late").unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < AWAY {
            std::hint::spin_loop();
        }
        stream.read_exact(&mut word).await.unwrap();
        let (least, most) = (AWAY.as_secs_f64() * 1000.0 - 1.0, began.elapsed().as_secs_f64() * 1000.0 + 1.0);
        let lay = late.ms().unwrap();
        assert!(&word == b"late" && (least..=most).contains(&lay), "{lay} ms, not {least} to {most}");
        stream.write_all(b"back").await.unwrap();
        io::Read::read_exact(&mut server, &mut word).unwrap();
        assert_eq!(&word, b"back");
    }
}
