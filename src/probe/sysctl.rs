//! `sysctl`: a kernel setting of the vantage's network namespace.

use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Observation, clean};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// More than any setting has.
const MOST: u64 = 4096;

/// A kernel setting of the vantage's network namespace.
pub(super) static KIND: Kind = Kind {
    name: "sysctl",
    root: "sysctl",
    about: "A kernel setting of the vantage's network namespace",
    privilege: None,
    args: &[("key", "dotted name, such as net.ipv4.ip_forward")],
    facts: &[fact("present", "bool", "the setting exists"), fact("value", "number or text", "its value")],
    decode: decode::<Sysctl>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sysctl {
    key: String,
}

#[async_trait]
impl Probe for Sysctl {
    async fn observe(&self, cx: &Context) -> Observation {
        if !is_key(&self.key) {
            return Observation::could_not_look(format!("`{}` is not the name of a kernel setting", self.key));
        }
        // /proc/sys/net shows the network namespace of the thread that opens the file (proc_sys(5)).
        match cx.vantage.net.with(|| read(&self.key)) {
            Ok(result) => self.facts(result),
            Err(error) => Observation::could_not_look(format!("cannot enter the network of {}: {error}", cx.vantage.id)),
        }
    }

    fn target(&self) -> String {
        self.key.clone()
    }
}

impl Sysctl {
    fn facts(&self, result: io::Result<String>) -> Observation {
        let mut seen = Observation::default();
        match result {
            Ok(text) => {
                seen.note("sysctl", format!("{} = {text}", self.key));
                seen.facts.set("present", true).set("value", value(&text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                seen.facts.set("present", false).unknown("value", "there is no such setting");
            }
            Err(error) => {
                seen.facts.set("present", true).unknown("value", format!("cannot be read: {error}"));
            }
        }
        seen
    }
}

/// Letters, digits and a few marks: nothing that could lead out of `/proc/sys`.
fn is_key(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '@' | ':');
    !key.is_empty()
        && key.chars().all(plain)
        && !key.starts_with('/')
        && !key.split('/').any(|part| part.is_empty() || part == "." || part == "..")
}

fn read(key: &str) -> io::Result<String> {
    let path = locate(Path::new("/proc/sys"), key);
    let mut text = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// The file of a setting. Dots separate directories; where that leads nowhere, some of them belong to a name, as in
/// `net.ipv4.conf.flannel.1.rp_filter`. With a slash in the key, slashes separate and dots are part of names (sysctl(8)).
fn locate(root: &Path, key: &str) -> PathBuf {
    if key.contains('/') {
        return root.join(key);
    }
    let parts: Vec<&str> = key.split('.').collect();
    walk(root, &parts).unwrap_or_else(|| root.join(key.replace('.', "/")))
}

fn walk(at: &Path, parts: &[&str]) -> Option<PathBuf> {
    if parts.is_empty() {
        return at.is_file().then(|| at.to_owned());
    }
    if !at.is_dir() {
        return None;
    }
    (1..=parts.len()).find_map(|n| {
        let name = parts[..n].join(".");
        (!name.is_empty() && name != "..").then(|| walk(&at.join(name), &parts[n..])).flatten()
    })
}

fn value(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| Value::from(clean(text, 400)), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::testnet::{self, two_nodes};
    use serde_json::json;

    #[test]
    fn keys_cannot_leave_proc_sys() {
        assert!(is_key("net.ipv4.conf.flannel.1.rp_filter") && is_key("net/ipv4/conf/flannel.1/rp_filter"));
        for bad in ["", "/etc/passwd", "net/../../etc/passwd", "net//ipv4", "net ipv4", "a\nb"] {
            assert!(!is_key(bad), "{bad:?}");
        }
        assert!(locate(Path::new("/proc/sys"), "net....ipv4").starts_with("/proc/sys/net"));
    }

    #[test]
    fn whole_numbers_are_numbers_and_lists_are_text() {
        assert_eq!(value("1"), json!(1));
        assert_eq!(value("0\t2147483647"), json!("0 2147483647"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ns_a_setting_of_the_namespace_also_below_a_name_with_a_dot() {
        if !crate::vantage::netns::testing::in_private() {
            return;
        }
        let nodes = two_nodes().await;
        nodes.tethys.sysctl("net/ipv4/conf/flannel.1/rp_filter", "2");
        nodes.tethys.sysctl("net/ipv4/ip_forward", "0");
        for (key, expected) in [("net.ipv4.conf.flannel.1.rp_filter", json!(2)), ("net.ipv4.ip_forward", json!(0))] {
            let seen = testnet::observe("sysctl", &format!("key = '{key}'"), &nodes.tethys, None).await;
            assert_eq!((seen.facts.get("present"), seen.facts.get("value")), (Some(&json!(true)), Some(&expected)), "{key}");
        }
        let other = testnet::observe("sysctl", "key = 'net.ipv4.ip_forward'", &nodes.calypso, None).await;
        assert_eq!(other.facts.get("value"), Some(&json!(1)));
        let none = testnet::observe("sysctl", "key = 'net.ipv4.no_such_thing'", &nodes.tethys, None).await;
        assert_eq!(none.facts.get("present"), Some(&json!(false)));
    }
}
