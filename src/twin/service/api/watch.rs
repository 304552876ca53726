//! Watches: the changes after a version as they come, one JSON object a line, with bookmarks.

use super::list::Selection;
use super::status::{self, Failure};
use super::view::View;
use crate::twin::cluster::{Change, Cluster};
use crate::twin::service::http::{Body, find};
use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A watch without a time of its own lives as long as kube-apiserver's shortest (30 minutes).
const LONGEST: Duration = Duration::from_secs(1800);
/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

struct Watch {
    cluster: Cluster,
    selection: Selection,
    view: View,
    at: u64,
    versions: watch::Receiver<u64>,
    lines: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    until: Instant,
    ended: bool,
}

/// The body of a watch.
pub(super) fn body(cluster: &Cluster, selection: Selection, query: &[(String, String)], view: View) -> Result<Body, Failure> {
    let on = |name: &str| find(query, name).is_some_and(|v| v != "false" && v != "0");
    if on("sendInitialEvents") {
        return Err(status::no_initial_events());
    }
    let seconds = find(query, "timeoutSeconds").and_then(|t| t.parse().ok()).filter(|t| *t > 0).map(Duration::from_secs);
    let now = Instant::now();
    let mut watch = Watch {
        versions: cluster.versions(),
        cluster: cluster.clone(),
        selection,
        view,
        at: 0,
        lines: VecDeque::new(),
        bookmarks: on("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK,
        until: now + seconds.unwrap_or(LONGEST).min(LONGEST),
        ended: false,
    };
    match find(query, "resourceVersion").unwrap_or("") {
        "" | "0" => watch.begin(),
        version => watch.at = version.parse().map_err(|_| status::bad_request("resourceVersion: Invalid value: not a number"))?,
    }
    let frames = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), watch))
    });
    Ok(Body::new(StreamBody::new(frames)))
}

impl Watch {
    /// Without a version a watch begins with everything that there is.
    fn begin(&mut self) {
        let (version, objects) = self.cluster.read(|objects| {
            let all = objects.list(self.selection.resource).map(|(_, object)| object).filter(|object| self.selection.holds(object));
            (objects.version(), all.cloned().collect::<Vec<Value>>())
        });
        self.at = version;
        objects.into_iter().for_each(|object| self.push("ADDED", object));
    }

    fn push(&mut self, kind: &str, object: Value) {
        let object = self.view.one(self.selection.resource, object);
        self.lines.push_back(format!("{}\n", json!({"type": kind, "object": object})).into());
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            // Marked as seen before the look: what comes after it wakes the wait below.
            self.versions.borrow_and_update();
            self.look();
            if self.lines.is_empty() {
                self.wait().await;
            }
        }
    }

    fn look(&mut self) {
        match self.cluster.changes_since(self.at) {
            Ok(changes) => changes.iter().for_each(|change| self.take(change)),
            Err(oldest) => {
                let gone = status::too_old(self.at, oldest).body;
                self.lines.push_back(format!("{}\n", json!({"type": "ERROR", "object": gone})).into());
                self.ended = true;
            }
        }
    }

    /// An object that comes to match or no longer does is added or deleted for this watch.
    fn take(&mut self, change: &Change) {
        self.at = change.version;
        if change.resource != self.selection.resource {
            return;
        }
        let own = |object: &Option<Value>| object.as_ref().filter(|object| self.selection.holds(object)).cloned();
        match (own(&change.before), own(&change.after)) {
            (None, Some(object)) => self.push("ADDED", object),
            (Some(_), Some(object)) => self.push("MODIFIED", object),
            (Some(mut object), None) => {
                object["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.push("DELETED", object);
            }
            (None, None) => {}
        }
    }

    async fn wait(&mut self) {
        let bookmark = if self.bookmarks { self.next_bookmark.min(self.until) } else { self.until };
        tokio::select! {
            // The sender lives in the cluster that this watch holds.
            _ = self.versions.changed() => {}
            () = tokio::time::sleep_until(bookmark) => {
                let now = Instant::now();
                self.ended = now >= self.until;
                self.next_bookmark = now + BOOKMARK;
                if self.bookmarks {
                    let object = self.view.bookmark(self.selection.resource, self.at);
                    self.lines.push_back(format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into());
                }
            }
        }
    }
}
