//! By which rule, table and device the kernel would send to an address, by netlink: what `ip route get` says, and the rule besides.

use super::net::errno_word;
use super::netlink::{Netlink, Question, selected};
use crate::check::clean;
use crate::vantage::Net;
use std::net::Ipv4Addr;
use tokio::time::Instant;

/// The kernel's choice for packets of the vantage's own.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) device: String,
    /// Table that decided it.
    pub(super) table: u32,
    /// The ip rule that led to the table, or why it cannot be told.
    pub(super) rule: Result<String, String>,
}

/// The error says why there is none: `ENETUNREACH`, or what failed.
pub(super) async fn way_to(net: &Net, to: Ipv4Addr, deadline: Instant) -> Result<Way, String> {
    let netlink = Netlink::open(net, deadline)?;
    let question = Question { to, from: None, iif: None, mark: None };
    let route = netlink.lookup(question).await?.map_err(|refusal| errno_word(&refusal))?;
    let index = route.device.ok_or("the route has no device")?;
    let device = netlink.devices().await?.into_iter().find(|d| d.index == index).map_or(format!("if{index}"), |d| clean(&d.name, 64));
    let rules = netlink.rules().await;
    let rule = rules.and_then(|rules| selected(&rules, &route, &question, None).map(|rule| rule.text()));
    Ok(Way { device, table: route.table, rule })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vantage::NetNs;
    use rtnetlink::packet_route::route::RouteAttribute;
    use rtnetlink::packet_route::rule::RuleAction;
    use rtnetlink::{LinkUnspec, RouteMessageBuilder};
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_names_device_table_and_rule() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let net = Net::Ns(NetNs::create("egress").unwrap());
        let (connection, handle, _) = net.with(rtnetlink::new_connection).unwrap().unwrap();
        tokio::spawn(connection);
        let soon = Instant::now() + Duration::from_secs(5);
        let to = Ipv4Addr::new(203, 0, 113, 9);
        assert_eq!(way_to(&net, to, soon).await.unwrap_err(), "ENETUNREACH");
        handle.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 24).output_interface(1).table_id(52);
        let mut route = route.build();
        for a in &mut route.attributes {
            if let RouteAttribute::Destination(at) = a {
                *at = Ipv4Addr::new(203, 0, 113, 0).into();
            }
        }
        handle.route().add(route).execute().await.unwrap();
        handle.rule().add().v4().action(RuleAction::ToTable).table_id(52).priority(5270).execute().await.unwrap();
        let way = way_to(&net, to, soon).await.unwrap();
        assert_eq!((way.device.as_str(), way.table, way.rule.as_deref()), ("lo", 52, Ok("5270: from all lookup 52")));
    }
}
