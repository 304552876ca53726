//! The real terminal code in a real pseudo-terminal. The program under test is this test binary itself, told by a
//! variable to be the terminal program.

use super::{Options, RunSource, Theme, fixture, interactive};
use crate::report::Report;
use crate::run::{Run, RunEvent};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::wait::WaitPidFlag;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const ROLE: &str = "FATHOM_TEST_PTY";
static START: Mutex<()> = Mutex::new(());

/// Plays the fixture; the run stays open. `panic-elsewhere` panics in a task beside the screen, `panic` in the screen's.
struct Played {
    role: String,
    open: Option<Sender<RunEvent>>,
}

impl RunSource for Played {
    fn start(&mut self) -> Receiver<RunEvent> {
        let (sender, receiver) = channel(100);
        fixture::blocked_vxlan()[..19].iter().for_each(|event| sender.try_send(event.clone()).unwrap());
        self.open = Some(sender);
        receiver
    }

    fn cancel(&mut self) {
        match self.role.as_str() {
            "panic" => panic!("boom on purpose"),
            "panic-elsewhere" => drop(std::thread::spawn(|| panic!("boom beside")).join()),
            _ => {}
        }
        self.open = None;
    }

    fn report(&self, run: &Run) -> Report {
        fixture::report(run)
    }
}

/// Not a test of its own: the terminal program that the tests below start.
#[test]
#[ignore = "started by the tests beside it"]
fn child() {
    let role = std::env::var(ROLE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut source = Played { role, open: None };
    let options = Options { theme: Theme::new(None, false), clock: || fixture::at(1234) };
    let outcome = runtime.block_on(interactive(&mut source, options)).unwrap();
    if super::terminal::is_stalled() {
        std::process::exit(0);
    }
    println!("left: {:?}", outcome.leave);
}

struct Pty {
    master: File,
    /// The program's end, to fill what is between the two.
    slave: OwnedFd,
    child: Child,
    screen: vt100::Parser,
}

impl Pty {
    fn start(role: &str) -> Self {
        Self::start_with(role, |program| {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]);
            command
        })
    }

    /// Starts what runs the program, given its command line.
    fn start_with(role: &str, runs: impl FnOnce(&[OsString]) -> Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // A child of another test must not inherit this pseudo-terminal: it would never end.
        let _one_at_a_time = START.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pty = openpty(Some(&size), None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let program = std::env::current_exe().unwrap().into_os_string();
        let arguments = ["--exact", "tui::pty::child", "--nocapture", "--ignored"].map(OsString::from);
        let mut command = runs(&[vec![program], arguments.to_vec()].concat());
        command.env(ROLE, role).env("TERM", "xterm-256color").env("RUST_BACKTRACE", "0");
        command.stdin(stdio(&pty.slave)).stdout(stdio(&pty.slave)).stderr(stdio(&pty.slave));
        // SAFETY: setsid and ioctl are async-signal-safe (signal-safety(7)) and touch no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let screen = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        Self { master: pty.master.into(), slave: pty.slave, child, screen }
    }

    /// Reads until the words are on screen. The test harness' own deadline is the limit.
    fn wait_for(&mut self, words: &str) {
        while !self.screen.screen().contents().contains(words) {
            assert!(self.read(), "ended without {words:?}:\n{}", self.screen.screen().contents());
        }
    }

    /// Takes in what the program writes; false once it has ended (the pseudo-terminal then gives EIO).
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(n) if n > 0 => {
                self.screen.process(&bytes[..n]);
                true
            }
            _ => false,
        }
    }

    /// Writes until the pseudo-terminal takes no more: from now on it is as stalled as a dead connection.
    fn stall(&mut self) {
        // Opened anew: a flag on the inherited descriptor would be the program's as well.
        let path = format!("/proc/self/fd/{}", self.slave.as_raw_fd());
        let mut own = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).unwrap();
        // The kernel moves what is written on its own time, which makes room once more.
        let mut room = [PollFd::new(self.slave.as_fd(), PollFlags::POLLOUT)];
        while poll(&mut room, 300_u16).unwrap() > 0 {
            while own.write(&[b' '; 4096]).is_ok() {}
            while own.write(b" ").is_ok() {}
        }
    }

    /// Waits for the end without reading anything; fails if it does not come.
    fn ends_unread(&mut self) -> Option<i32> {
        let (tell, told) = std::sync::mpsc::channel();
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        std::thread::spawn(move || {
            let ended = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            tell.send(ended.is_ok()).unwrap_or(());
        });
        let ended = told.recv_timeout(std::time::Duration::from_secs(20));
        if ended.is_err() {
            self.child.kill().unwrap();
        }
        assert_eq!(ended, Ok(true), "it does not end while the terminal takes nothing");
        self.child.wait().unwrap().code()
    }

    /// Gives the own copy of the program's end back: only then the end of the program is the end of the reading.
    fn let_go(&mut self) {
        self.slave = File::open("/dev/null").unwrap().into();
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Takes in what is left once the program has ended.
    fn read_rest(&mut self) -> (usize, String) {
        self.let_go();
        let mut reads = 0;
        while self.read() {
            reads += 1;
        }
        (reads, self.screen.screen().contents())
    }

    fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn ends(&mut self) -> (Option<i32>, String) {
        self.let_go();
        while self.read() {}
        let status = self.child.wait().unwrap();
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        (status.code(), screen.contents())
    }
}

