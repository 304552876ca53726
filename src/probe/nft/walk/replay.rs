//! The rules that kube-proxy 1.33.13 wrote in its two modes, as this kernel keeps them (tests/data/kube-proxy/make.py), also in
//! the tables of the old iptables: every service of the captures leads where the captures say, in each.

use super::super::legacy::{self, Table};
use super::super::sets::{INTERVAL, Set, SetKey};
use super::super::wire::kept;
use super::*;
use std::path::PathBuf;

/// NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM: what the lists consist of.
const CHAIN: u16 = 3;
const RULE: u16 = 6;
const SET: u16 = 9;
const ELEMENTS: u16 = 12;

/// ClusterIP, protocol and port of each service, and where both captures lead it.
const SERVICES: [(&str, u8, &str); 6] = [
    ("10.43.0.1:443", 6, "157.173.210.123:6443"),
    ("10.43.0.10:53", 17, "10.42.0.5:53"),
    ("10.43.0.10:53", 6, "10.42.0.5:53"),
    ("10.43.0.10:9153", 6, "10.42.0.5:9153"),
    ("10.43.213.120:80", 6, "10.42.0.6:6900"),
    ("10.43.104.221:8080", 6, "10.42.2.5:8080"),
];
/// Services without endpoints: argilla-typo, argilla-badport.
const REJECTED: [&str; 2] = ["10.43.190.159:80", "10.43.29.204:80"];
/// A port that a service does not have, a protocol that it does not have, and an address that is no service's.
const NOTHING: [(&str, u8); 3] = [("10.43.0.10:54", 6), ("10.43.0.1:443", 17), ("10.42.0.5:53", 17)];

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/kube-proxy").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn packet(to: &str, protocol: u8) -> Packet {
    let to: SocketAddrV4 = to.parse().unwrap();
    Packet::to(*to.ip(), to.port(), protocol)
}

/// The rules of nf_tables in a file.
fn nf_tables(name: &str) -> Walker {
    let messages = kept(&file(name));
    let of = |kind: u16| messages.iter().filter(move |(k, _)| *k == kind).map(|(_, m)| m.clone()).collect::<Vec<_>>();
    let key = |m: &Message, name: u16| -> SetKey { (m.family, text(&m.body, 1).unwrap(), text(&m.body, name).unwrap()) };
    let (sets, elements) = (of(SET), of(ELEMENTS));
    let read = sets.iter().map(|set| {
        let key = key(set, 2);
        let own: Vec<Message> = elements.iter().filter(|e| text(&e.body, 2).as_ref() == Some(&key.2)).cloned().collect();
        let interval = number(&set.body, 3).unwrap_or_default() & INTERVAL != 0;
        (key, Rc::new(Set::of(&own, interval)))
    });
    Walker::of(&of(CHAIN), &of(RULE), Sets::known(read.collect()))
}

fn legacy() -> Walker {
    let mut walker = Walker::of(&[], &[], Sets::known(HashMap::new()));
    for (name, priority) in legacy::TABLES.into_iter().filter(|(name, _)| *name != "mangle") {
        walker.add(name, priority, Table::parse_kept(&file(&format!("iptables-legacy.{name}.xt"))));
    }
    walker
}

fn all() -> [(Walker, &'static str); 3] {
    [(nf_tables("nftables.nfnl"), "nftables"), (nf_tables("iptables-nft.nfnl"), "iptables"), (legacy(), "iptables-legacy")]
}

#[test]
fn every_service_leads_to_its_endpoints_whatever_wrote_the_rules() {
    for (mut walker, layout) in all() {
        for (to, protocol, target) in SERVICES {
            for hook in [OUTPUT, PREROUTING] {
                let ways = walker.ways(packet(to, protocol), hook).unwrap();
                let led = (ways.targets, ways.layouts, ways.unread, ways.refused);
                let expected = ([target.parse().unwrap()].into(), [layout].into(), false, false);
                assert_eq!(led, expected, "{layout}: {to} by {protocol} at hook {hook}");
            }
        }
    }
}

#[test]
fn services_without_endpoints_are_refused_and_others_are_not_touched() {
    for (mut walker, layout) in all() {
        for to in REJECTED {
            let ways = walker.ways(packet(to, 6), OUTPUT).unwrap();
            assert_eq!((ways.refused, ways.targets.len(), ways.unread), (true, 0, false), "{layout}: {to}");
        }
        for (to, protocol) in NOTHING {
            let ways = walker.ways(packet(to, protocol), OUTPUT).unwrap();
            assert_eq!((ways.targets.len(), ways.unread), (0, false), "{layout}: {to} by {protocol}");
        }
    }
}

/// A pod's packet to the outside, as it comes in and leaves on a node whose exit node is in use.
fn of_a_pod(from: &str, to: &str) -> Packet {
    let device = |name: &str| Some(std::array::from_fn(|n| name.as_bytes().get(n).copied().unwrap_or(0)));
    Packet { from: Some(from.parse().unwrap()), iif: device("cni0"), oif: device("tailscale0"), ..packet(to, 6) }
}

/// flannel's rule masquerades pods, whatever kube-proxy's and Tailscale's rules do with packets that are marked.
#[test]
fn what_pods_send_outside_is_masqueraded_and_nothing_else_is() {
    for (mut walker, layout) in all() {
        // The capture of nftables mode holds kube-proxy's rules alone.
        let masquerades = layout != "nftables";
        let ways = walker.forwarded(of_a_pod("10.42.2.7", "18.116.211.217:5432")).unwrap();
        let seen = (ways.sources.keys().copied().collect::<Vec<_>>(), ways.untouched, ways.unread);
        let expected = if masquerades { (vec![SourceNat::Masqueraded], false, false) } else { (Vec::new(), true, false) };
        assert_eq!(seen, expected, "{layout}: {:?}", ways.sources);
        let to_pod = walker.forwarded(of_a_pod("10.42.2.7", "10.42.0.5:5300")).unwrap();
        assert!(to_pod.sources.is_empty() && to_pod.untouched, "{layout}: {:?}", to_pod.sources);
        let no_pod = walker.forwarded(of_a_pod("192.168.2.50", "18.116.211.217:5432")).unwrap();
        assert!(no_pod.sources.is_empty() && no_pod.untouched, "{layout}: {:?}", no_pod.sources);
    }
}

#[test]
fn two_kinds_of_rules_at_one_priority_may_both_decide() {
    let mut walker = nf_tables("iptables-nft.nfnl");
    walker.add("nat", -100, Table::parse_kept(&file("iptables-legacy.nat.xt")));
    walker.bases.sort_by_key(|base| base.priority);
    let ways = walker.ways(packet("10.43.0.10:53", 17), OUTPUT).unwrap();
    assert_eq!(ways.layouts, BTreeSet::from(["iptables", "iptables-legacy"]));
    assert_eq!(ways.targets, BTreeSet::from(["10.42.0.5:53".parse().unwrap()]));
}

#[test]
fn no_bytes_of_an_old_table_make_it_panic() {
    let whole = file("iptables-legacy.nat.xt");
    let look = |bytes: &[u8]| {
        let mut walker = Walker::of(&[], &[], Sets::known(HashMap::new()));
        walker.add("nat", -100, Table::parse_kept(bytes));
        // An error is right where rules lead in circles.
        let _ = walker.ways(packet("10.43.0.10:53", 17), OUTPUT);
    };
    (0..whole.len()).step_by(101).for_each(|length| look(&whole[..length]));
    for at in (0..whole.len()).step_by(11) {
        for value in [0, 0xff] {
            let mut broken = whole.clone();
            broken[at] = value;
            look(&broken);
        }
    }
}
