//! `route`: what the kernel itself would do with a packet (RTM_GETROUTE), and what table main says.

use super::net::errno_word;
use super::netlink::{Device, Netlink, Question, Route as Found, Rule, TABLE_MAIN, longest_match, selected};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use async_trait::async_trait;
use rtnetlink::packet_route::route::RouteType;
use serde::Deserialize;
use std::io;
use std::net::Ipv4Addr;

/// Priority of Tailscale's rule "lookup table 52": only rules before it can keep a destination out of that table.
const TAILSCALE_RULE: u32 = 5270;

/// What the kernel itself would do with a packet (RTM_GETROUTE), and what table main says.
pub(super) static KIND: Kind = Kind {
    name: "route",
    root: "route",
    about: "What the kernel itself would do with a packet (RTM_GETROUTE), and what table main says",
    privilege: None,
    args: &[
        ("to", "destination address"),
        ("from", "source address (optional)"),
        ("iif", "device the packet would come in by (optional; asks for forwarding, and needs `from`)"),
        ("mark", "firewall mark (optional)"),
    ],
    facts: &[
        fact("found", "bool", "the kernel has a way to send it"),
        fact("error", "text", "errno if not, such as ENETUNREACH or EHOSTUNREACH; empty if found"),
        fact("device", "text", "outgoing device"),
        fact("table", "number", "routing table the answer came from; 254 is main"),
        fact("rule", "text", "ip rule that led to this table, as `ip rule` lists it; unknown where it may be several"),
        fact("gateway", "address", "next hop; empty if on-link"),
        fact("source", "address", "source address the kernel would choose"),
        fact("main_device", "text", "outgoing device of the longest match in table main alone; empty if none"),
        fact("main_prefix", "text", "that route's prefix, `default` for 0.0.0.0/0"),
        fact("kind", "text", "`unicast`, `local`, `broadcast`, ...; empty if not found"),
        fact(
            "rules_to_main",
            "list of text",
            "destinations that ip rules before Tailscale's (5270) send to table main, whatever the source or mark",
        ),
    ],
    decode: decode::<Route>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    to: Ipv4Addr,
    #[serde(default)]
    from: Option<Ipv4Addr>,
    #[serde(default)]
    iif: Option<String>,
    #[serde(default)]
    mark: Option<u32>,
}

#[async_trait]
impl Probe for Route {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(cx).await.unwrap_or_else(Observation::could_not_look)
    }

    fn target(&self) -> String {
        self.to.to_string()
    }
}

impl Route {
    async fn look(&self, cx: &Context) -> Result<Observation, String> {
        if self.iif.is_some() && self.from.is_none() {
            return Err("`iif` needs `from`: the kernel takes a forwarded packet without a source for invalid".to_owned());
        }
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let devices = netlink.devices().await?;
        let question = self.question(&devices);
        let answer = match question {
            Some(question) => netlink.lookup(question).await?,
            // What the kernel answers when it is asked with an index that does not exist.
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        };
        let rules = netlink.rules().await?;
        let mut seen = Observation::default();
        seen.note("netlink", self.describe(&answer, &devices));
        answer_facts(&mut seen.facts, &answer, &devices);
        match question.zip(answer.ok()).map(|(question, route)| selected(&rules, &route, &question, self.iif.as_deref())) {
            Some(Ok(rule)) => seen.facts.set("rule", rule.text()),
            Some(Err(reason)) => seen.facts.unknown("rule", reason),
            None => seen.facts.unknown("rule", "no route"),
        };
        main_facts(&mut seen.facts, &netlink.routes(TABLE_MAIN).await?, self.to, &devices);
        seen.facts.set("rules_to_main", rules_to_main(&rules));
        Ok(seen)
    }

    /// `None` if there is no device of the name to come in by.
    fn question(&self, devices: &[Device]) -> Option<Question> {
        let iif = match &self.iif {
            None => None,
            Some(name) => Some(devices.iter().find(|d| &d.name == name)?.index),
        };
        Some(Question { to: self.to, from: self.from, iif, mark: self.mark })
    }

    fn describe(&self, answer: &io::Result<Found>, devices: &[Device]) -> String {
        let mut text = format!("to {}", self.to);
        if let Some(from) = self.from {
            text += &format!(" from {from}");
        }
        if let Some(iif) = &self.iif {
            text += &format!(" iif {iif}");
        }
        if let Some(mark) = self.mark {
            text += &format!(" mark {mark:#x}");
        }
        match answer {
            Err(error) => text + &format!(": {}", errno_word(error)),
            Ok(route) => {
                let via = route.gateway.map_or(String::new(), |g| format!(" via {g}"));
                let source = route.source.map_or(String::new(), |s| format!(" src {s}"));
                let device = device_name(devices, route.device);
                text + &format!(": {}{via} dev {device} table {}{source}", kind_word(route.kind), route.table)
            }
        }
    }
}

fn answer_facts(facts: &mut Facts, answer: &io::Result<Found>, devices: &[Device]) {
    let (route, error) = match answer {
        Ok(route) => match refusal(route.kind) {
            Some(word) => (None, word.to_owned()),
            None => (Some(route), String::new()),
        },
        Err(error) => (None, errno_word(error)),
    };
    let reason = format!("no route ({error})");
    let text = |address: Option<Ipv4Addr>| address.map_or(String::new(), |a| a.to_string());
    facts.set("found", route.is_some()).set("error", error);
    facts.set("device", route.map_or(String::new(), |r| device_name(devices, r.device)));
    facts.set_or_unknown("table", route.map(|r| r.table), &reason);
    facts.set("gateway", text(route.and_then(|r| r.gateway))).set("source", text(route.and_then(|r| r.source)));
    facts.set("kind", route.map_or("", |r| kind_word(r.kind)));
}

