//! `egress`: the source address that the outside sees, by echo services.

use super::egress_six;
use super::http_get::{Exchange, HttpUrl, get};
use super::lookup::{How, lookup};
use super::net::ms;
use super::resolv::ResolvConf;
use super::stun;
use super::way::way_to;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::def::Endpoint;
use crate::vantage::Vantage;
use async_trait::async_trait;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// The source address that the outside sees, by echo services.
pub(super) static KIND: Kind = Kind {
    name: "egress",
    root: "egress",
    about: "The source address that the outside sees, by echo services",
    privilege: None,
    args: &[
        ("echoes", "URLs that answer with the caller's address"),
        ("route_to", "address whose route explains the path (optional)"),
        ("echoes_ipv6", "such URLs whose hosts have IPv6 addresses (the same ones)"),
        ("stun", "STUN servers, `HOST:PORT`: a second kind of proof, over UDP (optional)"),
    ],
    facts: &[
        fact("address", "address", "what the echo services answered; the majority where they differ"),
        fact("answered", "count", "echo services that answered"),
        fact("agree", "bool", "all answers are the same"),
        fact("answers", "list", "each echo service: url, address or error, ms"),
        fact("stun_address", "address", "what the first STUN server that answered saw"),
        fact("stun_answered", "count", "STUN servers that answered"),
        fact("ipv6_route", "bool", "the kernel has a route to the IPv6 internet: what has an AAAA record may leave by another address"),
        fact("ipv6_source", "address", "source address that it would use; empty if there is no route"),
        fact(
            "ipv6_address",
            "address",
            "what the first echo service that answered over IPv6 saw; empty if there is no route, or nothing gets out",
        ),
        fact("ipv6_answered", "count", "echo services that answered over IPv6"),
        fact("route_device", "text", "device by which the kernel sends to `route_to`"),
        fact("route_table", "number", "table that decided it"),
        fact("route_rule", "text", "ip rule that led to this table, as `ip rule` lists it; unknown where it may be several"),
    ],
    decode: decode::<Egress>,
};

/// More echo services than this are not asked.
const MOST_ECHOES: usize = 16;
/// How long STUN servers may take.
const STUN_TIME: Duration = Duration::from_secs(3);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    echoes: Vec<HttpUrl>,
    #[serde(default)]
    route_to: Option<Ipv4Addr>,
    #[serde(default)]
    echoes_ipv6: Vec<HttpUrl>,
    #[serde(default)]
    stun: Vec<Endpoint>,
}

/// What one echo service answered, or why not.
struct Answer {
    url: String,
    address: Result<Ipv4Addr, String>,
    ms: f64,
}

