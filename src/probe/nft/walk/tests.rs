//! Rules made by hand, and rules of this kernel.

use super::super::sets::Set;
use super::*;
use crate::twin::nft::{Batch, Hook, Rule as Written};
use crate::vantage::NetNs;
use crate::vantage::netlink::attribute;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);
const TO_SERVICE: Packet = Packet::to(SERVICE, 80, 6);

fn endpoint(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 42, 0, last), 8080)
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(1, &[attribute(1, &[name.as_bytes(), &[0]].concat()), attribute(2, &parts.concat())].concat())
}

fn word(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn key(name: &str) -> ChainKey {
    (2, "kube-proxy".to_owned(), name.to_owned())
}

/// kube-proxy's nftables mode in small: `daddr . proto . port vmap @service-ips`, then `numgen random mod 2 vmap {..}`.
fn vmaps() -> Walker {
    let services = Set::verdicts(&[(&[10, 43, 0, 80, 6, 0, 0, 0, 0, 80, 0, 0], -4, "service-web")]);
    let halves = Set::verdicts(&[(&[0, 0, 0, 0], -4, "endpoint-6"), (&[0, 0, 0, 1], -4, "endpoint-7")]);
    let sets = [("service-ips", services), ("__map0", halves)].map(|(name, set)| (key(name), Rc::new(set)));
    let lookup = |name: &[u8]| expression("lookup", &[attribute(1, name), word(2, 8), word(3, 0)]);
    let dispatch = [
        expression("payload", &[word(1, 8), word(2, 1), word(3, 16), word(4, 4)]),
        expression("meta", &[word(1, 9), word(2, 16)]),
        expression("payload", &[word(1, 10), word(2, 2), word(3, 2), word(4, 2)]),
        lookup(b"service-ips\0"),
    ];
    let balance = [expression("numgen", &[word(1, 8), word(2, 2), word(3, 1)]), lookup(b"__map0\0")];
    let dnat = |to: SocketAddrV4| {
        let value = |register, bytes: &[u8]| expression("immediate", &[word(1, register), attribute(2, &attribute(1, bytes))]);
        let nat = expression("nat", &[word(1, 1), word(2, 2), word(3, 8), word(5, 9)]);
        [value(8, &to.ip().octets()), value(9, &to.port().to_be_bytes()), nat].concat()
    };
    let chains = [
        ("nat-output", dispatch.concat()),
        ("service-web", balance.concat()),
        ("endpoint-6", dnat(endpoint(6))),
        ("endpoint-7", dnat(endpoint(7))),
    ];
    Walker {
        bases: vec![Base { key: key("nat-output"), hook: OUTPUT, priority: -100, kind: "nat".to_owned() }],
        chains: chains.map(|(name, rule)| (key(name), Rc::new(vec![Rule::Expressions(rule)]))).into_iter().collect(),
        sets: Sets::known(sets.into_iter().collect()),
        mark: PacketMark::default(),
        followed: 0,
    }
}

#[test]
fn verdict_maps_lead_to_every_endpoint_of_the_service_and_to_no_other() {
    let ways = vmaps().ways(TO_SERVICE, OUTPUT).unwrap();
    assert_eq!(ways.targets, BTreeSet::from([endpoint(6), endpoint(7)]));
    assert_eq!((ways.unread, ways.refused, ways.layouts), (false, false, BTreeSet::from(["nftables"])));
    for other in [Packet { port: 81, ..TO_SERVICE }, Packet { protocol: 17, ..TO_SERVICE }] {
        let ways = vmaps().ways(other, OUTPUT).unwrap();
        assert!(ways.targets.is_empty() && ways.untouched, "{ways:?}");
    }
    assert!(vmaps().ways(TO_SERVICE, PREROUTING).unwrap().targets.is_empty());
}

#[test]
fn chains_that_call_themselves_and_cut_expressions_end() {
    let mut walker = vmaps();
    let jump = |chain: &[u8]| {
        let verdict = attribute(2, &[word(1, (-3_i32).cast_unsigned()), attribute(2, chain)].concat());
        expression("immediate", &[word(1, 0), attribute(2, &verdict)])
    };
    walker.chains.insert(key("service-web"), Rc::new(vec![Rule::Expressions(jump(b"service-web\0"))]));
    assert!(walker.ways(TO_SERVICE, OUTPUT).unwrap_err().to_string().contains("too deeply"));
    let Rule::Expressions(whole) = vmaps().chains[&key("nat-output")][0].clone() else { unreachable!() };
    for length in 0..whole.len() {
        let mut walker = vmaps();
        walker.chains.insert(key("nat-output"), Rc::new(vec![Rule::Expressions(whole[..length].to_vec())]));
        let _ = walker.ways(TO_SERVICE, OUTPUT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_real_rules_are_followed_in_the_order_of_their_chains() {
    if !crate::vantage::netns::testing::in_private() {
        return;
    }
    let net = Net::Ns(NetNs::create("walk").unwrap());
    let to_service = || Written::new().to(SERVICE.into(), true).protocol(6).port(80);
    let ways = |packet| Walker::read(&net).unwrap().ways(packet, OUTPUT).unwrap();
    assert_eq!(ways(TO_SERVICE), Ways { untouched: true, ..Ways::default() });
    let refusing = Batch::replace("firewall").fresh().chain("out", "filter", Hook::Output, 0).rule("out", to_service().reject());
    refusing.commit(&net).unwrap();
    assert_eq!(ways(TO_SERVICE), Ways { untouched: true, refused: true, ..Ways::default() });
    assert!(!ways(Packet { port: 81, ..TO_SERVICE }).refused);
    let lead = |table: &str, priority, to: SocketAddrV4| {
        let batch = Batch::replace(table).fresh().chain("out", "nat", Hook::Output, priority);
        batch.rule("out", to_service().dnat(*to.ip(), to.port())).commit(&net).unwrap();
    };
    lead("late", -100, endpoint(6));
    assert_eq!(ways(TO_SERVICE).targets, BTreeSet::from([endpoint(6)]));
    assert!(!ways(TO_SERVICE).refused, "what was translated does not meet a rule for the old address");
    lead("early", -110, endpoint(9));
    assert_eq!(ways(TO_SERVICE).targets, BTreeSet::from([endpoint(9)]));
}
