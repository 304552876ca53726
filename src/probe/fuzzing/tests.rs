use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// Mutations of each sample.
const ROUNDS: usize = 3000;
/// Longest sample, and longest that a mutation makes it.
const MOST: usize = 4096;

/// What each parser reads in life; it must keep something of it.
fn sample(name: &str) -> Vec<u8> {
    let hex = |text: &str| (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect::<Vec<u8>>();
    match name {
        "resolv_conf" => b"# kubelet\nsearch apps.svc.cluster.local svc.cluster.local\nnameserver 10.43.0.10\noptions ndots:5 rotate\n".to_vec(),
        "corefile" => b".:53 {\n    errors\n    kubernetes cluster.local {\n      pods insecure\n    }\n    forward . /etc/resolv.conf \"9.9.9.9\"\n}\n".to_vec(),
        "app_log" => b"ERROR dial tcp 10.43.0.10:53: i/o timeout\nERROR bucket b: SlowDown token=abc\nINFO 503 rows\n".to_vec(),
        "coredns_log" => include_bytes!("../../../tests/data/coredns/log-loop.txt").to_vec(),
        "coredns_metrics" | "prometheus" => {
            let page = include_str!("../../../tests/data/coredns/metrics-upstream-dropped.http");
            let wanted = page.lines().filter(|l| l.starts_with("coredns_proxy") || l.starts_with("coredns_dns_responses"));
            wanted.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
        }
        "kube_pods" => br#"[{"metadata":{"name":"coredns-1"},"spec":{"nodeName":"a","containers":[{"name":"coredns"}]},"status":{"phase":"Running","containerStatuses":[{"name":"coredns","image":"","imageID":"","ready":true,"restartCount":2}]}}]"#.to_vec(),
        "dns_answer" => {
            let line = include_str!("../../../tests/data/coredns/replies-healthy.jsonl").lines().next().unwrap();
            hex(serde_json::from_str::<serde_json::Value>(line).unwrap()["response_hex"].as_str().unwrap())
        }
        "sse" => b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n: ping\n\ndata: [DONE]\n\n".to_vec(),
        "pg_wire" => b"E\0\0\0\x30SFATAL\0C28000\0Mno pg_hba.conf entry for host\0\0".to_vec(),
        "nft" => nft::sample(),
        "warp_settings" => br#"{"settings":{"operation_mode":"warp","split_tunnel_mode":"include","split_tunnel_ips":[{"value":"10.42.0.0/16"}],"fallback_domains":[{"suffix":"local"}]}}"#.to_vec(),
        "vxlan_packet" => capture::tests::packet(b"fathom-1"),
        "certificate" => rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap().cert.der().to_vec(),
        "xt_table" => include_bytes!("../../../tests/data/kube-proxy/iptables-legacy.filter.xt").to_vec(),
        "stun" => b"\x01\x01\x00\x0c\x21\x12\xa4\x42transaction!\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43".to_vec(),
        "api_list" => br#"{"kind":"List","metadata":{"continue":"x","resourceVersion":"7"},"items":[{"a":[1,{"b":null}]},"c"]}"#.to_vec(),
        "icmp_reply" => [&[0x45][..], &[0; 19], &[0, 0, 0, 0, 0xfa, 0x70, 0, 1], b"fathom"].concat(),
        "icmp_error" => vec![3, 3, 8, 0, 0, 0, 0xfa, 0x70, 0, 1],
        "netlink" => netlink::sample(),
        "proc_net" => b"Ip: Forwarding ForwDatagrams\nIp: 1 42\nUdp: NoPorts InCsumErrors\nUdp: 3 5\nIp6FragCreates \t7\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 26523\n"
            .to_vec(),
        "proxy_variables" => b"HTTPS_PROXY=http://u:p@gate.example:3128\nno_proxy=.svc, 10.0.0.0/8,10.43.0.1:443,*\n".to_vec(),
        other => panic!("no sample of {other}"),
    }
}

/// xorshift64* (Marsaglia, 2003): small, the same everywhere, seeded.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % end.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const INTERESTING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xc0, 0xff, b'"', b'{', b'}', b'\n', b'\\', b' '];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = INTERESTING[self.below(INTERESTING.len())],
                2 => bytes.insert(at, INTERESTING[self.below(INTERESTING.len())]),
                3 => bytes.truncate(at),
                4 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => {
                    let piece = bytes[at..(at + self.below(64)).min(bytes.len())].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        bytes.truncate(MOST);
    }
}

#[test]
fn mutations_of_real_samples_never_panic_and_keep_what_is_promised() {
    for (seed, target) in TARGETS.iter().enumerate() {
        let mut sample = sample(target.name);
        sample.truncate(MOST);
        assert!((target.run)(&sample) > 0, "{} keeps nothing of its own sample", target.name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed as u64);
        let mut longest = Duration::ZERO;
        for round in 0..ROUNDS {
            let mut bytes = sample.clone();
            random.mutate(&mut bytes);
            let began = Instant::now();
            let kept = (target.run)(&bytes);
            longest = longest.max(began.elapsed());
            assert!(kept <= (target.most)(bytes.len()), "{} kept {kept} in round {round}: {bytes:?}", target.name);
        }
        // Generous: a debug build on a busy machine. What would be quadratic or worse takes far longer.
        assert!(longest < Duration::from_secs(2), "{} took {longest:?}", target.name);
    }
}

#[test]
fn every_parser_has_a_fuzz_target_and_every_target_a_parser() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
    let declared: Vec<&str> = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    let known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    assert_eq!(declared, known);
    for name in known {
        let text = std::fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", bytes)")), "{name}");
    }
}