impl Egress {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let asked = join_all(self.echoes.iter().take(MOST_ECHOES).map(|url| get(vantage, url, None, deadline)));
        let (asked, mapped) = tokio::join!(asked, self.ask_stun(vantage, deadline));
        // Without a resolver or roots a URL cannot even be tried; if that holds for all of them, nothing was looked at.
        if let Some(Err(reason)) = asked.iter().find(|_| asked.iter().all(Result::is_err)) {
            return Observation::could_not_look(reason);
        }
        let mut seen = Observation::default();
        let mut answers = Vec::new();
        for (url, outcome) in self.echoes.iter().zip(&asked) {
            let (address, took) = match outcome {
                Ok(exchange) => {
                    exchange.note(&mut seen, url);
                    (echoed(exchange), ms(exchange.total))
                }
                Err(reason) => (Err(reason.clone()), 0.0),
            };
            answers.push(Answer { url: url.to_string(), address, ms: took });
        }
        record(&answers, &mut seen);
        self.record_stun(&mapped, &mut seen);
        egress_six::look(vantage, if self.echoes_ipv6.is_empty() { &self.echoes } else { &self.echoes_ipv6 }, deadline, &mut seen).await;
        self.explain_route(vantage, deadline, &mut seen).await;
        seen
    }

    /// The same question to STUN servers: over UDP, another protocol and another path through a NAT.
    async fn ask_stun(&self, vantage: &Vantage, deadline: Instant) -> Vec<Result<SocketAddrV4, String>> {
        let until = deadline.min(Instant::now() + STUN_TIME);
        join_all(self.stun.iter().take(MOST_ECHOES).map(|server| mapped_address(vantage, server, until))).await
    }

    fn record_stun(&self, answers: &[Result<SocketAddrV4, String>], seen: &mut Observation) {
        for (server, answer) in self.stun.iter().zip(answers) {
            let word = answer.as_ref().map_or_else(Clone::clone, ToString::to_string);
            seen.note("stun", format!("binding request to {server} -> {word}"));
        }
        let first = answers.iter().find_map(|a| a.as_ref().ok());
        let why = if self.stun.is_empty() { "no STUN server was given" } else { "no STUN server answered" };
        seen.facts.set("stun_answered", answers.iter().filter(|a| a.is_ok()).count());
        seen.facts.set_or_unknown("stun_address", first.map(|a| a.ip().to_string()), why);
    }

    async fn explain_route(&self, vantage: &Vantage, deadline: Instant, seen: &mut Observation) {
        let way = match self.route_to {
            None => Err("no `route_to` was given".to_owned()),
            Some(to) => {
                let way = way_to(&vantage.net, to, deadline).await;
                let word = way.as_ref().map_or_else(Clone::clone, |way| format!("dev {} table {}", way.device, way.table));
                seen.note("netlink", format!("route get {to} -> {word}"));
                way.map_err(|word| format!("no route to {to}: {word}"))
            }
        };
        let reason = way.as_ref().err().cloned().unwrap_or_default();
        seen.facts.set_or_unknown("route_device", way.as_ref().ok().map(|way| way.device.clone()), &reason);
        seen.facts.set_or_unknown("route_table", way.as_ref().ok().map(|way| way.table), &reason);
        match way.and_then(|way| way.rule) {
            Ok(rule) => seen.facts.set("route_rule", rule),
            Err(reason) => seen.facts.unknown("route_rule", reason),
        };
    }
}

/// What a STUN server saw; its name is looked up as this vantage looks names up.
async fn mapped_address(vantage: &Vantage, server: &Endpoint, until: Instant) -> Result<SocketAddrV4, String> {
    let address = match server.host.parse() {
        Ok(address) => address,
        Err(_) => {
            let found = lookup(&vantage.net, &ResolvConf::of(vantage)?, &server.host, How::default(), until).await?;
            found.address().ok_or_else(|| format!("dns: {}", found.rcode()))?
        }
    };
    stun::mapped_address(&vantage.net, SocketAddrV4::new(address, server.port), until).await
}

/// The address in the body of a 200, and nothing but that.
fn echoed(exchange: &Exchange) -> Result<Ipv4Addr, String> {
    match exchange.status {
        _ if !exchange.error.is_empty() => Err(exchange.error.clone()),
        200 => exchange.text(64).parse().map_err(|_| "no IPv4 address in the answer".to_owned()),
        status => Err(format!("HTTP {status}")),
    }
}

fn record(answers: &[Answer], seen: &mut Observation) {
    let addresses: Vec<Ipv4Addr> = answers.iter().filter_map(|a| a.address.clone().ok()).collect();
    let agree = addresses.first().map(|first| addresses.iter().all(|a| a == first));
    let list: Vec<Value> = answers.iter().map(Answer::to_json).collect();
    seen.facts
        .set("answered", addresses.len())
        .set("answers", list)
        .set_or_unknown("agree", agree, "no echo service answered")
        .set_or_unknown("address", majority(&addresses).map(|a| a.to_string()), "no echo service answered");
}

