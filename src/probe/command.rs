//! Commands of this machine: nothing to read, a bound on what they print, a deadline, and nothing of them left behind.

use crate::vantage::Net;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Why nothing can be said of what a command prints.
#[derive(Debug)]
pub(super) enum Broken {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended in time; it has been killed.
    Late,
    /// Its output could not be read.
    Output(io::Error),
    /// It printed more than the bound; it has been killed.
    TooMuch,
}

/// Runs a command in a network: what it prints, and how it ended. Its errors are not read: they may hold secrets, and the terminal
/// is not theirs.
pub(super) async fn run(net: &Net, command: &mut Command, most: u64, patience: Duration) -> Result<(Vec<u8>, ExitStatus), Broken> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
    let mut child = net.with(|| command.spawn()).and_then(|spawned| spawned).map_err(Broken::Start)?;
    let mut group = Group::of(&child);
    let mut bytes = Vec::new();
    let mut output = child.stdout.take().ok_or_else(|| Broken::Output(io::ErrorKind::BrokenPipe.into()))?.take(most + 1);
    let work = async {
        output.read_to_end(&mut bytes).await.map_err(Broken::Output)?;
        if bytes.len() as u64 > most {
            return Err(Broken::TooMuch);
        }
        child.wait().await.map_err(Broken::Output)
    };
    let status = timeout(patience, work).await.unwrap_or(Err(Broken::Late))?;
    group.spare();
    Ok((bytes, status))
}

/// The process group of a command: what it started ends with it, also when the probe is cut off.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// It has ended and was collected: its number may soon be another's.
    fn spare(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The number is still the group's: the child has not been collected.
        let _ = self.0.map(|group| killpg(group, Signal::SIGKILL));
    }
}
