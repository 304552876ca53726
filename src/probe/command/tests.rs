use super::*;
use crate::probe::testing::Folder;

/// Waits until none of the processes whose ids are the lines of a file runs.
pub(in crate::probe) async fn all_ended(pids: &Path, expected: usize) {
    let listed: Vec<i32> = std::fs::read_to_string(pids).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(listed.len(), expected, "as many processes were started");
    let end = Instant::now() + Duration::from_secs(5);
    while listed.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < end, "left behind: {:?}", listed.iter().filter(|pid| runs(**pid)).collect::<Vec<_>>());
        tokio::task::yield_now().await;
    }
}

/// Whether a process is there and no zombie that waits for somebody to collect it.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

async fn run(folder: &Folder, body: &str, patience: Duration) -> Result<Vec<u8>, String> {
    folder.script("tell", body);
    let until = Instant::now() + patience;
    Tool { program: "tell", arguments: &["a b", "c"], path: Some(&folder.0), most: 64 << 10, until }.output().await
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn what_it_prints_is_given_back_as_it_is() {
    let folder = Folder::new("command-output");
    assert_eq!(run(&folder, "printf '%s|' \"$@\"; echo nobody reads this >&2; exit 7", LONG).await.unwrap(), b"a b|c|");
    assert_eq!(run(&folder, "printf '\\377\\000\\033[2J'", LONG).await.unwrap(), b"\xff\0\x1b[2J");
    assert_eq!(run(&folder, "kill -9 $$", LONG).await.unwrap(), b"");
    assert_eq!(run(&folder, "head -c 65536 /dev/zero", LONG).await.unwrap().len(), 65536);
}

#[tokio::test]
async fn it_is_looked_for_in_path() {
    let folder = Folder::new("command-path");
    let look = async |program: &str, path: Option<&Path>| {
        Tool { program, arguments: &["-c", "echo here"], path, most: 99, until: Instant::now() + LONG }.output().await
    };
    assert_eq!(look("sh", Some(&folder.0)).await.unwrap_err(), "sh is not installed");
    assert_eq!(look("sh", Some(Path::new("/usr/bin:/bin"))).await.unwrap(), b"here\n");
    assert_eq!(look("sh", None).await.unwrap(), b"here\n");
    std::fs::write(folder.0.join("plain"), "").unwrap();
    assert!(look("plain", Some(&folder.0)).await.unwrap_err().starts_with("plain cannot be run: "));
}

#[tokio::test]
async fn of_100_megabytes_no_more_than_the_bound_is_read() {
    let folder = Folder::new("command-flood");
    let counter = folder.0.join("poured");
    // What the pipe could not take is never made: the writer is killed long before it is through.
    let body = format!("dd if=/dev/zero bs=65536 count=1600 2>>{}", counter.display());
    assert_eq!(run(&folder, &body, LONG).await.unwrap_err(), "tell printed more than 65536 bytes");
    assert!(!std::fs::read_to_string(&counter).unwrap_or_default().contains("1600+0 records out"));
}

#[tokio::test]
async fn what_hangs_is_ended_with_its_children() {
    let folder = Folder::new("command-hang");
    let pids = folder.0.join("pids");
    let body = format!("echo half; sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
    assert_eq!(run(&folder, &body, SHORT * 4).await.unwrap_err(), "tell did not end in time");
    all_ended(&pids, 2).await;
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_open_is_not_waited_for() {
    let folder = Folder::new("command-pipe");
    let pids = folder.0.join("pids");
    let body = format!("sleep 1000 & echo $! >> {}; echo answer", pids.display());
    let began = Instant::now();
    assert_eq!(run(&folder, &body, LONG).await.unwrap(), b"answer\n");
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    all_ended(&pids, 1).await;
}

#[tokio::test]
async fn a_grandchild_that_has_left_the_group_is_not_waited_for_either() {
    let folder = Folder::new("command-setsid");
    let pid = folder.0.join("pid");
    // It says who it is before the answer is printed, so that the group's end cannot come before it has left the group.
    let body = format!(
        "mkfifo {0}.fifo; setsid sh -c 'echo $$ > {0}; echo > {0}.fifo; exec sleep 1000' & read -r _ < {0}.fifo; echo answer",
        pid.display()
    );
    let began = Instant::now();
    assert_eq!(run(&folder, &body, LONG).await.unwrap(), b"answer\n");
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    let left: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_call_that_is_cut_off_leaves_nothing() {
    let folder = Folder::new("command-cut");
    let pids = folder.0.join("pids");
    let body = format!("sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
    folder.script("tell", &body);
    let call = Tool { program: "tell", arguments: &[], path: Some(&folder.0), most: 99, until: Instant::now() + LONG };
    let written = async {
        while std::fs::read_to_string(&pids).unwrap_or_default().lines().count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = call.output() => panic!("it ended by itself: {outcome:?}"),
        () = written => {}
    }
    all_ended(&pids, 2).await;
}
