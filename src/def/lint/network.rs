//! Names and addresses of an inventory: a name must fit into ids and commands, and two things cannot share an address.

use crate::def::Inventory;
use crate::def::document::Step;
use ipnet::Ipv4Net;

/// Longest name: what DNS allows one label (RFC 1035).
const LONGEST_NAME: usize = 63;
/// Longest name of a device that Linux allows (IFNAMSIZ, less its zero).
const LONGEST_DEVICE: usize = 15;

/// Tells what is wrong, each with the place where it stands.
pub(super) fn lint(inv: &Inventory, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    names(inv, wrong);
    devices(inv, wrong);
    ports(inv, wrong);
    nodes(inv, wrong);
    for (n, service) in inv.services.iter().enumerate() {
        if let Some(path) = service.health_path.as_ref().filter(|path| !path.starts_with('/')) {
            let at = [Step::Key("service"), Step::At(n), Step::Key("health_path")];
            wrong(&at, format!("service `{}` has the health path `{path}`, which does not begin with /", service.name));
        }
    }
}

/// Things of one kind have different names. Ids are made of names, with `[ ] / ->` between them; `--from` and filters take lists of them.
fn names(inv: &Inventory, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    for (key, names) in [
        ("node", inv.nodes.iter().map(|n| &n.name).collect::<Vec<_>>()),
        ("service", inv.services.iter().map(|s| &s.name).collect()),
        ("pod", inv.pods.iter().map(|p| &p.name).collect()),
        ("vantage", inv.vantages.iter().map(|v| &v.name).collect()),
        ("database", inv.databases.iter().map(|d| &d.name).collect()),
        ("http", inv.https.iter().map(|h| &h.name).collect()),
        ("vllm", inv.vllms.iter().map(|v| &v.name).collect()),
    ] {
        for (n, name) in names.iter().enumerate() {
            let at = [Step::Key(key), Step::At(n), Step::Key("name")];
            if names[..n].contains(name) {
                wrong(&at, format!("{key} `{}` is defined twice", crate::check::clean(name, LONGEST_NAME)));
            }
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
                let shown = crate::check::clean(name, LONGEST_NAME).replace('\n', " ");
                wrong(&at, format!("`{shown}` is no name: it takes 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`"));
            }
        }
    }
}

fn devices(inv: &Inventory, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    for (table, key, device) in [
        ("overlay", "device", &inv.overlay.device),
        ("overlay", "parent", &inv.overlay.parent),
        ("overlay", "bridge", &inv.overlay.bridge),
        ("tailnet", "device", &inv.tailnet.device),
    ] {
        let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if device.is_empty() || device.len() > LONGEST_DEVICE || !device.chars().all(fits) {
            let shown = crate::check::clean(device, LONGEST_NAME).replace('\n', " ");
            wrong(&[Step::Key(table), Step::Key(key)], format!("`{shown}` is no name of a network device"));
        }
    }
}

fn ports(inv: &Inventory, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    let mut nonzero = |at: &[Step<'_>], port: u16| {
        if port == 0 {
            wrong(at, "port 0 is no port".to_owned());
        }
    };
    nonzero(&[Step::Key("overlay"), Step::Key("port")], inv.overlay.port);
    for (key, ports) in [
        ("service", inv.services.iter().map(|s| s.port).collect::<Vec<_>>()),
        ("database", inv.databases.iter().map(|d| d.port).collect()),
        ("vllm", inv.vllms.iter().map(|v| v.port).collect()),
    ] {
        for (n, port) in ports.into_iter().enumerate() {
            nonzero(&[Step::Key(key), Step::At(n), Step::Key("port")], port);
        }
    }
}

