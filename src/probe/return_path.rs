//! `return-path`: whether the kernel would accept a reply from the outside, with and without tailscaled's mark.
//!
//! `RTM_GETROUTE` with an incoming device runs the kernel's own reverse path check (fib_validate_source) without sending
//! anything. With an exit node in use and strict rp_filter a reply that carries no mark is dropped: table 52 says that the
//! way back is tailscale0. That is no fault while tailscaled's rules give replies its mark and src_valid_mark makes the
//! check look at it, so this alone proves nothing.

use super::net::errno_word;
use super::netlink::{Device, Netlink, Question, TABLE_MAIN, longest_match};
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::net::Ipv4Addr;

/// tailscaled's bypass mark (TS, `tsconst.LinuxBypassMark`).
const MARK: u32 = 0x80000;

/// Whether the kernel would accept a reply from the outside, with and without tailscaled's mark.
pub(super) static KIND: Kind = Kind {
    name: "return-path",
    root: "back",
    about: "Whether the kernel would accept a reply from the outside, with and without tailscaled's mark",
    privilege: None,
    args: &[("from", "an address outside that could send a reply")],
    facts: &[
        fact("device", "text", "the uplink: outgoing device of table main for that address"),
        fact("address", "address", "its first address"),
        fact("rp_filter", "number", "effective mode there, the higher of `all` and the device's: 0 off, 1 strict, 2 loose"),
        fact("src_valid_mark", "bool", "the check looks at the packet's mark (`all` or the device's)"),
        fact("unmarked", "bool", "a reply without a mark would be accepted"),
        fact("marked", "bool", "a reply with tailscaled's mark 0x80000 would be accepted"),
        fact("error", "text", "the kernel's refusal of the unmarked one, such as EINVAL; empty if accepted"),
    ],
    decode: decode::<ReturnPath>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReturnPath {
    from: Ipv4Addr,
}

#[async_trait]
impl Probe for ReturnPath {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(cx).await.unwrap_or_else(Observation::could_not_look)
    }

    fn target(&self) -> String {
        format!("a reply from {}", self.from)
    }
}

impl ReturnPath {
    async fn look(&self, cx: &Context) -> Result<Observation, String> {
        let netlink = Netlink::open(&cx.vantage.net, cx.deadline)?;
        let routes = netlink.routes(TABLE_MAIN).await?;
        let index = longest_match(&routes, self.from).and_then(|r| r.device).ok_or("table main has no way to the outside")?;
        let devices = netlink.devices().await?;
        let device: &Device = devices.iter().find(|d| d.index == index).ok_or("the uplink is gone")?;
        let addresses = netlink.addresses(index).await?;
        let own = addresses.first().map(|a| a.addr()).ok_or_else(|| format!("{} has no address", device.name))?;
        let mut seen = Observation::default();
        seen.facts.set("device", device.name.as_str()).set("address", own.to_string());
        settings(&cx.vantage.net, &device.name, &mut seen);
        for (path, mark) in [("unmarked", None), ("marked", Some(MARK))] {
            let answer = netlink.lookup(Question { to: own, from: Some(self.from), iif: Some(index), mark }).await?;
            let word = answer.as_ref().err().map(errno_word).unwrap_or_default();
            let shown = if word.is_empty() { "accepted" } else { word.as_str() };
            seen.note("netlink", format!("to {own} from {} iif {} mark {:#x}: {shown}", self.from, device.name, mark.unwrap_or(0)));
            seen.facts.set(path, answer.is_ok());
            if mark.is_none() {
                seen.facts.set("error", word);
            }
        }
        Ok(seen)
    }
}

/// Modes of `all` and of the device: for both settings the kernel takes the higher (Documentation/networking/ip-sysctl).
fn settings(net: &Net, device: &str, seen: &mut Observation) {
    let read = |name: &str| {
        let one = |of: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{of}/{name}");
            net.with(|| std::fs::read_to_string(&path)).and_then(|text| text).ok()?.trim().parse::<u8>().ok()
        };
        Some(one("all")?.max(one(device)?))
    };
    seen.facts.set_or_unknown("rp_filter", read("rp_filter"), "the setting cannot be read");
    seen.facts.set_or_unknown("src_valid_mark", read("src_valid_mark").map(|v| v > 0), "the setting cannot be read");
}
