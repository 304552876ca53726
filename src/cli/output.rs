//! Standard output, written whole and in one place.

use anyhow::{Context, Result};
use std::io::{self, IsTerminal, Write};

/// Writes text to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes text, and says whether somebody reads it. That nobody does changes nothing about what was found out.
pub(super) fn is_read(text: &str) -> Result<bool> {
    match print(text) {
        Err(error) if is_broken_pipe(&error) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Whether the reader of standard output has gone: no error of ours.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// How to write for the terminal, or pipe, at the other end.
pub(super) fn style(ascii: bool) -> crate::report::human::Style {
    let terminal = io::stdout().is_terminal();
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var("TERM").as_deref() != Ok("dumb");
    let width = if terminal { crossterm::terminal::size().map_or(100, |(w, _)| w) } else { 100 };
    crate::report::human::Style { color, ascii, width }
}
