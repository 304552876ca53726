//! Capabilities (capabilities(7)): a run on a real machine keeps those that its probes open sockets with, and gives the others up
//! before the first thread exists; when the probes are done the rest goes too.
//!
//! Probes open their sockets when it is their turn, and a live run opens them again and again: so what they need is kept as long
//! as there is probing. Everything is given up for good, for what this process starts as well: the bounding set is cut down, and
//! `no_new_privs` is set (prctl(2)).

use super::{Net, Vantage};
use std::io;
use std::sync::Arc;

/// A set of capabilities, one bit for each (linux/capability.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// CAP_DAC_OVERRIDE: the kubeconfig, the terminal and the directory for a bundle belong to whoever called sudo.
    pub const FILES: Self = Self(1 << 1);
    /// CAP_NET_ADMIN: the counters of the packet filter, a mark on a packet.
    pub const NET_ADMIN: Self = Self(1 << 12);
    /// CAP_NET_RAW: ICMP where datagram sockets are not allowed, captures.
    pub const NET_RAW: Self = Self(1 << 13);
    /// CAP_SYS_ADMIN: entering another network namespace (setns(2)).
    pub const SYS_ADMIN: Self = Self(1 << 21);

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What probing from these vantages takes. Entering namespaces is kept only where one of them is another namespace.
    pub fn for_probing(vantages: &[Arc<Vantage>]) -> Self {
        let here = Self::NET_ADMIN.with(Self::NET_RAW).with(Self::FILES);
        if vantages.iter().any(|v| matches!(v.net, Net::Ns(_))) { here.with(Self::SYS_ADMIN) } else { here }
    }

    /// Gives up every other capability of the calling thread, and of every thread and program that it starts from now on. It
    /// gains none that it does not have.
    pub fn keep_only(self) -> io::Result<()> {
        set(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        for number in (0..=last_capability()).filter(|n| self.0 & (1 << n) == 0) {
            // Without CAP_SETPCAP the bounding set stays as it is; no_new_privs keeps programs from gaining anything by it.
            if set(libc::PR_CAPBSET_DROP, number, 0).is_err() {
                break;
            }
        }
        // Ambient capabilities end with the permitted ones; clearing them all is for those that are kept.
        set(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0)?;
        let [mut low, mut high] = held()?;
        for (half, kept) in [(&mut low, self.0 as u32), (&mut high, (self.0 >> 32) as u32)] {
            half.permitted &= kept;
            half.effective = half.permitted;
            half.inheritable = 0;
        }
        hold([low, high])
    }
}

/// Number of the newest capability that this kernel knows.
fn last_capability() -> u64 {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|text| text.trim().parse().ok()).map_or(40, |n: u64| n.min(63))
}

fn set(option: libc::c_int, argument: u64, second: u64) -> io::Result<libc::c_int> {
    // SAFETY: none of the options used here takes a pointer.
    let answer = unsafe { libc::prctl(option, argument, second, 0_u64, 0_u64) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Half of the sets of a thread, as capget(2) and capset(2) exchange them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// _LINUX_CAPABILITY_VERSION_3; a pid of 0 is the calling thread.
fn header() -> Header {
    Header { version: 0x2008_0522, pid: 0 }
}

fn held() -> io::Result<[Half; 2]> {
    let (mut header, mut halves) = (header(), [Half::default(); 2]);
    // SAFETY: both point to memory of the layout that the call expects, and outlive it.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(halves) }
}

fn hold(halves: [Half; 2]) -> io::Result<()> {
    let mut header = header();
    // SAFETY: both point to memory of the layout that the call expects, and outlive it.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Protocol, Socket, Type};

    /// A line of the calling thread's status (proc_pid_status(5)), as a number.
    fn status(name: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t")).unwrap().to_owned();
        u64::from_str_radix(&value, 16).unwrap()
    }

    fn raw_socket() -> io::Result<Socket> {
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
    }

    #[test]
    fn ns_what_is_not_needed_is_gone_for_good() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let full = status("CapEff");
        let kept = Capabilities::NET_ADMIN.with(Capabilities::NET_RAW);
        assert!(full & !kept.0 != 0 && full & kept.0 == kept.0, "the test begins with capabilities: {full:x}");
        kept.keep_only().unwrap();
        let sets = ["CapEff", "CapPrm", "CapBnd"].map(status);
        assert_eq!((sets, status("CapInh"), status("CapAmb"), status("NoNewPrivs")), ([kept.0; 3], 0, 0, 1));
        assert!(raw_socket().is_ok());
        assert!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err(), "no new namespace without CAP_SYS_ADMIN");
        let inherited = std::thread::spawn(|| status("CapEff")).join().unwrap();
        assert_eq!(inherited, kept.0);
        // As root a program would get everything that the bounding set holds.
        let child = std::process::Command::new("/bin/grep").args(["CapEff", "/proc/self/status"]).output().unwrap();
        let child = String::from_utf8(child.stdout).unwrap();
        assert_eq!(u64::from_str_radix(child.trim_start_matches("CapEff:").trim(), 16).unwrap() & !kept.0, 0, "{child}");

        Capabilities::NONE.keep_only().unwrap();
        assert_eq!(["CapEff", "CapPrm"].map(status), [0; 2]);
        assert_eq!(raw_socket().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn another_namespace_needs_the_right_to_enter_it() {
        let here = crate::probe::testnet::vantage("here", super::super::VantageKind::Node, Net::Here, Default::default());
        assert_eq!(Capabilities::for_probing(&[here]).0 & Capabilities::SYS_ADMIN.0, 0);
    }
}
