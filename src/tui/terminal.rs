//! Opening the real terminal, and giving it back in every case: return, error, panic, SIGTERM, SIGHUP, lost connection.

use super::writer::{self, FrameWriter, Gate};
use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste};
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{Command, cursor};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, SigHandler, Signal, killpg, raise};
use nix::sys::termios::{FlushArg, tcflush};
use nix::unistd::getpgrp;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};

/// Whether the screen is ours.
static OPEN: AtomicBool = AtomicBool::new(false);
/// Whether the terminal took nothing when it was given back.
static STALLED: AtomicBool = AtomicBool::new(false);
/// What writes to it while it is ours.
static GATE: Mutex<Option<Gate>> = Mutex::new(None);
/// Tells the writer that the end has come.
static CLOSING: LazyLock<Mutex<Arc<AtomicBool>>> = LazyLock::new(Mutex::default);
/// Panic messages that came while it was.
static HELD_BACK: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How long a terminal that takes nothing is waited for at a time.
const PATIENCE: Duration = Duration::from_millis(250);

/// The real terminal, restored when this is dropped, also by a panic that unwinds through it.
pub struct TerminalGuard {
    /// The terminal. Its writer never blocks.
    pub terminal: Terminal<CrosstermBackend<FrameWriter>>,
    /// Whether the terminal has taken what was drawn.
    pub gate: Gate,
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

/// Takes the terminal: raw mode, alternate screen, bracketed paste; the mouse stays with the terminal, so that text can
/// be marked. Panic messages are held back until it is restored.
///
/// # Errors
/// When standard output is no terminal or refuses.
pub fn open_terminal() -> io::Result<TerminalGuard> {
    hold_panics_back();
    enable_raw_mode()?;
    OPEN.store(true, Ordering::SeqCst);
    open_screen().inspect_err(|_| restore())
}

fn open_screen() -> io::Result<TerminalGuard> {
    let out = own_output()?;
    let closing = Arc::new(AtomicBool::new(false));
    *CLOSING.lock().unwrap_or_else(PoisonError::into_inner) = closing.clone();
    let (frames, gate) = writer::start(move |bytes| write_all(&out, bytes, &closing))?;
    *GATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(gate.clone());
    gate.push(taken().as_bytes());
    Ok(TerminalGuard { terminal: Terminal::new(CrosstermBackend::new(frames))?, gate })
}

/// What takes the screen, empty.
fn taken() -> String {
    ansi(EnterAlternateScreen) + &ansi(Clear(ClearType::All)) + &ansi(EnableBracketedPaste) + &ansi(cursor::Hide)
}

/// What gives it back.
fn given_back() -> String {
    ansi(DisableMouseCapture) + &ansi(DisableBracketedPaste) + &ansi(LeaveAlternateScreen) + &ansi(cursor::Show)
}

/// Gives the terminal back and stops the process group, as ctrl+z does outside of raw mode; returns when the shell lets it
/// go on, with the terminal taken again and its screen empty. Does nothing when the terminal is not ours.
///
/// # Errors
/// When the terminal takes nothing at present, or refuses; it is then still ours.
pub fn suspend(gate: &Gate) -> io::Result<()> {
    if !OPEN.load(Ordering::SeqCst) {
        return Ok(());
    }
    if !gate.drain(PATIENCE) {
        return Err(io::Error::other("it takes nothing"));
    }
    gate.push(given_back().as_bytes());
    gate.drain(PATIENCE);
    disable_raw_mode()?;
    let stopped = stop_group();
    enable_raw_mode()?;
    gate.push(taken().as_bytes());
    Ok(stopped?)
}

/// Stops the others of the process group (`cargo run`), then this process, by a signal to this very thread: after one to
/// the whole process it would run on for a moment, or be stopped once more.
fn stop_group() -> nix::Result<()> {
    // SAFETY: no handler is involved, only "ignore" and "default".
    let usual = unsafe { signal::signal(Signal::SIGTSTP, SigHandler::SigIgn) }?;
    let others = killpg(getpgrp(), Signal::SIGTSTP);
    // SAFETY: it was the action before.
    unsafe { signal::signal(Signal::SIGTSTP, usual) }?;
    others.and_then(|()| raise(Signal::SIGTSTP))
}

fn ansi(command: impl Command) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = command.write_ansi(&mut text);
    text
}

/// The terminal, opened once more: a write that waits cannot be called back, and the flag that makes writes wait for
/// nothing would be the shell's too on a shared description. Where the terminal may not be opened (after `su`), a copy.
fn own_output() -> io::Result<File> {
    let stdout = io::stdout();
    let again = format!("/proc/self/fd/{}", stdout.as_fd().as_raw_fd());
    let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(again);
    opened.or_else(|_| Ok(File::from(stdout.as_fd().try_clone_to_owned()?)))
}

/// Writes everything, unless the end comes first.
fn write_all(mut out: &File, mut bytes: &[u8], closing: &AtomicBool) -> io::Result<()> {
    while !bytes.is_empty() {
        if closing.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                takes_more(&out);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Gives the terminal back and prints the panic messages that were held back. Does nothing when it is not ours; never
/// fails, since the terminal may be gone; takes about a second at most, since it may take nothing.
pub fn restore() {
    if !OPEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let gate = GATE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let taken = gate.as_ref().is_none_or(|gate| gate.drain(4 * PATIENCE));
    CLOSING.lock().unwrap_or_else(PoisonError::into_inner).store(true, Ordering::SeqCst);
    let ended = gate.is_none_or(|gate| gate.close(2 * PATIENCE));
    if !taken {
        // Frames that nobody has read make way for the few bytes that give the terminal back.
        let _ = tcflush(io::stdout().as_fd(), FlushArg::TCOFLUSH);
    }
    // Behind a write that waits, ours would wait as well.
    if ended && takes_more(&io::stdout()) {
        let _ = nix::unistd::write(io::stdout().as_fd(), given_back().as_bytes());
    }
    let _ = disable_raw_mode();
    STALLED.store(!taken, Ordering::SeqCst);
    let messages = std::mem::take(&mut *HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner));
    for message in messages.into_iter().filter(|_| taken) {
        let _ = writeln!(io::stderr(), "{message}");
    }
}

fn takes_more(out: &impl AsFd) -> bool {
    let most = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], most).is_ok_and(|ready| ready > 0)
}

/// Whether the terminal took nothing when it was given back: whatever is printed to it now would block.
pub fn is_stalled() -> bool {
    STALLED.load(Ordering::SeqCst)
}

/// A panic of some task must not write across the screen, and one of the screen itself must be readable afterwards.
fn hold_panics_back() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if OPEN.load(Ordering::SeqCst) {
                HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner).push(message(panic));
            } else {
                usual(panic);
            }
        }));
    });
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("{panic}\n{backtrace}"),
        _ => panic.to_string(),
    }
}

/// Done when SIGTERM, SIGHUP or SIGINT arrives (in raw mode, ctrl+c is a key and no signal).
pub async fn stop_signal() {
    tokio::select! {
        () = arrives(SignalKind::terminate()) => {}
        () = arrives(SignalKind::hangup()) => {}
        () = arrives(SignalKind::interrupt()) => {}
    }
}

async fn arrives(kind: SignalKind) {
    match unix::signal(kind) {
        Ok(mut signal) => received(&mut signal).await,
        Err(_) => std::future::pending().await,
    }
}

async fn received(signal: &mut unix::Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
