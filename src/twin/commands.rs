//! A directory of commands for a host's `PATH`, on a file system in memory that is mounted nowhere: it is reached through its
//! descriptor alone, so it is gone when the process is, however that ends.

use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Values of linux/mount.h.
const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOUNT_ATTR_NOSUID_NODEV: u32 = 0x2 | 0x4;

/// The directory.
#[derive(Debug)]
pub(super) struct Commands {
    mount: OwnedFd,
}

impl Commands {
    /// An empty one. Needs CAP_SYS_ADMIN over the own mount namespace, as [`crate::vantage::netns::enter_private`] gives it.
    pub(super) fn new() -> Result<Self> {
        let mount = memory().context("a file system in memory for the commands of a host (fsopen(2))")?;
        Ok(Self { mount })
    }

    /// What stands in `PATH`. The number of the process is in it: to what it starts, `self` would be somebody else.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd()))
    }

    /// Puts a file there, whole at once: who reads it sees the old text or the new one.
    pub(super) fn write(&self, name: &str, text: &str, executable: bool) -> Result<()> {
        let (path, new) = (self.path().join(name), self.path().join(".new"));
        let written = fs::write(&new, text)
            .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 })))
            .and_then(|()| fs::rename(&new, &path));
        written.with_context(|| format!("the file {name} of a host's commands"))
    }
}

/// fsopen(2), fsconfig(2), fsmount(2): a tmpfs that is attached to no directory.
fn memory() -> io::Result<OwnedFd> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the strings are constant C strings or null, and each descriptor is owned at once.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC))?;
        if libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID_NODEV))
    }
}

/// # Safety
///
/// The number must be what a system call just answered: a descriptor that nobody else owns, or an error.
unsafe fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: it is a new descriptor, as the caller has promised.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ns_it_is_mounted_nowhere_and_goes_with_its_descriptor() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        let commands = Commands::new().unwrap();
        commands.write("greet", "#!/bin/sh\necho \"$1\"\n", true).unwrap();
        commands.write("greet", "#!/bin/sh\necho hello \"$1\"\n", true).unwrap();
        let ran = std::process::Command::new("greet").arg("you").env("PATH", commands.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello you\n");
        assert_eq!(mounts(), before);
        let path = commands.path().join("greet");
        assert!(path.exists());
        drop(commands);
        assert!(!path.exists());
    }
}
