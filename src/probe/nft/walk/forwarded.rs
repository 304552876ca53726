//! What becomes of the source address of a packet that is forwarded: its mark is followed from where it comes in.

use super::super::FORWARD;
use super::{POSTROUTING, PREROUTING, Packet, PacketMark, Walker, Ways};
use std::io;

/// Where a forwarded packet can be marked: hooks and kinds of chains. The old iptables mark in a table of their own.
const MARKING: [(u32, &str); 7] = [
    (PREROUTING, "mangle"),
    (PREROUTING, "filter"),
    (PREROUTING, "nat"),
    (FORWARD, "mangle"),
    (FORWARD, "filter"),
    (POSTROUTING, "mangle"),
    (POSTROUTING, "filter"),
];

impl Walker {
    /// What the source of a packet that comes in without a mark may be translated to when it leaves, and whether it may leave as it is.
    pub(crate) fn forwarded(&mut self, packet: Packet) -> io::Result<Ways> {
        self.mark = PacketMark::NONE;
        let mut ways = Ways::default();
        loop {
            let (before, mut before_routing) = (self.mark, Ways::default());
            for (hook, kind) in MARKING {
                self.pass(packet, hook, kind, &mut before_routing, false)?;
            }
            // Its destination is another one then, and so is everything that was asked here.
            ways.unread |= before_routing.unread || !before_routing.targets.is_empty();
            // A rule may read what a later one writes, for another packet of the same kind: until nothing new comes of it.
            if self.mark == before {
                break;
            }
        }
        ways.untouched = self.pass(packet, POSTROUTING, "nat", &mut ways, true)?;
        Ok(ways)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SourceNat;
    use super::*;
    use crate::twin::nft::{Batch, Hook, Rule};
    use crate::vantage::{Net, NetNs};
    use std::net::Ipv4Addr;

    fn device(name: &str) -> [u8; 16] {
        std::array::from_fn(|n| name.as_bytes().get(n).copied().unwrap_or(0))
    }

    fn packet(from: [u8; 4]) -> Packet {
        let to = Ipv4Addr::new(203, 0, 113, 9);
        Packet { from: Some(from.into()), iif: Some(device("cni0")), oif: Some(device("eth0")), ..Packet::to(to, 443, 6) }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_source_device_and_mark_decide_who_is_masqueraded() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let net = Net::Ns(NetNs::create("forwarded").unwrap());
        let ways = |from| Walker::read(&net).unwrap().forwarded(packet(from)).unwrap();
        let pods = "10.42.0.0/16".parse().unwrap();
        assert_eq!(ways([10, 42, 2, 7]), Ways { untouched: true, ..Ways::default() });
        let rules = || Batch::replace("edge").fresh().chain("out", "nat", Hook::Postrouting, 100);
        rules().rule("out", Rule::new().from(pods, true).out_by("eth0").masquerade()).commit(&net).unwrap();
        let seen = ways([10, 42, 2, 7]);
        let by = seen.sources.get(&SourceNat::Masqueraded).map(|by| by.iter().cloned().collect::<Vec<_>>());
        assert_eq!((by, seen.untouched), (Some(vec!["ip edge out".to_owned()]), false));
        assert!(ways([192, 168, 2, 9]).untouched, "not the source of the rule");
        rules().rule("out", Rule::new().from(pods, true).out_by("wlan0").masquerade()).commit(&net).unwrap();
        assert!(ways([10, 42, 2, 7]).untouched, "not the device of the rule");
        let marked = || rules().rule("out", Rule::new().return_without_mark(0x4000)).rule("out", Rule::new().masquerade());
        marked().commit(&net).unwrap();
        assert_eq!(ways([10, 42, 2, 7]), Ways { untouched: true, ..Ways::default() }, "nothing has marked it");
        let marking = |device: &str| {
            let rule = Rule::new().in_by(device).set_mark(!0x4000, 0x4000);
            marked().chain("way", "filter", Hook::Forward, 0).rule("way", rule).commit(&net).unwrap();
        };
        marking("wlan0");
        assert!(ways([10, 42, 2, 7]).sources.is_empty(), "what comes in elsewhere is marked");
        marking("cni0");
        let seen = ways([10, 42, 2, 7]);
        assert!(seen.untouched && seen.sources.contains_key(&SourceNat::Masqueraded), "a mark that may be there decides nothing: {seen:?}");
    }
}
