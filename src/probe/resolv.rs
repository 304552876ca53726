//! Resolver configuration: which server a host asks, and under which names (resolv.conf(5)).

use crate::vantage::Vantage;
use hickory_resolver::proto::rr::Name;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};

/// glibc silently lowers a larger `ndots` to this (resolv.conf(5)).
const MOST_NDOTS: usize = 15;
/// More search domains than this are not tried; Kubernetes itself allows 32.
const MOST_SEARCH: usize = 32;
/// Nameservers that a resolver uses (`MAXNS` in resolv.h).
const MOST_SERVERS: usize = 3;
/// A resolv.conf is read no further than this many lines.
const MOST_LINES: usize = 1000;

/// Tailscale's resolver on every host of a tailnet.
pub(super) const MAGIC_DNS: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);

/// What a stub resolver goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// The nameserver that is asked first.
    pub(super) server: SocketAddrV4,
    /// The nameservers that are asked when it does not answer, in order.
    pub(super) others: Vec<Ipv4Addr>,
    /// Search domains, in order.
    pub(super) search: Vec<String>,
    /// A name with at least this many dots is tried as it is first.
    pub(super) ndots: usize,
}

impl ResolvConf {
    /// That of a vantage; the error says why it could not be had.
    pub(crate) fn of(vantage: &Vantage) -> Result<Self, String> {
        Self::parse(&vantage.files.resolv_conf.read()?)
    }

    /// One that asks a given server and knows no search domains.
    pub(super) fn only(server: SocketAddrV4) -> Self {
        Self { server, others: Vec::new(), search: Vec::new(), ndots: 1 }
    }

    /// Reads the format of resolv.conf(5). Without a `nameserver` line the local machine is asked; the default search
    /// domain, which glibc takes from the host name, is left out: cluster nodes and pods always state theirs.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut conf = Self::only(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53));
        let (mut servers, mut unusable) = (Vec::new(), 0);
        for line in text.lines().take(MOST_LINES) {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => match words.next().map(str::parse::<Ipv4Addr>) {
                    Some(Ok(address)) if servers.len() < MOST_SERVERS => servers.push(address),
                    Some(Ok(_)) => {}
                    _ => unusable += 1,
                },
                // The last `search` or `domain` line wins.
                Some("search" | "domain") => conf.search = words.take(MOST_SEARCH).map(str::to_owned).collect(),
                Some("options") => conf.options(words),
                _ => {}
            }
        }
        match servers.split_first() {
            Some((first, others)) => {
                conf.server.set_ip(*first);
                conf.others = others.to_vec();
            }
            None if unusable > 0 => return Err("resolv.conf names no IPv4 nameserver".to_owned()),
            None => {}
        }
        Ok(conf)
    }

    /// Every nameserver, in the order in which they are asked.
    pub(super) fn servers(&self) -> impl Iterator<Item = SocketAddrV4> {
        std::iter::once(self.server).chain(self.others.iter().map(|ip| SocketAddrV4::new(*ip, self.server.port())))
    }

    fn options<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for n in words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok()) {
            self.ndots = n.min(MOST_NDOTS);
        }
    }

    /// The absolute names that stand for `name`, in the order in which a stub resolver asks for them: with a trailing dot
    /// only itself; else the name as it is (first if it has `ndots` dots, last if not) and under each search domain.
    /// A search domain that makes no valid name is passed over, as resolvers do.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        let itself = absolute(name)?;
        if name.ends_with('.') {
            return Ok(vec![itself]);
        }
        let mut names: Vec<Name> = self.search.iter().filter_map(|domain| absolute(&format!("{name}.{domain}")).ok()).collect();
        let dots = name.matches('.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, itself);
        let mut seen = std::collections::HashSet::new();
        names.retain(|n| seen.insert(n.clone()));
        Ok(names)
    }
}

/// For fuzzers: servers, search domains and candidates that a text gives.
pub(super) fn kept(text: &str) -> usize {
    let Ok(conf) = ResolvConf::parse(text) else { return 0 };
    let candidates = conf.candidates("a.b").map_or(0, |names| names.len());
    conf.servers().count().max(conf.search.len()) + candidates.min(conf.search.len())
}

fn absolute(name: &str) -> Result<Name, String> {
    let invalid = || format!("`{name}` is no valid name");
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.split('.').any(str::is_empty) {
        return Err(invalid());
    }
    let mut absolute = Name::from_ascii(labels).map_err(|_| invalid())?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

/// A nameserver as arguments give it: `ADDRESS`, or `ADDRESS:PORT` where it is not 53.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Nameserver(pub(super) SocketAddrV4);

impl TryFrom<String> for Nameserver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<Ipv4Addr>().map(|ip| SocketAddrV4::new(ip, 53));
        address.or_else(|_| text.parse()).map(Self).map_err(|_| format!("`{text}` is no IPv4 address of a nameserver"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> ResolvConf {
        ResolvConf::parse("search apps.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n")
            .unwrap()
    }

    fn names(conf: &ResolvConf, name: &str) -> Vec<String> {
        conf.candidates(name).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn search_list_first_below_ndots() {
        let expected =
            ["argilla.apps.apps.svc.cluster.local.", "argilla.apps.svc.cluster.local.", "argilla.apps.cluster.local.", "argilla.apps."];
        assert_eq!(names(&pod(), "argilla.apps"), expected);
    }

    #[test]
    fn the_name_itself_first_from_ndots_on() {
        let conf = ResolvConf { ndots: 1, ..pod() };
        assert_eq!(names(&conf, "github.com")[0], "github.com.");
        assert_eq!(names(&conf, "argilla").last().unwrap(), "argilla.");
        assert_eq!(names(&ResolvConf { ndots: 2, ..pod() }, "github.com").last().unwrap(), "github.com.");
    }

    #[test]
    fn a_trailing_dot_means_only_itself() {
        assert_eq!(names(&pod(), "argilla.apps.svc.cluster.local."), ["argilla.apps.svc.cluster.local."]);
    }

    #[test]
    fn odd_files_are_read_as_glibc_reads_them() {
        let conf = ResolvConf::parse(
            "# a\nnameserver ::1\nnameserver 10.0.0.1 ; b\nnameserver 10.0.0.2\ndomain x\nsearch .\noptions ndots:99 rotate",
        );
        let expected = ResolvConf {
            server: "10.0.0.1:53".parse().unwrap(),
            others: vec!["10.0.0.2".parse().unwrap()],
            search: vec![".".into()],
            ndots: 15,
        };
        assert_eq!(conf.unwrap(), expected);
        assert_eq!(ResolvConf::parse("").unwrap().server, "127.0.0.1:53".parse().unwrap());
        assert!(ResolvConf::parse("nameserver fe80::1%eth0").is_err());
        assert_eq!(names(&ResolvConf { search: vec![".".into(), "a..b".into()], ..pod() }, "x"), ["x."]);
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", ".", "a..b", &"a".repeat(64), &"ab.".repeat(100)] {
            assert!(pod().candidates(name).is_err(), "{name:?}");
        }
    }
}
