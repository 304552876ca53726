//! The Corefile, as far as it says where names go: server blocks, their plugins, and the targets of `forward`.
//!
//! The format is Caddy's: tokens separated by white space, quoted with `"`, `#` to the end of the line, blocks in braces that open
//! at the end of a line. Snippets (`(name) { .. }`) and imports are not followed.

use crate::check::clean;

/// Longer texts are not read: the API server itself takes no ConfigMap over 1 MiB.
const MOST_BYTES: usize = 1 << 20;
/// Targets and plugins that are kept.
const MOST_KEPT: usize = 64;

/// What a Corefile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Corefile {
    /// Targets of every `forward` of the root zone: addresses, or a file in the format of resolv.conf.
    pub(crate) forward: Vec<String>,
    /// Plugins of all server blocks, in order, each once.
    pub(crate) plugins: Vec<String>,
}

impl Corefile {
    /// Reads what it can; a Corefile that CoreDNS would refuse gives what stands before the mistake.
    pub(crate) fn parse(text: &str) -> Self {
        let mut corefile = Self::default();
        let mut depth = 0_usize;
        for line in head(text).lines() {
            let words = tokens(line);
            let closes = words.iter().filter(|w| *w == "}").count();
            let opens = words.iter().filter(|w| *w == "{").count();
            // Plugins stand one level inside of a server block; what is deeper are their options.
            if depth == 1 {
                corefile.directive(&words);
            }
            depth = (depth + opens).saturating_sub(closes);
        }
        corefile
    }

    fn directive(&mut self, words: &[String]) {
        let Some(plugin) = words.first().filter(|w| !matches!(w.as_str(), "{" | "}")) else { return };
        if self.plugins.len() < MOST_KEPT && !self.plugins.contains(plugin) {
            self.plugins.push(clean(plugin, 64));
        }
        if plugin == "forward" && words.get(1).is_some_and(|zone| zone == ".") {
            let targets = words.iter().skip(2).filter(|w| !matches!(w.as_str(), "{" | "}"));
            let room = MOST_KEPT.saturating_sub(self.forward.len());
            self.forward.extend(targets.take(room).map(|target| clean(target, 253)));
        }
    }
}

/// At most [`MOST_BYTES`], cut between characters.
fn head(text: &str) -> &str {
    let mut end = text.len().min(MOST_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The tokens of a line.
fn tokens(line: &str) -> Vec<String> {
    let (mut tokens, mut token, mut quoted) = (Vec::new(), String::new(), false);
    let mut any = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '#' if !quoted && token.is_empty() => break,
            c if c.is_whitespace() && !quoted => {
                if any || !token.is_empty() {
                    tokens.push(std::mem::take(&mut token));
                }
                any = false;
            }
            c => token.push(c),
        }
    }
    if any || !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_corefile_forwards_to_resolv_conf() {
        let text = ".:53 {\n    errors\n    health {\n        lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n\
                    \x20       pods insecure\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf\n    cache 30\n    loop\n}\n";
        let corefile = Corefile::parse(text);
        assert_eq!(corefile.forward, ["/etc/resolv.conf"]);
        assert_eq!(corefile.plugins, ["errors", "health", "ready", "kubernetes", "prometheus", "forward", "cache", "loop"]);
    }

    #[test]
    fn the_captured_corefile_forwards_to_resolv_conf() {
        let capture = include_str!("../../../tests/data/k8s/get-configmap-coredns.http");
        let map: serde_json::Value = serde_json::from_str(capture.split_once("\r\n\r\n").unwrap().1).unwrap();
        let corefile = Corefile::parse(map["data"]["Corefile"].as_str().unwrap());
        assert_eq!(corefile.forward, ["/etc/resolv.conf"]);
        let plugins = [
            "errors",
            "health",
            "ready",
            "kubernetes",
            "hosts",
            "prometheus",
            "cache",
            "loop",
            "reload",
            "loadbalance",
            "import",
            "forward",
        ];
        assert_eq!(corefile.plugins, plugins);
    }

    #[test]
    fn options_comments_quotes_and_other_zones_are_no_targets() {
        let text = "# forward . 9.9.9.9\n. {\n forward . tls://1.1.1.1 \"8.8.8.8:53\" { # both\n  policy sequential\n  forward . 3.3.3.3\n }\n\
                    \x20forward corp.example 10.0.0.1\n cache\n}\nforward . 4.4.4.4\n";
        let corefile = Corefile::parse(text);
        assert_eq!(corefile.forward, ["tls://1.1.1.1", "8.8.8.8:53"]);
        assert_eq!(corefile.plugins, ["forward", "cache"]);
    }

    #[test]
    fn hostile_corefiles_stay_bounded() {
        for text in ["", "}", "}}}}. {\nforward", ". {\n\"", "{\n{\n{\n", "\u{0}\u{1b}[2J {\nforward . \u{1b}[2J\n}"] {
            let corefile = Corefile::parse(text);
            assert!(corefile.forward.iter().chain(&corefile.plugins).all(|w| !w.contains('\u{1b}')), "{corefile:?}");
        }
        let flood: String = (0..100_000).map(|n| format!(". {{\nforward . {n}\np{n}\n}}\n")).collect();
        let corefile = Corefile::parse(&flood);
        assert_eq!((corefile.forward.len(), corefile.plugins.len()), (MOST_KEPT, MOST_KEPT));
    }
}
