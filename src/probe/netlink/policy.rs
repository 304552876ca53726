//! Rules of the routing policy (ip-rule(8)), and which of them led to an answer of the kernel's.

use super::{Question, Route, TABLE_MAIN};
use crate::check::clean;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::RouteType;
use std::net::Ipv4Addr;

/// The device that a packet of the machine's own counts as coming in by.
const LOOPBACK: &str = "lo";

/// A rule of the routing policy.
#[derive(Clone, Debug, Default)]
pub(in crate::probe) struct Rule {
    pub(in crate::probe) priority: u32,
    /// The table it looks up; `None` for any other action.
    pub(in crate::probe) table: Option<u32>,
    pub(in crate::probe) to: Option<Ipv4Net>,
    pub(super) from: Option<Ipv4Net>,
    /// Names of devices; empty for any.
    pub(super) iif: String,
    pub(super) oif: String,
    /// Value and mask.
    pub(super) mark: (u32, u32),
    pub(super) inverted: bool,
    /// It has a condition on what a [`Question`] does not hold: user, ports, protocol, ..
    pub(super) more: bool,
    /// It leaves out some routes of the table.
    pub(super) suppresses: bool,
    /// It leads to another rule.
    pub(super) goes_to: bool,
}

impl Rule {
    /// It has a condition besides the destination, or leaves out some routes.
    pub(in crate::probe) fn conditional(&self) -> bool {
        let named = self.from.is_some() || !self.iif.is_empty() || !self.oif.is_empty() || self.mark != (0, 0);
        named || self.inverted || self.more || self.suppresses
    }

    /// Whether it is meant for a packet that comes in by a device; `None` if that depends on what is not known.
    fn matches(&self, question: &Question, iif: &str) -> Option<bool> {
        let (mark, mask) = self.mark;
        let held = self.to.is_none_or(|to| to.contains(&question.to))
            && self.from.is_none_or(|from| from.contains(&question.from.unwrap_or(Ipv4Addr::UNSPECIFIED)))
            && (self.iif.is_empty() || self.iif == iif)
            // A question never names the device to leave by.
            && self.oif.is_empty()
            && question.mark.unwrap_or_default() & mask == mark;
        if held && self.more { None } else { Some(held != self.inverted) }
    }

    /// As `ip rule` lists it: `5270: from all lookup 52`.
    pub(in crate::probe) fn text(&self) -> String {
        let net = |net: Ipv4Net| if net.prefix_len() == 32 { net.addr().to_string() } else { net.to_string() };
        let mut text = format!("{}: {}from ", self.priority, if self.inverted { "not " } else { "" });
        text += &self.from.map_or_else(|| "all".to_owned(), net);
        if let Some(to) = self.to {
            text += &format!(" to {}", net(to));
        }
        match self.mark {
            (0, 0) => {}
            (mark, u32::MAX) => text += &format!(" fwmark {mark:#x}"),
            (mark, mask) => text += &format!(" fwmark {mark:#x}/{mask:#x}"),
        }
        for (word, device) in [("iif", &self.iif), ("oif", &self.oif)] {
            if !device.is_empty() {
                text += &format!(" {word} {}", clean(device, 16));
            }
        }
        text += if self.more { " .." } else { "" };
        text + &self.table.map_or(String::new(), |table| format!(" lookup {}", table_name(table)))
    }
}

/// The names that iproute2 gives to the tables that are always there.
fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        other => other.to_string(),
    }
}

