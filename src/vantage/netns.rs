//! Network namespaces held by file descriptor.
//!
//! A socket belongs to the network namespace it was created in, for as long as it lives; so it is enough to be in the
//! namespace while the socket is opened ([`Net::with`]), and everything after that runs on the ordinary runtime.
//! Libraries that open sockets inside a future are polled inside the namespace instead ([`Net::wrap`]).

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// A network namespace, kept alive by an open file descriptor. Closing the last one removes the namespace
/// (network_namespaces(7)), also when the process is killed.
#[derive(Clone, Debug)]
pub struct NetNs {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

/// Where sockets are opened: in the namespace of this process, or in another one.
#[derive(Clone, Debug, Default)]
pub enum Net {
    /// The namespace fathom itself runs in.
    #[default]
    Here,
    /// Another network namespace of this machine.
    Ns(NetNs),
}

fn namespace_of_thread() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

impl NetNs {
    /// Creates an empty namespace. It has no name in `/run/netns`, so nothing has to be cleaned up.
    pub fn create(name: &str) -> io::Result<Self> {
        let fd = std::thread::scope(|scope| {
            scope
                .spawn(|| -> io::Result<OwnedFd> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    namespace_of_thread()
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that creates a namespace panicked")))
        })?;
        Ok(Self { name: name.into(), fd: Arc::new(fd) })
    }

    /// Opens a namespace by path, for instance `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(name: &str, path: &Path) -> io::Result<Self> {
        Ok(Self { name: name.into(), fd: Arc::new(File::open(path)?.into()) })
    }

    /// The name it was created with, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, for netlink attributes such as `IFLA_NET_NS_FD`.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs a synchronous closure inside the namespace on this thread and returns to where the thread was.
    ///
    /// An ordinary user in the host's network may enter a namespace it owns but not come back
    /// (`setns` to the host's namespace is EPERM); then a thread of its own does the work.
    pub fn with<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        if !can_return() {
            return self.with_thread(f);
        }
        thread_local!(static HOME: io::Result<OwnedFd> = namespace_of_thread());
        struct Back;
        impl Drop for Back {
            fn drop(&mut self) {
                let back = HOME.with(|home| home.as_ref().is_ok_and(|fd| setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).is_ok()));
                if !back {
                    // Going on in the wrong namespace could send a probe to the wrong network: never do that.
                    std::process::abort();
                }
            }
        }
        HOME.with(|home| home.as_ref().map(|_| ()).map_err(|e| io::Error::new(e.kind(), e.to_string())))?;
        self.enter()?;
        let _back = Back;
        Ok(f())
    }

    fn with_thread<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        let handle = tokio::runtime::Handle::try_current().ok();
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _entered = handle.as_ref().map(|h| h.enter());
                    self.enter()?;
                    Ok(f())
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread in another namespace panicked")))
        })
    }
}

/// Whether `setns` back into the present namespace is allowed; asked once.
fn can_return() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| namespace_of_thread().is_ok_and(|here| setns(here.as_fd(), CloneFlags::CLONE_NEWNET).is_ok()))
}

impl Net {
    /// Runs a closure that opens sockets (or reads `/proc/sys/net`, `/proc/thread-self/net`) in this network.
    pub fn with<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        match self {
            Self::Here => Ok(f()),
            Self::Ns(ns) => ns.with(f),
        }
    }

    /// Moves the calling thread into this network for good.
    pub fn enter(&self) -> io::Result<()> {
        match self {
            Self::Here => Ok(()),
            Self::Ns(ns) => ns.enter(),
        }
    }

    /// Polls a future inside this network, for libraries that open their sockets themselves.
    pub fn wrap<F: Future + Send>(&self, future: F) -> InNet<F>
    where
        F::Output: Send,
    {
        InNet { net: self.clone(), future: Box::pin(future) }
    }
}

/// A future that is polled inside a network; see [`Net::wrap`].
pub struct InNet<F> {
    net: Net,
    future: Pin<Box<F>>,
}

impl<F: Future + Send> Future for InNet<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let net = self.net.clone();
        let waker = cx.waker().clone();
        let future = self.future.as_mut();
        match net.with(move || future.poll(&mut Context::from_waker(&waker))) {
            Ok(poll) => poll,
            // The namespace is held open by us; if it can't be entered any more, no result of the future can be trusted.
            Err(_) => std::process::abort(),
        }
    }
}

/// Enters a user and a mount namespace (unless root) and a network namespace of its own: who is not root may mount a file system
/// only in a mount namespace of his own, and the twin keeps one in memory. Must run before any thread exists:
/// `unshare(CLONE_NEWUSER)` is refused to a process with several threads (unshare(2)).
pub fn enter_private() -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    }
    unshare(flags)?;
    if !uid.is_root() {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tests that make namespaces run in a process of their own, inside a private user and network namespace: so they
    //! pass as an ordinary user too, and none of their packets can leave the machine.

    use nix::sched::{CloneFlags, unshare};
    use std::ffi::CString;
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const INSIDE: &str = "FATHOM_TEST_INSIDE";

    /// True in the private process, where the test goes on. Elsewhere: runs the calling test there, and fails if it fails.
    pub(crate) fn in_private() -> bool {
        if std::env::var_os(INSIDE).is_some() {
            loopback_up();
            return true;
        }
        let test = std::thread::current().name().expect("libtest names the thread after the test").to_owned();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([&test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
        let root = nix::unistd::geteuid().is_root();
        let maps = ids();
        // SAFETY: between fork and exec only system calls on memory that was allocated before.
        unsafe {
            child.pre_exec(move || enter(root, &maps));
        }
        let output = child.output().expect("the test binary can be started in private namespaces (are user namespaces allowed?)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        false
    }

    fn ids() -> [(CString, Vec<u8>); 3] {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let file = |path: &str, text: String| (CString::new(path).unwrap(), text.into_bytes());
        [
            file("/proc/self/setgroups", "deny".to_owned()),
            file("/proc/self/uid_map", format!("0 {uid} 1")),
            file("/proc/self/gid_map", format!("0 {gid} 1")),
        ]
    }

    fn enter(root: bool, maps: &[(CString, Vec<u8>)]) -> io::Result<()> {
        if root {
            return Ok(unshare(CloneFlags::CLONE_NEWNET)?);
        }
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        for (path, text) in maps {
            // SAFETY: path and text are valid for the calls; the descriptor is closed with exec (O_CLOEXEC).
            let written =
                unsafe { libc::write(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC), text.as_ptr().cast(), text.len()) };
            if written < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Brings the private namespace's loopback up (netdevice(7)).
    fn loopback_up() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // SAFETY: ifreq is plain data, for which zero is a valid value; it outlives the call.
        let done = unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name[0] = libc::c_char::from_ne_bytes([b'l']);
            request.ifr_name[1] = libc::c_char::from_ne_bytes([b'o']);
            request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap();
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw mut request)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}
