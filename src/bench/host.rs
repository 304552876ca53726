//! What the kernel tells about the client's own thread.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as Socket;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// `/proc/thread-self/schedstat` (kernel documentation, scheduler/sched-stats): nanoseconds on a processor, nanoseconds
/// on a run queue, turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedstat {
    pub(super) running_ns: u64,
    pub(super) waiting_ns: u64,
    pub(super) turns: u64,
}

impl Schedstat {
    /// Of the calling thread; `None` where the kernel does not tell.
    pub(super) fn of_this_thread() -> Option<Self> {
        // Tens of microseconds, from memory: this does not block.
        Self::parse(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { running_ns: next()?, waiting_ns: next()?, turns: next()? })
    }

    /// What came on top since an earlier reading.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            running_ns: self.running_ns.saturating_sub(before.running_ns),
            waiting_ns: self.waiting_ns.saturating_sub(before.waiting_ns),
            turns: self.turns.saturating_sub(before.turns),
        }
    }
}

/// Between two signals of the metronome.
const BEAT: Duration = Duration::from_millis(5);

/// Signals from a thread of its own, each with its time. They come through a socket, as tokens do: how late the client's
/// loop reads one is how late it reads a token. (A channel would wake the loop past the queue of ready sockets, and hide it.)
pub(super) struct Metronome {
    began: Instant,
    signals: UnixStream,
}

impl Metronome {
    /// Starts it; the thread ends with this.
    pub(super) fn start() -> io::Result<Self> {
        let (mut ours, theirs) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let began = Instant::now();
        std::thread::Builder::new().name("bench-metronome".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(BEAT);
                let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                match ours.write(&nanos.to_be_bytes()) {
                    Ok(8) => {}
                    // A full socket is a loop that stands still; its oldest signals show that.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        })?;
        Ok(Self { began, signals: UnixStream::from_std(theirs)? })
    }

    /// How late the next signal is read, ms; `None` once there are no more.
    pub(super) async fn lag(&mut self) -> Option<f64> {
        let nanos = self.signals.read_u64().await.ok()?;
        let sent = self.began + Duration::from_nanos(nanos);
        Some(sent.elapsed().as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read() {
        let before = Schedstat::parse("1200 300 4\n").unwrap();
        let growth = Schedstat { running_ns: 100, waiting_ns: 0, turns: 1 };
        assert_eq!(Schedstat::parse("1300 300 5").unwrap().since(before), growth);
        assert_eq!(Schedstat::parse("12 x 4"), None);
        assert_eq!(Schedstat::parse(""), None);
    }
}
