//! Known patterns in the lines that CoreDNS logs.

use crate::check::clean;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Upstreams that are listed.
const MOST_UPSTREAMS: usize = 16;
/// Lines that are kept as evidence: the last ones.
const MOST_LINES: usize = 6;

/// What logs say, as far as it is known what that means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The patterns that were found.
    pub(super) patterns: BTreeSet<&'static str>,
    /// Upstreams that did not answer, or refused.
    pub(super) upstreams: BTreeSet<std::net::IpAddr>,
    /// The last lines with a pattern, cleaned.
    pub(super) lines: Vec<String>,
}

impl Said {
    /// What one log says.
    pub(super) fn of(text: &str) -> Self {
        let mut said = Self::default();
        for line in text.lines() {
            let Some(pattern) = pattern(line) else { continue };
            said.patterns.insert(pattern);
            if let Some(upstream) = upstream(line).filter(|_| pattern.starts_with("upstream") && said.upstreams.len() < MOST_UPSTREAMS) {
                said.upstreams.insert(upstream);
            }
            said.keep(clean(line, 300));
        }
        said
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.patterns.extend(other.patterns);
        let room = MOST_UPSTREAMS.saturating_sub(self.upstreams.len());
        self.upstreams.extend(other.upstreams.into_iter().take(room));
        other.lines.into_iter().for_each(|line| self.keep(line));
        self
    }

    fn keep(&mut self, line: String) {
        if self.lines.len() == MOST_LINES {
            self.lines.remove(0);
        }
        self.lines.push(line);
    }
}

/// The pattern of a line, if it has a known one. CoreDNS' own prefix must be there: what it quotes from a query is not to be
/// mistaken for its verdict.
fn pattern(line: &str) -> Option<&'static str> {
    let level =
        ["[FATAL] ", "[ERROR] ", "[WARNING] ", "[INFO] "].iter().find_map(|level| line.find(level).map(|at| &line[at + level.len()..]));
    let said = level.unwrap_or(line);
    let io = |word: &str| said.ends_with(word);
    if said.starts_with("plugin/loop: Loop (") {
        Some("loop")
    } else if said.starts_with("plugin/errors: ") && (said.contains(": read ") || said.contains(": dial ")) {
        match () {
            () if io(": i/o timeout") => Some("upstream-timeout"),
            () if io(": connection refused") => Some("upstream-refused"),
            () if io(": no route to host") || io(": network is unreachable") => Some("upstream-unreachable"),
            () => None,
        }
    } else if said.starts_with("plugin/kubernetes: ") && (said.contains("Failed to watch") || said.contains("waiting for Kubernetes API")) {
        Some("api-unreachable")
    } else if line.contains("Error during parsing:") {
        Some("corefile")
    } else {
        None
    }
}

/// The far end in `read udp 10.42.0.5:49703->203.0.113.10:53: i/o timeout` or `dial tcp 203.0.113.10:53: ..`.
fn upstream(line: &str) -> Option<std::net::IpAddr> {
    let (_, far) = line.rsplit_once("->").or_else(|| line.rsplit_once("dial tcp ")).or_else(|| line.rsplit_once("dial udp "))?;
    let address = far.split(": ").next()?;
    address.parse::<SocketAddr>().ok().map(|at| at.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_logs_are_told_apart() {
        let looping = Said::of(include_str!("../../../tests/data/coredns/log-loop.txt"));
        assert_eq!(looping.patterns.into_iter().collect::<Vec<_>>(), ["loop"]);
        assert!(looping.lines[0].starts_with("[FATAL] plugin/loop: Loop (127.0.0.1:46072 -> :5353)"), "{:?}", looping.lines);
        assert_eq!(Said::of(include_str!("../../../tests/data/coredns/log-healthy.txt")), Said::default());
    }

    #[test]
    fn upstreams_are_named_with_what_befell_them() {
        let said = Said::of(
            "[ERROR] plugin/errors: 2 a.example. A: read udp 10.42.0.5:49703->203.0.113.10:53: i/o timeout\n\
             [ERROR] plugin/errors: 2 b.example. A: read udp 10.42.0.5:1->203.0.113.11:53: read: connection refused\n\
             [ERROR] plugin/errors: 2 c.example. A: dial tcp 203.0.113.12:53: connect: no route to host\n\
             [INFO] plugin/kubernetes: waiting for Kubernetes API before starting server\n",
        );
        assert_eq!(
            said.patterns.iter().copied().collect::<Vec<_>>(),
            ["api-unreachable", "upstream-refused", "upstream-timeout", "upstream-unreachable"]
        );
        assert_eq!(said.upstreams.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.10", "203.0.113.11", "203.0.113.12"]);
    }

    #[test]
    fn names_in_queries_say_nothing() {
        for line in [
            "[INFO] 10.42.0.9:1 - 1 \"A IN plugin/loop:.Loop.(x. udp 30 false 512\" NXDOMAIN",
            "[ERROR] plugin/errors: 2 plugin/loop: Loop (x. HINFO: something",
            "[ERROR] plugin/errors: 2 x. A: read udp 1.1.1.1:1->not-an-address: unknown",
        ] {
            assert_eq!(Said::of(line), Said::default(), "{line}");
        }
    }

    #[test]
    fn a_flood_stays_bounded() {
        let line = |n: u32| {
            format!("[ERROR] plugin/errors: 2 \u{1b}[2J. A: read udp 1.1.1.1:1->{}:53: i/o timeout\n", std::net::Ipv4Addr::from(n))
        };
        let said = Said::of(&(0..10_000).map(line).collect::<String>());
        assert_eq!((said.upstreams.len(), said.lines.len()), (MOST_UPSTREAMS, MOST_LINES));
        assert!(said.lines.iter().all(|l| !l.contains('\u{1b}')));
        assert_eq!(said.clone().and(said).lines.len(), MOST_LINES);
    }
}
