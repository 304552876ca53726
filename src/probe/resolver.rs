//! `resolver`: a host's own resolver configuration, and whether the nameserver that it names first answers.

use super::net::ms;
use super::query::{Transport, ask};
use super::resolv::ResolvConf;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use hickory_resolver::proto::rr::Name;
use serde::Deserialize;
use std::net::Ipv4Addr;

/// Tailscale's resolver on every host of a tailnet.
const MAGIC_DNS: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);

/// A host's own resolver configuration, and whether the nameserver that it names first answers.
pub(super) static KIND: Kind = Kind {
    name: "resolver",
    root: "resolver",
    about: "A host's own resolver configuration, and whether the nameserver that it names first answers",
    privilege: None,
    args: &[("name", "absolute name to ask for")],
    facts: &[
        fact("nameserver", "address", "nameserver that is asked first"),
        fact("search", "list of text", "search domains, in order"),
        fact("ndots", "count", "dots from which a name is tried as it is first"),
        fact("magic_dns", "bool", "the nameserver is Tailscale's, 100.100.100.100"),
        fact("rcode", "text", "what the nameserver answered; or TIMEOUT, ECONNREFUSED, ..."),
        fact("time_ms", "ms", "until it was known"),
    ],
    decode: decode::<Resolver>,
};

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
        let reply = ask(&cx.vantage.net, conf.server, &name, Transport::Udp, cx.deadline).await;
        let mut seen = Observation::default();
        seen.note("dns", format!("{} @{} -> {} ({} ms)", self.name, conf.server.ip(), reply.rcode, ms(reply.after)));
        let search: Vec<String> = conf.search.iter().map(|domain| clean(domain, 253)).collect();
        seen.facts
            .set("nameserver", conf.server.ip().to_string())
            .set("search", search)
            .set("ndots", conf.ndots)
            .set("magic_dns", *conf.server.ip() == MAGIC_DNS)
            .set("rcode", reply.rcode)
            .set("time_ms", ms(reply.after));
        seen
    }

    fn target(&self) -> String {
        "resolv.conf".to_owned()
    }
}