fn nodes(inv: &Inventory, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    for (key, net) in [("pod_cidr", inv.cluster.pod_cidr), ("service_cidr", inv.cluster.service_cidr)] {
        whole(&[Step::Key("cluster"), Step::Key(key)], net, wrong);
    }
    for (n, node) in inv.nodes.iter().enumerate() {
        let at = |key| [Step::Key("node"), Step::At(n), Step::Key(key)];
        whole(&at("pod_cidr"), node.pod_cidr, wrong);
        if !inv.cluster.pod_cidr.contains(&node.pod_cidr) {
            wrong(&at("pod_cidr"), format!("node `{}` has {}, outside of {}", node.name, node.pod_cidr, inv.cluster.pod_cidr));
        }
        for other in &inv.nodes[..n] {
            if node.pod_cidr.contains(&other.pod_cidr) || other.pod_cidr.contains(&node.pod_cidr) {
                let (a, b) = (&node.name, &other.name);
                wrong(&at("pod_cidr"), format!("nodes `{a}` and `{b}` share pod addresses: {} and {}", node.pod_cidr, other.pod_cidr));
            }
            if let Some(address) = node.tailscale.filter(|address| other.tailscale == Some(*address)) {
                wrong(&at("tailscale"), format!("nodes `{}` and `{}` have the same Tailscale address {address}", node.name, other.name));
            }
        }
    }
}

/// A network with bits of a host in it is a typing error: which of both was meant cannot be told.
fn whole(at: &[Step<'_>], net: Ipv4Net, wrong: &mut dyn FnMut(&[Step<'_>], String)) {
    if net.trunc() != net {
        wrong(at, format!("{net} is an address within {}, not a network", net.trunc()));
    }
}

#[cfg(test)]
mod tests {
    use crate::def::Document;
    use crate::def::load::read_inventory;

    const EMPTY: &str = include_str!("../../../tests/data/empty.toml");

    fn found(old: &str, new: &str) -> Vec<String> {
        assert!(EMPTY.contains(old), "{old}");
        let document = Document { path: "i.toml".to_owned(), text: EMPTY.replacen(old, new, 1) };
        read_inventory(&document).err().into_iter().flatten().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn typing_errors_are_named_with_their_line() {
        assert_eq!(found("vni = 1", "vni = 1"), [""; 0]);
        let node_b = "name = \"b\"";
        assert_eq!(found(node_b, "name = \"a\""), ["i.toml:38: node `a` is defined twice"]);
        let no_name = "is no name: it takes 1 to 63 letters, digits, `-`, `_` and `.`";
        for (new, shown) in [("", ""), ("b c]x[", "b c]x["), ("b\\u001b[31m\\u202e", "b\\u{1b}[31m\\u{202e}"), ("a->b,c", "a->b,c")] {
            assert_eq!(found(node_b, &format!("name = \"{new}\"")), [format!("i.toml:38: `{shown}` {no_name}")]);
        }
        let long = found(node_b, &format!("name = \"{}\"", "x".repeat(1_000_000)));
        assert!(long.len() == 1 && long[0].len() < 300, "{:?}", long.iter().map(String::len).collect::<Vec<_>>());
        assert_eq!(found("port = 8472", "port = 0"), ["i.toml:16: port 0 is no port"]);
        assert_eq!(found("\"flannel.1\"", "\"../../x\""), ["i.toml:14: `../../x` is no name of a network device"]);
        assert_eq!(
            found("\"/health\"", "\"health\""),
            ["i.toml:54: service `web` has the health path `health`, which does not begin with /"]
        );
    }

    #[test]
    fn addresses_that_contradict_each_other_are_named() {
        let b = "pod_cidr = \"10.42.1.0/24\"";
        assert_eq!(
            found(b, "pod_cidr = \"10.42.0.128/25\""),
            ["i.toml:45: nodes `b` and `a` share pod addresses: 10.42.0.128/25 and 10.42.0.0/24"]
        );
        assert_eq!(found(b, "pod_cidr = \"10.99.1.0/24\""), ["i.toml:45: node `b` has 10.99.1.0/24, outside of 10.42.0.0/16"]);
        assert_eq!(found(b, "pod_cidr = \"10.42.1.7/24\""), ["i.toml:45: 10.42.1.7/24 is an address within 10.42.1.0/24, not a network"]);
        assert_eq!(found("\"127.0.0.4\"", "\"127.0.0.2\""), ["i.toml:44: nodes `b` and `a` have the same Tailscale address 127.0.0.2"]);
    }
}
