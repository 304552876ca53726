//! Opening the real terminal, and giving it back in every case: return, error, panic, SIGTERM, SIGHUP, lost connection.

use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, BufWriter, Stdout, Write};
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether the screen is ours.
static OPEN: AtomicBool = AtomicBool::new(false);
/// Panic messages that came while it was.
static HELD_BACK: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The real terminal, restored when this is dropped, also by a panic that unwinds through it.
pub struct TerminalGuard {
    /// The terminal. Its writer holds a whole frame: standard output alone would write every kilobyte on its own.
    pub terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
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
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    let writer = BufWriter::with_capacity(64 * 1024, io::stdout());
    Ok(TerminalGuard { terminal: Terminal::new(CrosstermBackend::new(writer))? })
}

/// Gives the terminal back and prints the panic messages that were held back. Does nothing when it is not ours; never
/// fails, since the terminal may be gone.
pub fn restore() {
    if !OPEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(io::stdout(), DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let messages = std::mem::take(&mut *HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner));
    for message in messages {
        let _ = writeln!(io::stderr(), "{message}");
    }
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
    match signal(kind) {
        Ok(mut signal) => received(&mut signal).await,
        Err(_) => std::future::pending().await,
    }
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