#[test]
fn a_terminal_that_takes_nothing_does_not_hold_the_program() {
    for how in ["ctrl+c", "signal"] {
        let mut pty = Pty::start("plain");
        pty.wait_for("udp8472-blocked");
        pty.stall();
        // Something to draw, so that the program really writes into the full terminal.
        pty.press(b"2jjx?");
        match how {
            "signal" => pty.signal(nix::sys::signal::SIGTERM),
            _ => pty.press(b"\x03\x03"),
        }
        assert_eq!(pty.ends_unread(), Some(0), "{how}");
        // What is left to read gives the terminal back.
        let (_, text) = pty.read_rest();
        assert!(!pty.screen.screen().alternate_screen() && !pty.screen.screen().hide_cursor(), "{how}: {text}");
    }
}

#[test]
fn a_person_looks_and_leaves() {
    let mut pty = Pty::start("plain");
    pty.wait_for("udp8472-blocked");
    assert!(pty.screen.screen().alternate_screen() && pty.screen.screen().hide_cursor());
    pty.press(b"2\x1b[B\r");
    pty.wait_for("Check");
    pty.press(b"q");
    let (code, text) = pty.ends();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("left: Quit"), "{text}");
}

/// A shell with job control starts it: the program alone would have nobody who lets it go on, and is then not stopped.
#[test]
fn ctrl_z_gives_the_terminal_back_until_the_shell_lets_it_go_on() {
    let mut pty = Pty::start_with("plain", |program| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "set -m; \"$@\"; echo the shell is back; read -r line; fg >/dev/null", "sh"]).args(program);
        shell
    });
    pty.wait_for("udp8472-blocked");
    pty.press(b"\x1a");
    pty.wait_for("the shell is back");
    let screen = pty.screen.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
    pty.press(b"on\n");
    pty.wait_for("udp8472-blocked");
    assert!(pty.screen.screen().alternate_screen() && pty.screen.screen().hide_cursor());
    pty.press(b"q");
    let (code, text) = pty.ends();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("left: Quit"), "{text}");
}

#[test]
fn a_signal_restores_the_terminal() {
    for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGHUP] {
        let mut pty = Pty::start("plain");
        pty.wait_for("udp8472-blocked");
        pty.signal(signal);
        let (code, text) = pty.ends();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("left: Signal"), "{text}");
    }
}

#[test]
fn a_panic_of_the_screen_restores_the_terminal_and_is_told() {
    let mut pty = Pty::start("panic");
    pty.wait_for("udp8472-blocked");
    pty.press(b"\x03");
    let (code, text) = pty.ends();
    assert_eq!(code, Some(101), "{text}");
    assert!(text.contains("boom on purpose"), "{text}");
}

#[test]
fn a_panic_elsewhere_leaves_the_screen_alone_and_is_told_afterwards() {
    let mut pty = Pty::start("panic-elsewhere");
    pty.wait_for("udp8472-blocked");
    pty.press(b"\x03");
    pty.wait_for("broke off");
    assert!(pty.screen.screen().alternate_screen());
    assert!(!pty.screen.screen().contents().contains("boom"));
    pty.press(b"q");
    let (code, text) = pty.ends();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("boom beside"), "{text}");
}

#[test]
fn a_closed_terminal_ends_the_program() {
    let mut pty = Pty::start("plain");
    pty.wait_for("udp8472-blocked");
    pty.let_go();
    drop(std::mem::replace(&mut pty.master, File::open("/dev/null").unwrap()));
    // The hang-up arrives as SIGHUP or as the end of the input; either way it ends.
    pty.child.wait().unwrap();
}
