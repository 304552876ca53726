//! `dns`: a name resolved as a client would, candidate by candidate, each with rcode and time.

use super::lookup::{How, Lookup, line, lookup};
use super::net::ms;
use super::query::{Transport, answered_from, ask_for};
use super::resolv::{MAGIC_DNS, Nameserver, ResolvConf};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use crate::vantage::Vantage;
use async_trait::async_trait;
use hickory_resolver::proto::rr::{Name, RecordType};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// A name resolved as a client would, candidate by candidate, each with rcode and time.
pub(super) static KIND: Kind = Kind {
    name: "dns",
    root: "dns",
    about: "A name resolved as a client would, candidate by candidate, each with rcode and time",
    privilege: None,
    args: &[
        ("name", "the name; a trailing dot means absolute"),
        ("server", "nameserver, `ADDRESS` or `ADDRESS:PORT` (absent: the first of the vantage's resolv.conf)"),
        ("search", "search domains (absent: those of resolv.conf)"),
        ("ndots", "ndots (absent: that of resolv.conf)"),
        ("transport", "`udp` (default) or `tcp`"),
        ("add_search", "append the search domains of the vantage's resolv.conf, as kubelet does for pods (false)"),
        ("aaaa", "ask for IPv6 addresses too, at the same time, as stub resolvers do (true)"),
        ("all", "try every candidate, also after one has answered (false)"),
    ],
    facts: &[
        fact("server", "address", "nameserver asked"),
        fact("resolved", "bool", "some candidate has an address"),
        fact("answer", "address", "first address; empty if none"),
        fact("resolved_as", "text", "candidate that answered, without the trailing dot; empty if none"),
        fact(
            "rcode",
            "text",
            "rcode of the deciding candidate: NOERROR, NXDOMAIN, NODATA, SERVFAIL, REFUSED; or TIMEOUT, ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, GARBAGE",
        ),
        fact("queries", "count", "queries for A sent"),
        fact("wasted", "count", "candidates asked for in vain before the one that answered, or all of them"),
        fact("timeouts", "count", "candidates without an answer in 5 s: a stub resolver waits that long for each"),
        fact("ttl_s", "seconds", "how long the deciding answer may be kept"),
        fact("transport", "text", "by which protocol the deciding answer came: udp or tcp"),
        fact("truncated", "bool", "the deciding answer did not fit into a datagram"),
        fact("aaaa_rcode", "text", "as `rcode`, of the same candidate's AAAA query"),
        fact("aaaa_answers", "list of address", "its IPv6 addresses"),
        fact("magic_dns", "bool", "the nameserver is Tailscale's, 100.100.100.100"),
        fact("control_rcode", "text", "rcode of the name as it is with a trailing dot, asked after a search domain has answered"),
        fact("control_answer", "address", "its first address; empty if none"),
        fact("time_ms", "ms", "until the answer, or the failure of the last candidate"),
        fact("first_rcode", "text", "rcode of the first candidate"),
        fact(
            "answered_from",
            "address",
            "who answers the question when it is asked again, after a timeout, from a socket that hears everybody; empty if nobody does",
        ),
        fact(
            "stale_denials",
            "list of text",
            "candidates whose address is denied (NXDOMAIN) while a TXT query says that the name exists: the denial is a cache's",
        ),
        fact("candidates", "list", "each candidate: name, rcode, answers, ttl_s, ms, transport, truncated, and the same under `aaaa`"),
    ],
    decode: decode::<Dns>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dns {
    name: String,
    #[serde(default)]
    server: Option<Nameserver>,
    #[serde(default)]
    search: Option<Vec<String>>,
    #[serde(default)]
    ndots: Option<usize>,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    add_search: bool,
    #[serde(default = "yes")]
    aaaa: bool,
    #[serde(default)]
    all: bool,
}

fn yes() -> bool {
    true
}

/// Denied candidates that are asked for once more, by another type.
const MOST_SECOND_LOOKS: usize = 4;

impl Dns {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let how = How { transport: self.transport, all: self.all, aaaa: self.aaaa };
        let found = match self.conf(vantage) {
            Ok(conf) => lookup(&vantage.net, &conf, &self.name, how, deadline).await,
            Err(reason) => Err(reason),
        };
        match found {
            Ok(found) => {
                let mut seen = observed(&found);
                let stale = self.stale_denials(vantage, &found, deadline).await;
                for name in &stale {
                    seen.note("dns", format!("{name} TXT -> the name exists, although its address is denied"));
                }
                seen.facts.set("stale_denials", stale);
                self.control(vantage, &found, deadline, &mut seen).await;
                self.elsewhere(vantage, &found, deadline, &mut seen).await;
                seen
            }
            Err(reason) => Observation::could_not_look(reason),
        }
    }

    /// A cache keys its entries by name and type: what it denies for A, the zone itself answers for TXT.
    async fn stale_denials(&self, vantage: &Vantage, found: &Lookup, deadline: Instant) -> Vec<String> {
        let denied = found.candidates.iter().filter(|c| found.answer().is_none() && c.reply.rcode == "NXDOMAIN");
        let looks = denied.take(MOST_SECOND_LOOKS).map(|c| async move {
            let name = Name::from_ascii(&c.name).ok()?;
            let reply = ask_for(&vantage.net, found.server, &name, RecordType::TXT, self.transport, deadline).await;
            (reply.rcode == "NODATA").then(|| c.plain().to_owned())
        });
        futures::future::join_all(looks).await.into_iter().flatten().collect()
    }

    /// Silence of the server may be an answer under another address, which the socket that asked was not told of.
    async fn elsewhere(&self, vantage: &Vantage, found: &Lookup, deadline: Instant, seen: &mut Observation) {
        let silent = found.deciding().filter(|c| c.reply.rcode == "TIMEOUT" && self.transport == Transport::Udp);
        let Some(name) = silent.and_then(|c| Name::from_ascii(&c.name).ok()) else {
            seen.facts.unknown("answered_from", "asked again only after a timeout by datagram");
            return;
        };
        let from = answered_from(&vantage.net, found.server, &name, deadline).await.map(|from| from.to_string()).unwrap_or_default();
        let told = if from.is_empty() { "nobody answers" } else { &from };
        seen.note("dns", format!("{name} asked again from a socket that hears everybody: {told}"));
        seen.facts.set("answered_from", from);
    }

    /// A search domain that answers for a name with dots may have hijacked it: the same name with a trailing dot tells.
    async fn control(&self, vantage: &Vantage, found: &Lookup, deadline: Instant, seen: &mut Observation) {
        let absolute = Name::from_ascii(format!("{}.", self.name.trim_end_matches('.'))).ok();
        let by_search_domain = found.answer().is_some_and(|c| c.plain() != self.name.trim_end_matches('.'));
        let Some(name) = absolute.filter(|_| by_search_domain && self.name.contains('.')) else {
            let reason = "no search domain answered for a name with dots";
            seen.facts.unknown("control_rcode", reason).unknown("control_answer", reason);
            return;
        };
        let reply = ask_for(&vantage.net, found.server, &name, RecordType::A, self.transport, deadline).await;
        seen.note("dns", line(&name.to_string(), "A", &reply));
        let answer = reply.ipv4().map(|a| a.to_string()).unwrap_or_default();
        seen.facts.set("control_rcode", reply.rcode).set("control_answer", answer);
    }

    /// resolv.conf with what the arguments say instead. It need not be readable if they say everything.
    fn conf(&self, vantage: &Vantage) -> Result<ResolvConf, String> {
        let mut conf = match (ResolvConf::of(vantage), &self.server) {
            (Ok(conf), None) => conf,
            (Ok(conf), Some(server)) => ResolvConf { server: server.0, ..conf },
            (Err(_), Some(server)) if self.stands_alone() => ResolvConf::only(server.0),
            (Err(reason), _) => return Err(reason),
        };
        if let Some(search) = &self.search {
            let own = if self.add_search { std::mem::take(&mut conf.search) } else { Vec::new() };
            conf.search = search.iter().chain(&own).cloned().collect();
        }
        conf.ndots = self.ndots.unwrap_or(conf.ndots);
        Ok(conf)
    }

    fn stands_alone(&self) -> bool {
        self.name.ends_with('.') || (self.search.is_some() && self.ndots.is_some())
    }
}

