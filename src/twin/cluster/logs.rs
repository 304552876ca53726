//! What the containers of the twin's pods have written, as the kubelet keeps it.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines that are kept of one container.
const MOST_LINES: usize = 1000;

/// Logs of all pods, by namespace and the beginning of the pod's name; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<BTreeMap<(String, String), PodLog>>>);

/// The logs of one pod.
#[derive(Clone, Debug, Default)]
struct PodLog {
    /// Of the container that runs, or ran last.
    current: VecDeque<(DateTime<Utc>, String)>,
    /// Of the one before.
    previous: Option<VecDeque<(DateTime<Utc>, String)>>,
}

/// How much of a log is wanted (`PodLogOptions`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Of the container before.
    pub previous: bool,
    /// No lines older than this.
    pub since: Option<TimeDelta>,
    /// The last lines.
    pub tail: Option<usize>,
    /// The first bytes of what is left.
    pub bytes: Option<usize>,
}

impl Logs {
    fn change(&self, namespace: &str, pod: &str, change: impl FnOnce(&mut PodLog)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry((namespace.to_owned(), pod.to_owned())).or_default());
    }

    /// Writes a line now.
    pub fn write(&self, namespace: &str, pod: &str, line: &str) {
        self.change(namespace, pod, |log| {
            if log.current.len() == MOST_LINES {
                log.current.pop_front();
            }
            log.current.push_back((Utc::now(), line.to_owned()));
        });
    }

    /// A new container: what the old one wrote becomes the previous log.
    pub fn restart(&self, namespace: &str, pod: &str) {
        self.change(namespace, pod, |log| log.previous = Some(std::mem::take(&mut log.current)));
    }

    /// A new pod: nothing is left of the old one.
    pub fn clear(&self, namespace: &str, pod: &str) {
        self.change(namespace, pod, |log| *log = PodLog::default());
    }

    /// What a pod with this full name has written; `None` if there was no such container.
    pub fn read(&self, namespace: &str, pod_name: &str, wanted: Wanted) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let log = all.iter().find(|((ns, pod), _)| ns == namespace && pod_name.strip_prefix(pod).is_some_and(|rest| rest.starts_with('-')));
        let lines = match (log, wanted.previous) {
            (Some((_, log)), true) => log.previous.as_ref()?,
            (None, true) => return None,
            (Some((_, log)), false) => &log.current,
            (None, false) => return Some(String::new()),
        };
        let oldest = wanted.since.map(|since| Utc::now() - since);
        let young: Vec<&String> = lines.iter().filter(|(at, _)| oldest.is_none_or(|oldest| *at >= oldest)).map(|(_, line)| line).collect();
        let tail = young.len().saturating_sub(wanted.tail.unwrap_or(usize::MAX));
        let mut text: String = young[tail..].iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        text.truncate((0..=text.len().min(wanted.bytes.unwrap_or(usize::MAX))).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_cut_as_asked_and_the_previous_one_is_kept() {
        let logs = Logs::default();
        ["one", "two", "three"].iter().for_each(|line| logs.write("ns", "pod", line));
        let read = |wanted| logs.read("ns", "pod-abc-1", wanted);
        assert_eq!(read(Wanted::default()).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(read(Wanted { tail: Some(1), ..Wanted::default() }).unwrap(), "three\n");
        assert_eq!(read(Wanted { bytes: Some(5), ..Wanted::default() }).unwrap(), "one\nt");
        assert_eq!(read(Wanted { since: Some(TimeDelta::seconds(-1)), ..Wanted::default() }).unwrap(), "");
        assert_eq!(read(Wanted { previous: true, ..Wanted::default() }), None);
        logs.restart("ns", "pod");
        assert_eq!(read(Wanted { previous: true, ..Wanted::default() }).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(read(Wanted::default()).unwrap(), "");
        assert_eq!(logs.read("ns", "podother-1", Wanted::default()).unwrap(), "");
    }
}
