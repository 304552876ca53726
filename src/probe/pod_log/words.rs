//! Known patterns in the lines of applications of any kind.

use crate::check::{clean, secret};
use std::collections::{BTreeMap, BTreeSet};

/// The patterns, by the fact that counts them.
pub(super) const PATTERNS: &[&str] = &["refused", "unreachable", "timeouts", "names", "server_errors", "storage_refuses", "storage_fails"];
/// Lines that are kept as evidence: the last ones.
const MOST_LINES: usize = 6;
/// Most characters of a line that are shown, and that are looked at.
const MOST_SHOWN: usize = 300;
const MOST_READ: usize = 4000;

/// Texts of the kernel, of libc, of resolvers and of the usual runtimes, in lower case, with the pattern that they mean.
const NETWORK: &[(&str, &[&str])] = &[
    (
        "names",
        &[
            "no such host",
            "name or service not known",
            "name resolution",
            "could not translate host name",
            "nodename nor servname",
            "enotfound",
            "eai_again",
            "nxdomain",
            "failed to lookup address",
        ],
    ),
    ("unreachable", &["no route to host", "network is unreachable", "ehostunreach", "enetunreach"]),
    ("refused", &["connection refused", "econnrefused", "actively refused"]),
    (
        "timeouts",
        &["i/o timeout", "timed out", "deadline exceeded", "etimedout", "timeout expired", "connecttimeout", "readtimeout", "timeouterror"],
    ),
];
/// Error codes of the S3 API: of its client's making, and of its own.
const REFUSES: &[&str] = &[
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "NoSuchBucket",
    "RequestTimeTooSkewed",
    "Unauthorized",
];
const FAILS: &[&str] = &["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "TooManyRequests"];
/// What shows that such a word is a code of object storage.
const STORAGE: &[&str] = &["s3", "r2", "bucket", "putobject", "getobject", "uploadpart", "headobject", "listobjects", "clienterror"];

/// What logs say, as far as it is known what that means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Lines that were read.
    pub(super) lines: usize,
    /// Lines with a pattern.
    pub(super) matched: usize,
    /// S3 error codes that were found.
    pub(super) codes: BTreeSet<&'static str>,
    /// The last lines with a pattern, cleaned and without secrets.
    pub(super) last_lines: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Said {
    /// What one log says.
    pub(super) fn of(text: &str) -> Self {
        let mut said = Self::default();
        for line in text.lines() {
            said.lines += 1;
            let line: String = line.chars().take(MOST_READ).collect();
            if let Some((pattern, code)) = pattern(&line) {
                said.matched += 1;
                *said.counts.entry(pattern).or_default() += 1;
                said.codes.extend(code);
                said.keep(clean(&secret::mask_words(&line), MOST_SHOWN));
            }
        }
        said
    }

    /// Both together, the other one being the later one.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.lines += other.lines;
        self.matched += other.matched;
        self.codes.extend(other.codes);
        other.counts.into_iter().for_each(|(pattern, n)| *self.counts.entry(pattern).or_default() += n);
        other.last_lines.into_iter().for_each(|line| self.keep(line));
        self
    }

    /// Lines with this pattern.
    pub(super) fn count(&self, pattern: &str) -> usize {
        self.counts.get(pattern).copied().unwrap_or_default()
    }

    fn keep(&mut self, line: String) {
        if self.last_lines.len() == MOST_LINES {
            self.last_lines.remove(0);
        }
        self.last_lines.push(line);
    }
}

/// The pattern of a line and its S3 code, if it has one. A line has one pattern: the first that fits, storage before network.
fn pattern(line: &str) -> Option<(&'static str, Option<&'static str>)> {
    let low = line.to_lowercase();
    if harmless(&low) {
        return None;
    }
    if let Some((pattern, code)) = storage(line, &low) {
        return Some((pattern, Some(code)));
    }
    let network = NETWORK.iter().find(|(_, texts)| texts.iter().any(|text| low.contains(text)));
    network.map(|(pattern, _)| *pattern).or_else(|| server_error(&low).then_some("server_errors")).map(|pattern| (pattern, None))
}

/// A line that calls itself less than a warning tells of a plan or of a success.
fn harmless(low: &str) -> bool {
    let words = || low.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    // The level stands near the beginning, behind a time of at most eight words.
    words().take(12).find_map(|word| match word {
        "info" | "debug" | "trace" => Some(true),
        "warn" | "warning" | "error" | "err" | "fatal" | "critical" | "panic" => Some(false),
        _ => None,
    }) == Some(true)
}

