//! Another program, run for what it prints: found through `PATH`, with a deadline and a bound, and ended with what it started.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::process::Child;
use tokio::time::{Instant, sleep_until};

/// How long what has been printed may take to be read after the program has ended.
const REST: Duration = Duration::from_millis(200);

/// A program with what bounds it. It reads nothing, and what it says on standard error is not looked at.
pub(super) struct Command<'a> {
    /// Its name, looked for in `PATH`.
    pub(super) program: &'a str,
    pub(super) arguments: &'a [&'a str],
    /// Directories in which it is looked for, as in `PATH`; `None` means this process' own `PATH`.
    pub(super) path: Option<&'a Path>,
    /// Most bytes that it may print.
    pub(super) most: usize,
    /// When it has to be done.
    pub(super) until: Instant,
}

impl Command<'_> {
    /// What it printed, whatever its exit status. The error is a clause: it is not installed, did not end in time, printed too much.
    ///
    /// Its process group is killed when this returns and when it is dropped: what the program has started ends too, unless that
    /// left the group (setsid(2)). What such a one prints is not waited for.
    pub(super) async fn output(&self) -> Result<Vec<u8>, String> {
        let name = self.program;
        let mut child = self.spawn()?;
        let group = Group::of(&child);
        let mut stdout = child.stdout.take().ok_or_else(|| format!("{name} has no output"))?;
        let end = watched(&child);
        let (mut bytes, mut until, mut ended) = (Vec::new(), self.until, false);
        loop {
            bytes.reserve(4096);
            tokio::select! {
                biased;
                read = stdout.read_buf(&mut bytes) => match read {
                    Ok(0) => return Ok(bytes),
                    Ok(_) if bytes.len() > self.most => return Err(format!("{name} printed more than {} bytes", self.most)),
                    Ok(_) => {}
                    Err(error) => return Err(format!("{name}'s output cannot be read: {error}")),
                },
                // What it leaves behind may keep the pipe open: with the group its end is there.
                () = over(end.as_ref()), if !ended => {
                    group.kill();
                    ended = true;
                    until = until.min(Instant::now() + REST);
                }
                () = sleep_until(until) => return if ended { Ok(bytes) } else { Err(format!("{name} did not end in time")) },
            }
        }
    }

    fn spawn(&self) -> Result<Child, String> {
        let mut command = tokio::process::Command::new(self.program);
        command.args(self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.kill_on_drop(true).process_group(0);
        if let Some(path) = self.path {
            // The look-up follows the child's PATH where it has one of its own (std::process::Command).
            command.env("PATH", path);
        }
        command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => format!("{} is not installed", self.program),
            _ => format!("{} cannot be run: {e}", self.program),
        })
    }
}

/// The process group of a program.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The number is still the group's: the child is collected only after this has been dropped.
    fn kill(&self) {
        let _ = self.0.map(|group| killpg(group, Signal::SIGKILL));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A descriptor that becomes readable when the program has ended, without collecting it (pidfd_open(2)); `None` where the kernel has none.
#[expect(deprecated, reason = "its replacement is unsafe; the descriptor is owned here for as long as it is watched")]
fn watched(child: &Child) -> Option<AsyncFd<OwnedFd>> {
    let pid = libc::pid_t::try_from(child.id()?).ok()?;
    // SAFETY: the call takes no pointers; the descriptor is owned at once.
    let fd = unsafe {
        let fd = i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).ok().filter(|fd| *fd >= 0)?;
        OwnedFd::from_raw_fd(fd)
    };
    AsyncFd::with_interest(fd, Interest::READABLE).ok()
}

async fn over(end: Option<&AsyncFd<OwnedFd>>) {
    match end {
        Some(end) => _ = end.readable().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(super) mod tests;
