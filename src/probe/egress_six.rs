//! Whether a vantage gets out over IPv6, and by which address: a way around an allowlist of IPv4 addresses.

use super::http_get::{Exchange, Family, HttpUrl, get_over};
use super::net::{errno_word, source_address};
use crate::check::Observation;
use crate::vantage::{Net, Vantage};
use futures::future::join_all;
use std::net::Ipv6Addr;
use std::time::Duration;
use tokio::time::Instant;

/// More echo services than this are not asked.
const MOST_ECHOES: usize = 4;
/// How long they may take.
const TIME: Duration = Duration::from_secs(4);

/// Asks the echo services over IPv6 if the kernel has a route; without one nothing is sent.
pub(super) async fn look(vantage: &Vantage, echoes: &[HttpUrl], deadline: Instant, seen: &mut Observation) {
    if !route(&vantage.net, seen) {
        seen.facts.set("ipv6_address", "").set("ipv6_answered", 0);
        return;
    }
    let until = deadline.min(Instant::now() + TIME);
    // An IPv4 address in a URL cannot be asked over IPv6.
    let echoes: Vec<&HttpUrl> = echoes.iter().filter(|url| url.has_name()).take(MOST_ECHOES).collect();
    let asked = join_all(echoes.iter().map(|url| get_over(Family::Six, vantage, url, None, until))).await;
    let mut answers = Vec::new();
    for (url, outcome) in echoes.iter().zip(&asked) {
        if let Ok(exchange) = outcome {
            exchange.note(seen, url);
        }
        answers.push(outcome.as_ref().map_err(Clone::clone).and_then(echoed));
    }
    let seen_as = answers.iter().find_map(|answer| answer.as_ref().ok());
    // A service that was found and could not be reached shows that nothing gets out; one that was not found shows nothing.
    let shut = asked.iter().flatten().any(|exchange| exchange.connect.is_some());
    let why = answers.iter().find_map(|answer| answer.as_ref().err()).map_or("no echo service was given", String::as_str);
    let address = seen_as.map(ToString::to_string).or_else(|| shut.then(String::new));
    seen.facts.set("ipv6_answered", answers.iter().filter(|a| a.is_ok()).count()).set_or_unknown("ipv6_address", address, why);
}

/// Asks the kernel for the route to an address of the documentation range (RFC 3849), which only a default route covers.
fn route(net: &Net, seen: &mut Observation) -> bool {
    let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let source = source_address(net, (far, 9).into()).map(|at| at.to_string());
    let word = source.as_ref().map_or_else(errno_word, Clone::clone);
    seen.note("ipv6", format!("source address for {} -> {word}", far));
    let found = source.is_ok();
    seen.facts.set("ipv6_route", found).set("ipv6_source", source.unwrap_or_default());
    found
}

/// The address in the body of a 200, and nothing but that.
fn echoed(exchange: &Exchange) -> Result<Ipv6Addr, String> {
    match exchange.status {
        _ if !exchange.error.is_empty() => Err(exchange.error.clone()),
        200 => exchange.text(64).parse().map_err(|_| "no IPv6 address in the answer".to_owned()),
        status => Err(format!("HTTP {status}")),
    }
}
