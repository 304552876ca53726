//! `conntrack`: how full the connection tracking table is, and whether one new flow still finds a place in it.

use super::counters::Snapshot;
use super::net::errno_word;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation};
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

/// How full the connection tracking table is, and whether one new flow still finds a place in it.
pub(super) static KIND: Kind = Kind {
    name: "conntrack",
    root: "conntrack",
    about: "How full the connection tracking table is, and whether one new flow still finds a place in it",
    privilege: None,
    args: &[],
    facts: &[
        fact("tracked", "bool", "the kernel tracks connections (nf_conntrack is loaded)"),
        fact("count", "count", "entries of this network namespace (nf_conntrack_count)"),
        fact("max", "count", "most entries (nf_conntrack_max, the same for all namespaces)"),
        fact("used_percent", "percent", "count in max"),
        fact("new_flow", "text", "`ok`, or the errno of one datagram to a closed loopback port; EPERM where no entry can be made for it"),
        fact("dropped", "count", "packets that found no place while the probe looked"),
        fact("early_dropped", "count", "entries thrown out to make room while the probe looked"),
        fact("insert_failed", "count", "entries that lost a race while the probe looked"),
        fact("dropped_total", "count", "packets that found no place, since the namespace exists"),
    ],
    decode: decode::<Conntrack>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conntrack {}

#[async_trait]
impl Probe for Conntrack {
    async fn observe(&self, cx: &Context) -> Observation {
        let net = &cx.vantage.net;
        let mut seen = Observation::default();
        let (count, max) = match (setting(net, "count"), setting(net, "max")) {
            (Ok(count), Ok(max)) => (count, max),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
                let reason = "connections are not tracked here";
                seen.facts.set("tracked", false);
                seen.rest_unknown(&KIND, reason);
                return seen;
            }
            (Err(error), _) | (_, Err(error)) => {
                return Observation::could_not_look(format!("cannot read nf_conntrack's settings: {error}"));
            }
        };
        seen.note("conntrack", format!("{count} of {max} entries"));
        let facts = &mut seen.facts;
        facts.set("tracked", true).set("count", count).set("max", max);
        facts.set_or_unknown("used_percent", (count * 100).checked_div(max), "nf_conntrack_max is 0: there is no bound");
        let before = Snapshot::conntrack_of(net);
        let flow = new_flow(net);
        let after = Snapshot::conntrack_of(net);
        seen.note("flow", format!("one datagram to a closed loopback port: {flow}"));
        seen.facts.set("new_flow", flow);
        for fact in ["dropped", "early_dropped", "insert_failed"] {
            rise(&mut seen.facts, fact, &before, &after);
        }
        let dropped = after.values.get("conntrack.dropped").copied();
        seen.facts.set_or_unknown("dropped_total", dropped, after.unknown.get("conntrack.dropped").map_or("", String::as_str));
        seen
    }

    fn target(&self) -> String {
        "nf_conntrack".to_owned()
    }
}

fn setting(net: &Net, name: &str) -> io::Result<u64> {
    let text = net.with(|| std::fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")))??;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// How much a counter has risen.
fn rise(facts: &mut Facts, fact: &str, before: &Snapshot, after: &Snapshot) {
    let name = format!("conntrack.{fact}");
    let rise = before.values.get(&name).zip(after.values.get(&name)).map(|(before, after)| after.saturating_sub(*before));
    let reason = [before, after].iter().find_map(|snapshot| snapshot.unknown.get(&name)).map_or("", String::as_str);
    facts.set_or_unknown(fact, rise, reason);
}

/// A flow that never existed before: a fresh source port to the discard port of loopback. It does not leave the host.
fn new_flow(net: &Net) -> String {
    let sent = net.with(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, 9))?;
        socket.send(&[0])
    });
    match sent.and_then(|sent| sent) {
        Ok(_) => "ok".to_owned(),
        Err(error) => errno_word(&error),
    }
}

#[cfg(test)]
mod tests {
    use crate::probe::testnet::{self, two_nodes};
    use crate::twin::nft::{Batch, Hook, Rule};
    use serde_json::json;

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_entries_are_counted_and_a_new_flow_makes_one() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        // A rule that looks at the state makes the namespace track connections.
        let rule = Rule::new().not_established().counted();
        Batch::replace("look").fresh().chain("out", "filter", Hook::Output, 0).rule("out", rule).commit(&nodes.tethys.vantage.net).unwrap();
        let first = testnet::observe("conntrack", "", &nodes.tethys, None).await.facts.to_json();
        assert_eq!((&first["tracked"], &first["new_flow"], &first["dropped"]), (&json!(true), &json!("ok"), &json!(0)));
        assert!(first["max"].as_u64().unwrap() > 0 && first["used_percent"].as_u64().unwrap() < 50, "{first}");
        let second = testnet::observe("conntrack", "", &nodes.tethys, None).await.facts.to_json();
        assert!(second["count"].as_u64() > first["count"].as_u64(), "the flow of the first look is an entry: {first} {second}");
    }
}
