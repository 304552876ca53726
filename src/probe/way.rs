//! By which device and table the kernel would send to an address: what `ip route get` says, by netlink.

use crate::vantage::Net;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::net::Ipv4Addr;
use tokio::time::{Instant, timeout_at};

/// Device and table of the kernel's choice; the error says why there is none: `ENETUNREACH`, or what failed.
pub(super) async fn route_to(net: &Net, to: Ipv4Addr, deadline: Instant) -> Result<(String, u32), String> {
    // The netlink socket must be opened inside the network; it stays there wherever it is polled.
    let opened = net.with(rtnetlink::new_connection).and_then(|opened| opened);
    let (connection, handle, _) = opened.map_err(|e| format!("netlink: {e}"))?;
    let serving = tokio::spawn(connection);
    let answer = timeout_at(deadline, ask(&handle, to)).await;
    serving.abort();
    answer.unwrap_or_else(|_| Err("netlink: no answer before the deadline".to_owned()))
}

async fn ask(handle: &Handle, to: Ipv4Addr) -> Result<(String, u32), String> {
    let mut request = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build();
    // Without this flag the kernel answers "main" whatever table it was (rtnetlink(7), RTM_F_LOOKUP_TABLE).
    request.header.flags |= RouteFlags::LookupTable;
    let route = handle.route().get(request).execute().try_next().await.map_err(|e| word(&e))?.ok_or("netlink: empty answer")?;
    let index = oif(&route).ok_or("the route has no device")?;
    let link = handle.link().get().match_index(index).execute().try_next().await.map_err(|e| word(&e))?;
    let name =
        link.and_then(|link| link.attributes.into_iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name) } else { None }));
    Ok((name.unwrap_or_else(|| format!("if{index}")), table(&route)))
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None })
}

/// The attribute if there is one: the header has room for table numbers up to 255 only.
fn table(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|a| if let RouteAttribute::Table(table) = a { Some(*table) } else { None });
    attribute.unwrap_or_else(|| u32::from(route.header.table))
}

fn word(error: &Error) -> String {
    match error {
        Error::NetlinkError(message) => super::net::errno_word(&message.to_io()),
        other => format!("netlink: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vantage::NetNs;
    use rtnetlink::LinkUnspec;
    use rtnetlink::packet_route::rule::RuleAction;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_names_device_and_table() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let net = Net::Ns(NetNs::create("egress").unwrap());
        let (connection, handle, _) = net.with(rtnetlink::new_connection).unwrap().unwrap();
        tokio::spawn(connection);
        let soon = Instant::now() + Duration::from_secs(5);
        let to = Ipv4Addr::new(203, 0, 113, 9);
        assert_eq!(route_to(&net, to, soon).await.unwrap_err(), "ENETUNREACH");
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
        assert_eq!(route_to(&net, to, soon).await.unwrap(), ("lo".to_owned(), 52));
    }
}