fn observed(found: &Lookup) -> Observation {
    let mut seen = Observation::default();
    found.note(&mut seen);
    let first = found.candidates.first().map(|c| c.reply.rcode.clone());
    seen.facts
        .set("server", found.server.ip().to_string())
        .set("magic_dns", *found.server.ip() == MAGIC_DNS)
        .set("resolved", found.answer().is_some())
        .set("answer", found.address().map(|a| a.to_string()).unwrap_or_default())
        .set("resolved_as", found.answer().map(|c| c.plain().to_owned()).unwrap_or_default())
        .set("rcode", found.rcode())
        .set("queries", found.queries())
        .set("wasted", found.wasted())
        .set("timeouts", found.timeouts())
        .set("time_ms", ms(found.after))
        .set_or_unknown("first_rcode", first, "no candidate")
        .set("candidates", found.candidates.iter().map(|c| c.to_json()).collect::<Vec<Value>>());
    deciding(found, &mut seen);
    seen
}

/// Facts of the candidate that decides: the one that answered, else the one that failed hardest.
fn deciding(found: &Lookup, seen: &mut Observation) {
    let Some(candidate) = found.deciding() else { return };
    let (reply, six) = (&candidate.reply, candidate.six.as_ref());
    let addresses = six.map(|r| r.addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    seen.facts
        .set_or_unknown("ttl_s", reply.ttl, "an answer without a TTL")
        .set("transport", reply.transport.word())
        .set("truncated", reply.truncated)
        .set_or_unknown("aaaa_rcode", six.map(|r| r.rcode.clone()), "not asked for AAAA")
        .set_or_unknown("aaaa_answers", addresses, "not asked for AAAA");
}

#[async_trait]
impl Probe for Dns {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        let name = clean(&self.name, 253);
        match &self.server {
            Some(server) => format!("{name} @{}", server.0.ip()),
            None => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::testing::{reply, serve};
    use super::*;
    use crate::probe::testing::vantage;
    use hickory_resolver::proto::op::ResponseCode;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    fn probe(with: toml::Table) -> Dns {
        toml::Value::Table(with).try_into().unwrap()
    }

    #[tokio::test]
    async fn facts_of_a_walk() {
        let server = serve(Arc::new(|q, _| {
            let found = q.queries[0].name().to_string() == "argilla.apps.svc.cluster.local.";
            let (code, addresses) =
                if found { (ResponseCode::NoError, vec!["10.43.71.170".parse().unwrap()]) } else { (ResponseCode::NXDomain, vec![]) };
            vec![reply(q, code, &addresses).to_vec().unwrap()]
        }))
        .await;
        let mut dns = probe(toml::toml! { name = "argilla.apps" });
        dns.server = Some(Nameserver(server));
        let seen = dns
            .look(&vantage("search apps.svc.cluster.local svc.cluster.local\noptions ndots:5"), Instant::now() + Duration::from_secs(5))
            .await;
        let facts = seen.facts.known();
        assert_eq!(facts["answer"], "10.43.71.170");
        assert_eq!(facts["resolved_as"], "argilla.apps.svc.cluster.local");
        assert_eq!((&facts["rcode"], &facts["first_rcode"], &facts["queries"]), (&json!("NOERROR"), &json!("NXDOMAIN"), &json!(2)));
        assert_eq!(
            (&facts["wasted"], &facts["timeouts"], &facts["ttl_s"], &facts["transport"]),
            (&json!(1), &json!(0), &json!(5), &json!("udp"))
        );
        assert_eq!((&facts["truncated"], &facts["magic_dns"], &facts["aaaa_rcode"]), (&json!(false), &json!(false), &json!("NODATA")));
        assert_eq!(facts["candidates"][1]["answers"], json!(["10.43.71.170"]));
        assert!(seen.evidence[2].text.starts_with("argilla.apps.svc.cluster.local. A -> NOERROR 10.43.71.170 ("), "{:?}", seen.evidence);
    }

    #[tokio::test]
    async fn no_resolver_configuration_is_could_not_look() {
        let mut nowhere = vantage("");
        nowhere.files.resolv_conf = crate::vantage::Source::File("/nonexistent/resolv.conf".into());
        let dns = probe(toml::toml! { name = "a" });
        let seen = dns.look(&nowhere, Instant::now() + Duration::from_secs(1)).await;
        assert!(seen.could_not_look.unwrap().contains("/nonexistent/resolv.conf"));
        let dns = probe(toml::toml! { name = "a." server = "10.43.0.10" });
        assert_eq!(dns.conf(&nowhere).unwrap().server, "10.43.0.10:53".parse().unwrap());
        assert_eq!(dns.target(), "a. @10.43.0.10");
    }
}
