//! `resolver`: a host's own resolver configuration, whether each nameserver in it answers, and what pods get of it.

use super::net::ms;
use super::query::{Reply, Transport, ask};
use super::resolv::{MAGIC_DNS, ResolvConf};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use crate::vantage::{HostFiles, Source};
use async_trait::async_trait;
use futures::future::join_all;
use hickory_resolver::proto::rr::Name;
use serde::Deserialize;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

/// A host's own resolver configuration, whether each nameserver in it answers, and what pods get of it.
pub(super) static KIND: Kind = Kind {
    name: "resolver",
    root: "resolver",
    about: "A host's own resolver configuration, whether each nameserver in it answers, and what pods get of it",
    privilege: None,
    args: &[("name", "absolute name to ask for")],
    facts: &[
        fact("nameserver", "address", "nameserver that is asked first"),
        fact("nameservers", "list of address", "all nameservers, in the order in which they are asked"),
        fact("search", "list of text", "search domains, in order"),
        fact("ndots", "count", "dots from which a name is tried as it is first"),
        fact("magic_dns", "bool", "the nameserver is Tailscale's, 100.100.100.100"),
        fact("rcode", "text", "what the nameserver answered; or TIMEOUT, ECONNREFUSED, ..."),
        fact("time_ms", "ms", "until it was known"),
        fact("tcp_rcode", "text", "the same by TCP"),
        fact("answers", "list", "each nameserver: address, udp, tcp (rcode or errno word), ms"),
        fact("answering", "count", "nameservers that answered by UDP, however they did"),
        fact(
            "for_pods",
            "list of address",
            "nameservers that pods can use, where K3s looks for them: resolv.conf, then that of systemd-resolved; a loopback or link-local address means another host inside of a pod. Empty: K3s gives pods 8.8.8.8",
        ),
    ],
    decode: decode::<Resolver>,
};

/// Where systemd-resolved writes the nameservers behind its stub.
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolver {
    name: String,
}

#[async_trait]
impl Probe for Resolver {
    async fn observe(&self, cx: &Context) -> Observation {
        let conf = match ResolvConf::of(&cx.vantage) {
            Ok(conf) => conf,
            Err(reason) => return Observation::could_not_look(reason),
        };
        let Ok(name) = Name::from_ascii(&self.name) else {
            return Observation::could_not_look("the name to ask for is no valid name");
        };
        let servers: Vec<SocketAddrV4> = conf.servers().collect();
        let asked = join_all(servers.iter().map(|server| both(cx, *server, &name))).await;
        let mut seen = Observation::default();
        self.record(&mut seen, &servers, &asked);
        let search: Vec<String> = conf.search.iter().map(|domain| clean(domain, 253)).collect();
        seen.facts
            .set("nameserver", conf.server.ip().to_string())
            .set("nameservers", servers.iter().map(|s| s.ip().to_string()).collect::<Vec<_>>())
            .set("search", search)
            .set("ndots", conf.ndots)
            .set("magic_dns", *conf.server.ip() == MAGIC_DNS)
            .set("for_pods", for_pods(&conf, &cx.vantage.files));
        seen
    }

    fn target(&self) -> String {
        "resolv.conf".to_owned()
    }
}

async fn both(cx: &Context, server: SocketAddrV4, name: &Name) -> (Reply, Reply) {
    let by = |transport| ask(&cx.vantage.net, server, name, transport, cx.deadline);
    tokio::join!(by(Transport::Udp), by(Transport::Tcp))
}

impl Resolver {
    fn record(&self, seen: &mut Observation, servers: &[SocketAddrV4], asked: &[(Reply, Reply)]) {
        let mut answers = Vec::new();
        for (server, (udp, tcp)) in servers.iter().zip(asked) {
            seen.note("dns", format!("{} @{} -> {} ({} ms), TCP {}", self.name, server.ip(), udp.rcode, ms(udp.after), tcp.rcode));
            answers.push(json!({"address": server.ip().to_string(), "udp": udp.rcode, "tcp": tcp.rcode, "ms": ms(udp.after)}));
        }
        let first = asked.first();
        let answered = asked.iter().filter(|(udp, _)| !udp.rcode.starts_with('E') && udp.rcode != "TIMEOUT" && udp.rcode != "GARBAGE");
        seen.facts
            .set("answering", answered.count())
            .set("answers", answers)
            .set_or_unknown("rcode", first.map(|(udp, _)| udp.rcode.clone()), "no nameserver")
            .set_or_unknown("time_ms", first.map(|(udp, _)| ms(udp.after)), "no nameserver")
            .set_or_unknown("tcp_rcode", first.map(|(_, tcp)| tcp.rcode.clone()), "no nameserver");
    }
}

/// What K3s finds for pods; a file that cannot be read has none.
fn for_pods(conf: &ResolvConf, files: &HostFiles) -> Vec<String> {
    let usable = |conf: &ResolvConf| -> Vec<String> { conf.servers().map(|s| *s.ip()).filter(usable).map(|ip| ip.to_string()).collect() };
    let own = usable(conf);
    if !own.is_empty() {
        return own;
    }
    let systemd = files.systemd_resolv_conf.clone().unwrap_or_else(|| Source::File(PathBuf::from(SYSTEMD)));
    systemd.read().and_then(|text| ResolvConf::parse(&text)).map(|conf| usable(&conf)).unwrap_or_default()
}

/// Whether an address means the same server inside of a pod.
fn usable(address: &Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(resolv: &str, systemd: &str) -> Vec<String> {
        let files = HostFiles { systemd_resolv_conf: Some(Source::Text(systemd.to_owned())), ..HostFiles::default() };
        for_pods(&ResolvConf::parse(resolv).unwrap(), &files)
    }

    #[test]
    fn pods_get_the_first_file_with_a_usable_nameserver() {
        let real = "nameserver 9.9.9.9\nnameserver 8.8.4.4\n";
        assert_eq!(found(real, ""), ["9.9.9.9", "8.8.4.4"]);
        assert_eq!(found("nameserver 127.0.0.53\n", real), ["9.9.9.9", "8.8.4.4"]);
        for alone in ["", "nameserver 127.0.0.1\nnameserver 169.254.1.1\n", "nameserver 0.0.0.0\n"] {
            assert!(found(alone, "nameserver 127.0.0.53\n").is_empty(), "{alone}");
        }
        assert_eq!(found("nameserver 100.100.100.100\n", real), ["100.100.100.100"]);
    }

    #[tokio::test]
    async fn every_nameserver_is_asked_by_both_protocols() {
        let seen = |facts: &[(Reply, Reply)]| {
            let mut seen = Observation::default();
            let servers: Vec<SocketAddrV4> = ["192.0.2.1:53", "192.0.2.2:53"].iter().map(|s| s.parse().unwrap()).collect();
            Resolver { name: "a.".to_owned() }.record(&mut seen, &servers, facts);
            seen
        };
        let reply = |word: &str| Reply::failed(word);
        let seen = seen(&[(reply("TIMEOUT"), reply("ECONNREFUSED")), (reply("SERVFAIL"), reply("NOERROR"))]);
        let facts = seen.facts.known();
        assert_eq!((&facts["rcode"], &facts["tcp_rcode"], &facts["answering"]), (&json!("TIMEOUT"), &json!("ECONNREFUSED"), &json!(1)));
        assert_eq!(facts["answers"][1], json!({"address": "192.0.2.2", "udp": "SERVFAIL", "tcp": "NOERROR", "ms": 0.0}));
    }
}