/// The address that most services named; of several, the one named first.
fn majority(addresses: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let votes = |a: &Ipv4Addr| addresses.iter().filter(|b| *b == a).count();
    addresses.iter().rev().max_by_key(|a| votes(a)).copied()
}

impl Answer {
    fn to_json(&self) -> Value {
        let address = self.address.as_ref().map(ToString::to_string).unwrap_or_default();
        let error = self.address.as_ref().err().cloned().unwrap_or_default();
        json!({"url": self.url, "address": address, "error": error, "ms": self.ms})
    }
}

#[async_trait]
impl Probe for Egress {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        self.echoes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, http, vantage};
    use super::*;

    async fn look(bodies: &[(&'static str, &'static str)]) -> Observation {
        let mut echoes = Vec::new();
        for (status, body) in bodies.iter().copied() {
            let server = http(move |_| answer(status, body)).await;
            echoes.push(HttpUrl::try_from(format!("http://{server}/")).unwrap());
        }
        Egress { echoes, route_to: None, echoes_ipv6: Vec::new(), stun: Vec::new() }
            .look(&vantage(""), Instant::now() + Duration::from_secs(5))
            .await
    }

    #[tokio::test]
    async fn the_majority_of_those_who_answered() {
        let seen = look(&[
            ("200 OK", "192.0.2.1"),
            ("200 OK", " 192.0.2.2\n"),
            ("200 OK", "192.0.2.2"),
            ("403 Forbidden", "192.0.2.1"),
            ("200 OK", "<html>"),
        ]);
        let seen = seen.await;
        let known = seen.facts.known();
        assert_eq!((&known["address"], &known["answered"], &known["agree"]), (&json!("192.0.2.2"), &json!(3), &json!(false)));
        assert_eq!(known["answers"][3]["error"], "HTTP 403");
        assert_eq!(known["answers"][4]["error"], "no IPv4 address in the answer");
        assert_eq!(seen.evidence.iter().filter(|e| e.kind == "http").count(), 5);
    }

    #[tokio::test]
    async fn no_answer_leaves_the_address_unknown() {
        let seen = look(&[("500 Oh", "")]).await;
        assert_eq!(seen.facts.unknowns()["address"], "no echo service answered");
        assert_eq!(seen.facts.known()["answered"], 0);
    }

    /// As the built-in check asks, from a node and from a pod on it: all three kinds of proof, and why.
    #[tokio::test(flavor = "multi_thread")]
    async fn ns_echoes_and_stun_see_the_exit_node_and_the_rule_says_why() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        rustls::crypto::ring::default_provider().install_default().ok();
        let catalog = crate::def::Catalog::load(&crate::def::Sources::default()).unwrap_or_else(|f| panic!("{f:?}"));
        let inv = &catalog.inventory;
        let twin = crate::twin::Twin::start(inv.clone(), &[]).await.unwrap();
        let with = format!("echoes = {:?}\nstun = [\"{}\"]\nroute_to = '18.116.211.217'", inv.egress.echoes, inv.egress.stun[0]);
        for (id, device, rule) in
            [("calypso", "tailscale0", "5270: from all lookup 52"), ("pod:apps/md-query-proxy", "eth0", "32766: from all lookup main")]
        {
            let vantage = twin.vantages().into_iter().find(|v| v.id == id).unwrap();
            let facts = crate::probe::testnet::observe_at("egress", &with, vantage.into()).await.facts.to_json();
            let own = json!(inv.egress.address);
            assert_eq!((&facts["address"], &facts["answered"], &facts["stun_address"]), (&own, &json!(2), &own), "{id}: {facts}");
            assert_eq!((&facts["route_device"], &facts["route_rule"]), (&json!(device), &json!(rule)), "{id}");
        }
    }

    #[test]
    fn a_tie_goes_to_the_first() {
        let [a, b] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        assert_eq!((majority(&[a, b]), majority(&[b, a, a]), majority(&[])), (Some(a), Some(a), None));
    }
}
