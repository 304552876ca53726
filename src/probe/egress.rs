//! `egress`: the source address that the outside sees, by echo services.

use super::egress_route::route_to;
use super::egress_six;
use super::http_get::{Exchange, HttpUrl, get};
use super::net::ms;
use super::stun;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
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
        ("stun", "STUN servers, `ADDRESS:PORT`: a second kind of proof, over UDP (optional)"),
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
    stun: Vec<SocketAddrV4>,
}

/// What one echo service answered, or why not.
struct Answer {
    url: String,
    address: Result<Ipv4Addr, String>,
    ms: f64,
}

impl Egress {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let asked = join_all(self.echoes.iter().take(MOST_ECHOES).map(|url| get(vantage, url, None, deadline))).await;
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
        self.ask_stun(vantage, deadline, &mut seen).await;
        egress_six::look(vantage, if self.echoes_ipv6.is_empty() { &self.echoes } else { &self.echoes_ipv6 }, deadline, &mut seen).await;
        self.explain_route(vantage, deadline, &mut seen).await;
        seen
    }

    /// The same question to STUN servers: over UDP, another protocol and another path through a NAT.
    async fn ask_stun(&self, vantage: &Vantage, deadline: Instant, seen: &mut Observation) {
        let until = deadline.min(Instant::now() + STUN_TIME);
        let servers = self.stun.iter().take(MOST_ECHOES);
        let answers = join_all(servers.map(|server| stun::mapped_address(&vantage.net, *server, until))).await;
        for (server, answer) in self.stun.iter().zip(&answers) {
            let word = answer.as_ref().map_or_else(Clone::clone, ToString::to_string);
            seen.note("stun", format!("binding request to {server} -> {word}"));
        }
        let first = answers.iter().find_map(|a| a.as_ref().ok());
        let why = if self.stun.is_empty() { "no STUN server was given" } else { "no STUN server answered" };
        seen.facts.set("stun_answered", answers.iter().filter(|a| a.is_ok()).count());
        seen.facts.set_or_unknown("stun_address", first.map(|a| a.ip().to_string()), why);
    }

    async fn explain_route(&self, vantage: &Vantage, deadline: Instant, seen: &mut Observation) {
        let Some(to) = self.route_to else {
            seen.facts.unknown("route_device", "no `route_to` was given").unknown("route_table", "no `route_to` was given");
            return;
        };
        match route_to(&vantage.net, to, deadline).await {
            Ok((device, table)) => {
                seen.note("netlink", format!("route get {to} -> dev {device} table {table}"));
                seen.facts.set("route_device", device).set("route_table", table);
            }
            Err(word) => {
                seen.note("netlink", format!("route get {to} -> {word}"));
                let reason = format!("no route to {to}: {word}");
                seen.facts.unknown("route_device", reason.as_str()).unknown("route_table", reason.as_str());
            }
        }
    }
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

    #[test]
    fn a_tie_goes_to_the_first() {
        let [a, b] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        assert_eq!((majority(&[a, b]), majority(&[b, a, a]), majority(&[])), (Some(a), Some(a), None));
    }
}
