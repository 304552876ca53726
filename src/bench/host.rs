//! What the kernel tells about the client's own thread.

use std::time::Duration;
use tokio::sync::mpsc;
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

/// Signals from a thread of its own, each with its time: how late the client's loop answers one is how late it would
/// answer a socket. The thread ends with the receiver.
pub(super) fn metronome() -> std::io::Result<mpsc::Receiver<Instant>> {
    let (beats, receiver) = mpsc::channel(4096);
    std::thread::Builder::new().name("bench-metronome".to_owned()).spawn(move || {
        while !beats.is_closed() {
            std::thread::sleep(BEAT);
            // A full channel is a loop that stands still; its oldest signals show that.
            let _ = beats.try_send(Instant::now());
        }
    })?;
    Ok(receiver)
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