fn main_facts(facts: &mut Facts, routes: &[Found], to: Ipv4Addr, devices: &[Device]) {
    let best = longest_match(routes, to);
    facts.set("main_device", best.map_or(String::new(), |r| device_name(devices, r.device)));
    facts.set(
        "main_prefix",
        best.map_or(String::new(), |r| if r.prefix.prefix_len() == 0 { "default".to_owned() } else { r.prefix.to_string() }),
    );
}

fn rules_to_main(rules: &[Rule]) -> Vec<String> {
    rules
        .iter()
        .filter(|r| r.table == Some(TABLE_MAIN) && r.priority < TAILSCALE_RULE && !r.conditional())
        .map(|r| r.to.unwrap_or_default().to_string())
        .collect()
}

fn device_name(devices: &[Device], index: Option<u32>) -> String {
    let name = index.and_then(|index| devices.iter().find(|d| d.index == index)).map(|d| d.name.as_str());
    clean(name.unwrap_or_default(), 64)
}

/// The errno that a packet would meet on a route which is a refusal (ip-route(8)).
fn refusal(kind: RouteType) -> Option<&'static str> {
    match kind {
        RouteType::Unreachable => Some("EHOSTUNREACH"),
        RouteType::Prohibit => Some("EACCES"),
        RouteType::BlackHole => Some("EINVAL"),
        _ => None,
    }
}

/// The word of ip-route(8) for a kind of route.
fn kind_word(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    async fn facts(node: &testnet::Node, with: &str) -> serde_json::Value {
        testnet::observe("route", with, node, None).await.facts.to_json()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_the_kernel_names_device_gateway_source_and_table() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let pod = facts(&nodes.tethys, "to = '10.42.2.7'").await;
        assert_eq!((&pod["found"], &pod["error"], &pod["kind"]), (&json!(true), &json!(""), &json!("unicast")));
        assert_eq!((&pod["device"], &pod["gateway"], &pod["table"]), (&json!("flannel.1"), &json!("10.42.2.0"), &json!(254)));
        assert_eq!(pod["source"], json!("10.42.0.0"));
        assert_eq!((&pod["main_device"], &pod["main_prefix"]), (&json!("flannel.1"), &json!("10.42.2.0/24")));
        let own = facts(&nodes.tethys, "to = '100.95.51.125'").await;
        // Its table is 254: until the first ip rule is added, the kernel keeps local routes together with table main.
        assert_eq!((&own["found"], &own["kind"], &own["device"]), (&json!(true), &json!("local"), &json!("lo")));
        let none = facts(&nodes.tethys, "to = '8.8.8.8'").await;
        assert_eq!((&none["found"], &none["error"], &none["device"]), (&json!(false), &json!("ENETUNREACH"), &json!("")));
        assert_eq!(none["main_device"], json!(""));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_policy_rules_decide_before_table_main() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        let node = &nodes.tethys;
        node.default_route_in_table(52, "tailscale0").await;
        node.rule(5270, None, 52, None).await;
        let swallowed = facts(node, "to = '10.42.2.7'").await;
        assert_eq!((&swallowed["device"], &swallowed["table"]), (&json!("tailscale0"), &json!(52)));
        assert_eq!((&swallowed["main_device"], &swallowed["rules_to_main"]), (&json!("flannel.1"), &json!([])));
        assert_eq!(swallowed["rule"], json!("5270: from all lookup 52"));

        node.rule(5210, None, 254, Some(0x80000)).await;
        let marked = facts(node, "to = '10.42.2.7'\nmark = 0x80000").await;
        assert_eq!((&marked["device"], &marked["rules_to_main"]), (&json!("flannel.1"), &json!([])));
        assert!(marked["rule"].as_str().unwrap().starts_with("5210: from all fwmark 0x80000"), "{marked}");

        node.rule(5268, Some("10.43.0.0/16"), 254, None).await;
        node.rule(5269, Some("10.42.0.0/16"), 254, None).await;
        let kept = facts(node, "to = '10.42.2.7'").await;
        assert_eq!((&kept["device"], &kept["table"]), (&json!("flannel.1"), &json!(254)));
        assert_eq!(kept["rule"], json!("5269: from all to 10.42.0.0/16 lookup main"));
        assert_eq!(kept["rules_to_main"], json!(["10.43.0.0/16", "10.42.0.0/16"]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_refusing_routes_and_unknown_devices_are_not_found() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.tethys.unreachable("203.0.113.0/24").await;
        let refused = facts(&nodes.tethys, "to = '203.0.113.5'").await;
        assert_eq!((&refused["found"], &refused["error"]), (&json!(false), &json!("EHOSTUNREACH")));
        let nodev = facts(&nodes.tethys, "to = '10.42.2.7'\nfrom = '10.42.0.5'\niif = 'cni0'").await;
        assert_eq!((&nodev["found"], &nodev["error"]), (&json!(false), &json!("ENODEV")));
        let forwarded = facts(&nodes.tethys, "to = '10.42.2.7'\nfrom = '100.83.53.38'\niif = 'tailscale0'").await;
        assert_eq!((&forwarded["found"], &forwarded["device"]), (&json!(true), &json!("flannel.1")));
    }
}
