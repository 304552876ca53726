//! Another program, run for what it prints: found through `PATH`, with a deadline and a bound, and ended with what it started.

use crate::vantage::Net;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long what has been printed may take to be read after the program has ended.
const REST: Duration = Duration::from_millis(200);

/// Why nothing can be said of what a program prints.
#[derive(Debug)]
pub(super) enum Broken {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended in time.
    Late,
    /// Its output could not be read.
    Output(io::Error),
    /// It printed more than so many bytes.
    TooMuch(usize),
}

impl Broken {
    /// What is to be said of the program: a clause without its subject.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => "is not installed".to_owned(),
            Self::Start(error) => format!("cannot be run: {error}"),
            Self::Late => "did not end in time".to_owned(),
            Self::Output(error) => format!("has an output that cannot be read: {error}"),
            Self::TooMuch(most) => format!("printed more than {most} bytes"),
        }
    }
}

/// A program of this machine with what bounds it.
pub(super) struct Tool<'a> {
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

impl Tool<'_> {
    /// What it printed, whatever its exit status. The error is a clause: it is not installed, did not end in time, printed too much.
    pub(super) async fn output(&self) -> Result<Vec<u8>, String> {
        let mut command = Command::new(self.program);
        command.args(self.arguments);
        if let Some(path) = self.path {
            // The look-up follows the child's PATH where it has one of its own (std::process::Command).
            command.env("PATH", path);
        }
        match run(&Net::Here, &mut command, self.most, self.until).await {
            Ok((bytes, _)) => Ok(bytes),
            Err(broken) => Err(format!("{} {}", self.program, broken.words())),
        }
    }
}

/// Runs a command in a network: what it prints, and how it ended. It reads nothing, and what it says on standard error is not
/// looked at: that may hold secrets, and the terminal is not its own.
///
/// Its process group is killed when this returns and when it is dropped: what the program has started ends too, unless that
/// left the group (setsid(2)). What such a one prints is not waited for.
pub(super) async fn run(net: &Net, command: &mut Command, most: usize, until: Instant) -> Result<(Vec<u8>, ExitStatus), Broken> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
    let mut child = net.with(|| command.spawn()).and_then(|spawned| spawned).map_err(Broken::Start)?;
    let mut group = Group::of(&child);
    let stdout = child.stdout.take().ok_or_else(|| Broken::Output(io::ErrorKind::BrokenPipe.into()))?;
    let end = watched(&child);
    let bytes = printed(stdout, end.as_ref(), &group, most, until).await?;
    if end.is_some() {
        timeout_at(until, over(end.as_ref())).await.map_err(|_| Broken::Late)?;
        group.kill();
    }
    let status = timeout_at(until, child.wait()).await.map_err(|_| Broken::Late)?.map_err(Broken::Output)?;
    group.spare();
    Ok((bytes, status))
}

/// Everything that is printed before the end of the output, or shortly after the program's own end.
async fn printed(
    mut stdout: ChildStdout,
    end: Option<&AsyncFd<OwnedFd>>,
    group: &Group,
    most: usize,
    mut until: Instant,
) -> Result<Vec<u8>, Broken> {
    let (mut bytes, mut ended) = (Vec::new(), false);
    loop {
        bytes.reserve(4096);
        tokio::select! {
            biased;
            read = stdout.read_buf(&mut bytes) => match read {
                Ok(0) => return Ok(bytes),
                Ok(_) if bytes.len() > most => return Err(Broken::TooMuch(most)),
                Ok(_) => {}
                Err(error) => return Err(Broken::Output(error)),
            },
            // What it leaves behind may keep the pipe open: with the group its end is there.
            () = over(end), if !ended => {
                group.kill();
                ended = true;
                until = until.min(Instant::now() + REST);
            }
            () = sleep_until(until) => return if ended { Ok(bytes) } else { Err(Broken::Late) },
        }
    }
}

/// The process group of a program.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The number is still the group's: the child has not been collected.
    fn kill(&self) {
        let _ = self.0.map(|group| killpg(group, Signal::SIGKILL));
    }

    /// The child was collected: its number may soon be another's.
    fn spare(&mut self) {
        self.0 = None;
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
