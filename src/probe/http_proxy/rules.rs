//! The proxy variables, and which URLs they are for (golang.org/x/net/http/httpproxy).

use crate::probe::http_get::HttpUrl;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// The variables, in the order in which they count: of two spellings the upper one.
pub(super) const NAMES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];
/// Entries of NO_PROXY that are read.
const MOST_ENTRIES: usize = 256;
/// Lines of an environment that are read.
const MOST_LINES: usize = 4096;

/// What an environment says about proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Names of the variables that are set and not empty.
    pub(super) set: Vec<&'static str>,
    http: String,
    https: String,
    /// Entries of NO_PROXY, in small letters.
    pub(super) no_proxy: Vec<String>,
}

impl Rules {
    /// Reads `NAME=VALUE` lines; others are passed over.
    pub(super) fn parse(text: &str) -> Self {
        let lines = || text.lines().take(MOST_LINES).filter_map(|line| line.split_once('='));
        let value = |name: &str| lines().filter(|(n, _)| *n == name).map(|(_, v)| v.trim()).last().filter(|v| !v.is_empty());
        let one = |upper: &str, lower: &str| value(upper).or_else(|| value(lower)).unwrap_or_default().to_owned();
        let no_proxy = one(NAMES[4], NAMES[5]).to_ascii_lowercase();
        let entries = no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(MOST_ENTRIES);
        Self {
            set: NAMES.into_iter().filter(|name| value(name).is_some()).collect(),
            http: with_scheme(one(NAMES[0], NAMES[1])),
            https: with_scheme(one(NAMES[2], NAMES[3])),
            no_proxy: entries.map(str::to_owned).collect(),
        }
    }

    /// The proxies that are named.
    pub(super) fn proxies(&self) -> Vec<String> {
        let mut all = vec![self.http.clone(), self.https.clone()];
        all.retain(|proxy| !proxy.is_empty());
        all.dedup();
        all
    }

    /// The proxy that a request for a URL goes to; `None` if it goes straight.
    pub(super) fn proxy(&self, url: &HttpUrl) -> Option<String> {
        let proxy = if url.https() { &self.https } else { &self.http };
        let host = url.host().trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let spared = local || self.no_proxy.iter().any(|entry| covers(entry, &host, address, url.port()));
        (!proxy.is_empty() && !spared).then(|| proxy.clone())
    }
}

/// A proxy without a scheme is asked over http.
fn with_scheme(proxy: String) -> String {
    if proxy.is_empty() || proxy.contains("://") { proxy } else { format!("http://{proxy}") }
}

/// `*`, an address, a network, a name with those below it, or `.name` for those below it only; each but a network with a port if need be.
fn covers(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let (name, wanted) = match entry.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) {
        Some((name, Ok(port))) if !name.contains(':') => (name, Some(port)),
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Ok(own) = name.parse::<Ipv4Addr>() {
        return address == Some(IpAddr::V4(own));
    }
    let (name, below_only) = match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let below = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    !name.is_empty() && (below || (!below_only && host == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn an_entry_spares_what_it_names_and_no_more() {
        let spares = |no_proxy: &str, to: &str| {
            let rules = Rules::parse(&format!("HTTP_PROXY=http://p:3128\nHTTPS_PROXY=http://p:3128\nNO_PROXY={no_proxy}\n"));
            rules.proxy(&url(to)).is_none()
        };
        let argilla = "http://argilla.apps.svc.cluster.local:80/";
        for entry in ["*", "cluster.local", ".cluster.local", "*.cluster.local", ".SVC.cluster.local", "argilla.apps.svc.cluster.local:80"]
        {
            assert!(spares(entry, argilla), "{entry}");
        }
        for entry in
            ["", "svc", "cluster", ".argilla.apps.svc.cluster.local", "uster.local", "argilla.apps.svc.cluster.local:81", "10.43.0.0/16"]
        {
            assert!(!spares(entry, argilla), "{entry}");
        }
        // The last one is no network, but the end of the text: so Go takes it.
        for (entry, spared) in
            [("10.43.0.1", true), ("10.0.0.0/8", true), ("10.43.0.1:6443", false), ("10.43.0.10", false), ("43.0.1", true)]
        {
            assert_eq!(spares(entry, "https://10.43.0.1/version"), spared, "{entry}");
        }
        assert!(
            spares("x, 10.43.0.0/16 ,", "https://10.43.0.1/") && spares("", "http://127.0.0.1:8080/") && spares("", "http://localhost/")
        );
    }

    #[test]
    fn each_scheme_has_a_proxy_of_its_own_and_the_upper_spelling_counts() {
        let rules = Rules::parse("PATH=/bin\nhttps_proxy=low:1\nHTTPS_PROXY=up.example:3128\nhttp_proxy=\nno equals sign\n");
        assert_eq!(rules.set, ["HTTPS_PROXY", "https_proxy"]);
        assert_eq!(rules.proxy(&url("https://10.43.0.1/")).as_deref(), Some("http://up.example:3128"));
        assert_eq!(rules.proxy(&url("http://10.43.0.1/")), None);
        assert_eq!(Rules::parse(""), Rules::default());
    }
}
