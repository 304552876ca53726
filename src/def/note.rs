//! What an inventory states that is no fault of the file, but can't do what it is there for: notes, printed by `fathom lint`.

use super::document::{Document, Finding, Step};
use super::inventory::{AllowlistEntry, Database, Inventory};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// All notes on an inventory.
pub fn notes(inv: &Inventory, doc: &Document) -> Vec<Finding> {
    let mut notes = Vec::new();
    for (n, database) in inv.databases.iter().enumerate() {
        for (entry, message) in allowlist(database, inv.egress.address) {
            let steps = [Step::Key("database"), Step::At(n), Step::Key("allowlist"), Step::At(entry), Step::Key("cidr")];
            notes.push(doc.finding(doc.line_of(&steps), message));
        }
    }
    for (n, worker) in inv.workers.iter().enumerate() {
        let mut note = |key: &str, message: String| {
            notes.push(doc.finding(doc.line_of(&[Step::Key("worker"), Step::At(n), Step::Key(key)]), message));
        };
        let host = reqwest::Url::parse(&worker.fetches).ok().and_then(|url| url.host_str()?.parse().ok());
        if host.is_some_and(never_on_the_internet) {
            let message = format!(
                "the Cloudflare Worker `{}` fetches a private address: Workers reach none without Workers VPC or a tunnel's host name \
                 (workers-to-rfc1918)",
                worker.name
            );
            note("fetches", message);
        }
        if worker.sends_pdf_as_image {
            let message = format!(
                "the Cloudflare Worker `{}` passes a PDF as image_url: vLLM takes images only and answers 400 `cannot identify image \
                 file`; render its pages first (vllm-image-fetch)",
                worker.name
            );
            note("sends_pdf_as_image", message);
        }
    }
    notes
}

/// Entries of an allowlist that do nothing, by index.
fn allowlist(database: &Database, egress: Ipv4Addr) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let public = database.address.is_none_or(|a| !never_on_the_internet(a));
    for (n, entry) in database.allowlist.iter().enumerate() {
        if public && never_on_the_internet(entry.cidr.network()) {
            found.push((n, format!("{} can never match: {} is on the public internet{}", entry.cidr, database.name, pending(entry))));
        }
        if let Some(other) = database.allowlist[..n].iter().find(|other| overlap(&other.cidr, &entry.cidr)) {
            let message =
                format!("{} overlaps {}: the provider refuses such a pair, and the narrower one adds nothing", entry.cidr, other.cidr);
            found.push((n, message));
        }
    }
    if !database.allowlist.is_empty() && !database.allowlist.iter().any(|entry| entry.cidr.contains(&egress)) {
        found.push((0, format!("no entry of {}'s allowlist holds the cluster's egress address {egress}", database.name)));
    }
    found
}

fn pending(entry: &AllowlistEntry) -> &'static str {
    if entry.pending_removal { " (documented as pending removal)" } else { "" }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

/// Private (RFC 1918), shared (RFC 6598), loopback or link-local: no packet with such a source crosses the internet.
fn never_on_the_internet(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || address.is_loopback() || address.is_link_local() || (a == 100 && (64..128).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::load::read_inventory;

    fn of(change: impl Fn(&str) -> String) -> Vec<String> {
        let document = Document { path: "x.toml".into(), text: change(include_str!("../../assets/oceanid.toml")) };
        notes(&read_inventory(&document).unwrap(), &document).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_documented_network_has_three() {
        let notes = of(str::to_owned);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].contains("192.168.2.80/32 can never match") && notes[0].contains("pending removal"), "{notes:?}");
        assert!(notes[1].contains("workers-to-rfc1918") && notes[2].contains("PDF as image_url"), "{notes:?}");
        let images = of(|text| text.replace("sends_pdf_as_image = true", "sends_pdf_as_image = false"));
        assert!(!images.iter().any(|note| note.contains("PDF")), "{images:?}");
    }

    #[test]
    fn overlaps_and_a_missing_egress_address_are_noted() {
        let open = of(|text| text.replace("\"191.101.1.3/32\"", "\"0.0.0.0/0\""));
        assert!(open.iter().any(|note| note.contains("0.0.0.0/0 overlaps 157.173.210.123/32")), "{open:?}");
        let gone = of(|text| text.replace("\"157.173.210.123/32\"", "\"198.51.100.7/32\""));
        assert!(gone.iter().any(|note| note.contains("holds the cluster's egress address 157.173.210.123")), "{gone:?}");
    }
}