/// The rule that led to the kernel's answer about a packet that comes in by a device (`None`: the machine's own).
///
/// The kernel tells the table and not the rule. It is the first rule that looks this table up and is meant for the packet; the error
/// says why it cannot be told.
pub(in crate::probe) fn selected<'a>(
    rules: &'a [Rule],
    answer: &Route,
    question: &Question,
    iif: Option<&str>,
) -> Result<&'a Rule, String> {
    if answer.kind == RouteType::Local && answer.table == TABLE_MAIN {
        return Err("the kernel keeps its own addresses with table main until a rule is added".to_owned());
    }
    let iif = iif.unwrap_or(LOOPBACK);
    let meant: Vec<(&Rule, Option<bool>)> =
        rules.iter().map(|r| (r, r.matches(question, iif))).filter(|(_, m)| *m != Some(false)).collect();
    let leading: Vec<_> = meant.iter().filter(|(rule, _)| rule.table == Some(answer.table)).collect();
    if meant.iter().any(|(rule, _)| rule.goes_to) {
        return Err("a rule that leads to another rule may be meant for it".to_owned());
    }
    match leading.as_slice() {
        [] => Err(format!("no rule that is meant for it looks up table {}", answer.table)),
        [(rule, Some(true)), ..] if !rule.suppresses => Ok(rule),
        [(rule, _)] => Ok(rule),
        several => Err(format!("one of several rules: {}", several.iter().map(|(rule, _)| rule.text()).collect::<Vec<_>>().join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(table: u32) -> Route {
        Route {
            kind: RouteType::Unicast,
            table,
            prefix: Ipv4Net::default(),
            device: Some(1),
            gateway: None,
            source: None,
            metric: 0,
            dead: false,
        }
    }

    fn rule(priority: u32, table: u32) -> Rule {
        Rule { priority, table: Some(table), ..Rule::default() }
    }

    /// What tailscaled lays, with the exceptions of the cluster's networks.
    fn tailscale() -> Vec<Rule> {
        let mark = (0x80000, 0xff_0000);
        let pods = Some("10.42.0.0/16".parse().unwrap());
        vec![
            rule(0, 255),
            Rule { mark, ..rule(5210, 254) },
            Rule { mark, ..rule(5230, 253) },
            Rule { mark, priority: 5250, ..Rule::default() },
            Rule { to: pods, ..rule(5269, 254) },
            rule(5270, 52),
            rule(32766, 254),
            rule(32767, 253),
        ]
    }

    fn selects(rules: &[Rule], table: u32, to: &str, from: Option<&str>, mark: Option<u32>, iif: Option<&str>) -> Result<String, String> {
        let question = Question { to: to.parse().unwrap(), from: from.map(|f| f.parse().unwrap()), iif: iif.map(|_| 1), mark };
        selected(rules, &answer(table), &question, iif).map(Rule::text)
    }

    #[test]
    fn the_first_rule_for_the_packet_that_looks_up_the_table_of_the_answer() {
        let rules = tailscale();
        let outside = |table, mark| selects(&rules, table, "203.0.113.9", None, mark, None);
        assert_eq!(outside(52, None).unwrap(), "5270: from all lookup 52");
        assert_eq!(outside(254, None).unwrap(), "32766: from all lookup main");
        assert_eq!(outside(254, Some(0x80000)).unwrap(), "5210: from all fwmark 0x80000/0xff0000 lookup main");
        assert_eq!(selects(&rules, 254, "10.42.0.5", None, None, None).unwrap(), "5269: from all to 10.42.0.0/16 lookup main");
        assert!(outside(7, None).unwrap_err().contains("table 7"));
    }

    #[test]
    fn sources_devices_and_inversions_decide() {
        let from = Rule { from: Some("10.42.2.7/32".parse().unwrap()), ..rule(100, 7) };
        let by = Rule { iif: "cni0".to_owned(), ..rule(101, 7) };
        let not = Rule { inverted: true, to: Some("10.0.0.0/8".parse().unwrap()), ..rule(102, 7) };
        let rules = [from, by, not];
        let selects = |to, from, iif| selects(&rules, 7, to, from, None, iif);
        assert_eq!(selects("203.0.113.9", Some("10.42.2.7"), Some("cni0")).unwrap(), "100: from 10.42.2.7 lookup 7");
        assert_eq!(selects("203.0.113.9", Some("10.42.2.8"), Some("cni0")).unwrap(), "101: from all iif cni0 lookup 7");
        assert_eq!(selects("203.0.113.9", None, None).unwrap(), "102: not from all to 10.0.0.0/8 lookup 7");
        assert!(selects("10.0.0.1", None, None).is_err());
    }

    #[test]
    fn where_it_may_be_several_it_is_not_told() {
        let user = Rule { more: true, ..rule(100, 254) };
        let whole = [user.clone(), rule(32766, 254)];
        let told = |rules: &[Rule]| selects(rules, 254, "203.0.113.9", None, None, None);
        assert_eq!(told(&whole).unwrap_err(), "one of several rules: 100: from all .. lookup main; 32766: from all lookup main");
        assert_eq!(told(&[user]).unwrap(), "100: from all .. lookup main", "no other could have led there");
        assert!(told(&[Rule { suppresses: true, ..rule(100, 254) }, rule(32766, 254)]).is_err());
        assert!(told(&[Rule { goes_to: true, priority: 1, ..Rule::default() }, rule(32766, 254)]).is_err());
        let own = Route { kind: RouteType::Local, ..answer(254) };
        let question = Question { to: "203.0.113.9".parse().unwrap(), from: None, iif: None, mark: None };
        assert!(selected(&[rule(32766, 254)], &own, &question, None).is_err());
    }
}
