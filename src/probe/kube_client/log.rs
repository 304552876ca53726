//! Logs of pods: plain text that the API server fetches from the kubelet.

use super::{At, Connected, Failure, encode};

/// Lines and bytes of a log that are asked for.
const LINES: usize = 200;
const BYTES: usize = 64 << 10;
/// How old lines of the running container may be: what failed yesterday explains nothing today.
const SECONDS: usize = 900;

/// Whose log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) name: &'a str,
    /// It has been restarted: there may be a log of the container before it.
    pub(crate) restarted: bool,
}

/// The ends of a container's log, and of the one before it; empty where there is none.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) now: String,
    pub(crate) before: String,
}

impl Connected {
    /// The last 200 lines of the last quarter of an hour, and of the container before; at most 64 KiB of each.
    pub(crate) async fn ends_of_log(&self, of: Container<'_>) -> Result<Ends, Failure> {
        let path = |rest: &str| {
            let pod = format!("/api/v1/namespaces/{}/pods/{}/log", encode(of.namespace), encode(of.pod));
            format!("{pod}?container={}&tailLines={LINES}&limitBytes={BYTES}{rest}", encode(of.name))
        };
        let now = path(&format!("&sinceSeconds={SECONDS}"));
        let before = path("&previous=true");
        let before = async { if of.restarted { self.log(&before).await } else { Ok(String::new()) } };
        let (now, before) = tokio::join!(self.log(&now), before);
        // 400: the container has not started and has no log yet, or the kubelet has thrown away that of the one before.
        let or_none = |log| match log {
            Err(Failure { at: At::Status(400), .. }) => Ok(String::new()),
            other => other,
        };
        Ok(Ends { now: or_none(now)?, before: or_none(before)? })
    }

    async fn log(&self, path: &str) -> Result<String, Failure> {
        let answer = self.get_as(path, "*/*").await?;
        match answer.failure("get pods/log") {
            Some(failure) => Err(failure),
            None => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
        }
    }
}
