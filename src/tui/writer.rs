//! Writes to the terminal on a thread of its own, so that a terminal that takes nothing (a stalled connection, a stopped
//! pane) holds up nobody: the loop draws only when the last frame is out, and then the newest state at once. A frame is a
//! difference to the one before it, so none is ever dropped while the program runs.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes handed to the terminal at once: what is still written after the end was asked for.
const CHUNK: usize = 4096;

/// Collects a frame; `flush` hands it over and returns at once.
#[derive(Debug)]
pub struct FrameWriter {
    frame: Vec<u8>,
    gate: Gate,
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gate.push(&self.frame);
        self.frame.clear();
        Ok(())
    }
}

/// Whether the terminal has taken everything.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The state has changed.
    changed: Condvar,
    /// Everything is out.
    out: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.closed || (self.pending.is_empty() && !self.writing)
    }
}

/// Starts the thread; `write` may block for as long as it likes. An error of it ends the output.
pub fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<(FrameWriter, Gate)> {
    let shared = Shared { state: Mutex::default(), changed: Condvar::new(), out: Notify::new() };
    let gate = Gate(Arc::new(shared));
    let own = gate.clone();
    std::thread::Builder::new().name("terminal-writer".to_owned()).spawn(move || own.work(write))?;
    Ok((FrameWriter { frame: Vec::with_capacity(64 * 1024), gate: gate.clone() }, gate))
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        while let Some(chunk) = self.next() {
            let failed = write(&chunk).is_err();
            let mut state = self.state();
            state.writing = false;
            state.closed |= failed;
            if state.is_idle() {
                self.0.out.notify_one();
            }
            self.0.changed.notify_all();
        }
    }

    /// Waits for something to write; `None` at the end.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        while state.pending.is_empty() && !state.closed {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        let length = state.pending.len().min(CHUNK);
        let rest = state.pending.split_off(length);
        state.writing = true;
        Some(std::mem::replace(&mut state.pending, rest))
    }

    /// Hands bytes over, behind what is there already.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !state.closed && !bytes.is_empty() {
            state.pending.extend_from_slice(bytes);
            self.0.changed.notify_all();
        }
    }

    /// Whether everything is out.
    pub fn is_idle(&self) -> bool {
        self.state().is_idle()
    }

    /// Done when everything is out.
    pub async fn idle(&self) {
        while !self.is_idle() {
            self.0.out.notified().await;
        }
    }

    /// Waits until everything is out, for at most so long; false: something is still there.
    pub fn drain(&self, most: Duration) -> bool {
        self.wait(most, State::is_idle)
    }

    /// Drops what has not been written and ends the thread; waits at most so long for the piece that it is writing.
    /// False: the terminal still does not take it.
    pub fn close(&self, most: Duration) -> bool {
        {
            let mut state = self.state();
            state.closed = true;
            state.pending.clear();
        }
        self.0.changed.notify_all();
        self.wait(most, |state| !state.writing)
    }

    fn wait(&self, most: Duration, done: impl Fn(&State) -> bool) -> bool {
        let until = Instant::now() + most;
        let mut state = self.state();
        while !done(&state) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return false };
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let (taken, out) = mpsc::channel();
        let (mut writer, gate) = start(move |bytes| taken.send(bytes.to_vec()).map_err(io::Error::other)).unwrap();
        let frame: Vec<u8> = (0..3 * CHUNK).map(|n| (n % 251) as u8).collect();
        writer.write_all(&frame).unwrap();
        assert!(gate.is_idle(), "nothing is handed over before the flush");
        writer.flush().unwrap();
        gate.push(b"end");
        assert!(gate.drain(Duration::from_secs(20)));
        let all: Vec<u8> = out.try_iter().flatten().collect();
        assert_eq!(all, [frame, b"end".to_vec()].concat());
        assert!(gate.close(Duration::from_secs(20)));
    }

    #[test]
    fn a_terminal_that_takes_nothing_holds_up_nobody() {
        let (open, opened) = mpsc::channel::<()>();
        let (taken, out) = mpsc::channel();
        let stalled = move |bytes: &[u8]| {
            taken.send(bytes.len()).map_err(io::Error::other)?;
            opened.recv().map_err(io::Error::other)
        };
        let (mut writer, gate) = start(stalled).unwrap();
        writer.write_all(&[b'x'; 2 * CHUNK]).unwrap();
        writer.flush().unwrap();
        assert_eq!(out.recv().unwrap(), CHUNK);
        assert!(!gate.is_idle() && !gate.drain(Duration::ZERO) && !gate.close(Duration::ZERO));
        open.send(()).unwrap();
        assert!(gate.close(Duration::from_secs(20)), "the piece that was under way is out");
        assert!(out.recv().is_err(), "nothing is written after the end");
    }

    #[tokio::test]
    async fn idle_is_told() {
        let (mut writer, gate) = start(|_| Ok(())).unwrap();
        for _ in 0..100 {
            writer.write_all(b"frame").unwrap();
            writer.flush().unwrap();
            tokio::time::timeout(Duration::from_secs(20), gate.idle()).await.unwrap();
            assert!(gate.is_idle());
        }
    }
}
