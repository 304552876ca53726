//! A person's text files: bounded in size, and in how long a pipe may keep the program waiting.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most that is read; the largest built-in file has a hundredth of it.
const MOST_BYTES: usize = 4 << 20;

/// How long a pipe has to come to its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The whole text. The error is a clause without the path: `No such file or directory`, `is larger than 4 MiB`.
pub fn read(path: &Path) -> Result<String, String> {
    read_within(path, PATIENCE)
}

fn read_within(path: &Path, patience: Duration) -> Result<String, String> {
    // Without O_NONBLOCK the open of a FIFO alone would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| e.to_string())?;
    let bytes = to_the_end(file, patience)?;
    String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 text at byte {}", e.utf8_error().valid_up_to()))
}

fn to_the_end(mut file: File, patience: Duration) -> Result<Vec<u8>, String> {
    let until = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        if !is_ready(&file, until)? {
            return Err(format!("did not come to an end within {} s", patience.as_secs_f64()));
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(e) => return Err(e.to_string()),
        }
        if bytes.len() > MOST_BYTES {
            return Err(format!("is larger than {} MiB", MOST_BYTES >> 20));
        }
    }
}

/// Whether there is something to read, or the end. A regular file always is.
fn is_ready(file: &File, until: Instant) -> Result<bool, String> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(!left.is_zero()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_come_whole_and_what_is_none_is_a_clause() {
        assert!(read(Path::new("Cargo.toml")).unwrap().contains("name = \"fathom\""));
        assert_eq!(read(Path::new("/nonexistent")).unwrap_err(), "No such file or directory (os error 2)");
        assert_eq!(read(Path::new("src")).unwrap_err(), "Is a directory (os error 21)");
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err(), "is larger than 4 MiB");
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for_without_one() {
        let (out, mut into) = std::io::pipe().unwrap();
        let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&out)));
        into.write_all(b"one \xff").unwrap();
        assert_eq!(read_within(&path, Duration::from_millis(50)).unwrap_err(), "did not come to an end within 0.05 s");
        into.write_all(b"two").unwrap();
        drop(into);
        assert_eq!(read(&path).unwrap(), "two");
    }
}