fn storage(line: &str, low: &str) -> Option<(&'static str, &'static str)> {
    let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let code = |codes: &'static [&'static str]| codes.iter().copied().find(|code| words.contains(code));
    let (pattern, code) = code(REFUSES).map(|c| ("storage_refuses", c)).or_else(|| code(FAILS).map(|c| ("storage_fails", c)))?;
    let low_words: Vec<&str> = low.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    STORAGE.iter().any(|word| low_words.contains(word)).then_some((pattern, code))
}

/// `status 503`, `"status":503`, `HTTP/1.1 502`, `code=500`, `503 Service Unavailable`.
fn server_error(low: &str) -> bool {
    const BEFORE: &[&str] = &["status", "code", "statuscode", "http", "1.1", "1.0", "returned", "response"];
    const AFTER: &[&str] = &["internal", "bad", "service", "gateway", "server"];
    let words: Vec<&str> =
        low.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).map(|w| w.trim_matches('.')).filter(|w| !w.is_empty()).collect();
    words.iter().enumerate().any(|(n, word)| {
        let five = word.len() == 3 && word.starts_with('5') && word.bytes().all(|b| b.is_ascii_digit());
        let before = n.checked_sub(1).and_then(|n| words.get(n)).is_some_and(|w| BEFORE.contains(w));
        let after = words.get(n + 1).is_some_and(|w| AFTER.contains(w));
        five && (before || after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<&'static str> {
        pattern(line).map(|(pattern, _)| pattern)
    }

    #[test]
    fn lines_of_several_runtimes() {
        for (line, expected) in [
            ("dial tcp 10.43.71.170:80: connect: connection refused", Some("refused")),
            ("2026-01-02T03:04:05Z ERROR sink: Error: connect ECONNREFUSED 10.43.0.9:8080", Some("refused")),
            ("psycopg2.OperationalError: connection to server at \"h\" (18.0.0.1), port 5432 failed: timeout expired", Some("timeouts")),
            ("{\"level\":\"error\",\"msg\":\"dial tcp: lookup md-query-proxy on 10.43.0.10:53: no such host\"}", Some("names")),
            ("requests.exceptions.ConnectionError: [Errno 113] No route to host", Some("unreachable")),
            ("WARNING POST https://api.example/x returned 503", Some("server_errors")),
            ("upstream said: 502 Bad Gateway", Some("server_errors")),
            ("ClientError: An error occurred (SlowDown) when calling the PutObject operation", Some("storage_fails")),
            ("R2 put failed: <Error><Code>AccessDenied</Code></Error> bucket vessel-parquet", Some("storage_refuses")),
            ("INFO retrying after connection refused", None),
            ("{\"level\":\"info\",\"msg\":\"timed out waiting for new files, sleeping\"}", None),
            ("ingested 503 rows in 1.1 s", None),
            ("AccessDenied for user bob on page /admin", None),
            ("", None),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }

    #[test]
    fn counts_codes_and_the_last_line() {
        let said = Said::of("ok\nERROR bucket x: SlowDown\nERROR bucket x: InternalError\nok\nERROR connection refused\n");
        assert_eq!((said.lines, said.matched, said.count("storage_fails"), said.count("refused")), (5, 3, 2, 1));
        assert_eq!(said.codes.iter().copied().collect::<Vec<_>>(), ["InternalError", "SlowDown"]);
        assert_eq!(said.last_lines.last().map(String::as_str), Some("ERROR connection refused"));
    }

    #[test]
    fn secrets_and_control_characters_do_not_survive() {
        let line =
            "ERROR \u{1b}[2J connect to postgres://u:s3cret-pw@h/db with token=s3cret-token Bearer s3cretAbC123def456ghi789jkl0: timed out";
        let said = Said::of(line);
        assert_eq!(said.matched, 1);
        assert!(!said.last_lines[0].contains("s3cret") && !said.last_lines[0].contains('\u{1b}'), "{}", said.last_lines[0]);
    }

    #[test]
    fn a_flood_stays_bounded() {
        let said = Said::of(&format!("ERROR {} connection refused\n", "x".repeat(100)).repeat(10_000));
        assert_eq!((said.matched, said.last_lines.len()), (10_000, MOST_LINES));
        let long = Said::of(&format!("connection refused {}", "é".repeat(1 << 20)));
        assert!(long.last_lines[0].chars().count() <= MOST_SHOWN + 1);
    }
}
