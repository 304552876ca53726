//! What `warp-cli --json settings` says, in all its shapes.

use ipnet::Ipv4Net;
use serde_json::Value;

/// Entries that are looked at; WARP allows some hundreds.
const MOST: usize = 4096;

/// The settings that matter here; `None` is not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) mode: Option<String>,
    pub(super) split_mode: Option<String>,
    pub(super) split: Option<Vec<Ipv4Net>>,
    pub(super) fallback: Option<Vec<Fallback>>,
}

/// A suffix whose names do not go to Cloudflare, and the servers that get them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fallback {
    pub(super) suffix: String,
    pub(super) servers: Vec<String>,
}

impl Settings {
    /// Reads the document: the settings lie under `settings`, or at the top.
    pub(super) fn read(document: &Value) -> Result<Self, String> {
        let inner = document.get("settings").filter(|s| s.is_object()).unwrap_or(document);
        let text = |keys: &[&str]| keys.iter().find_map(|k| inner.get(*k)?.as_str()).map(|t| t.trim().to_lowercase());
        let list = |key: &str| inner.get(key).and_then(Value::as_array).map(|l| l.iter().take(MOST));
        let settings = Self {
            mode: text(&["operation_mode", "mode"]),
            split_mode: text(&["split_tunnel_mode"]).filter(|m| m == "exclude" || m == "include"),
            // IPv6 prefixes and names cannot hold an IPv4 range.
            split: list("split_tunnel_ips").map(|l| l.filter_map(|e| prefix(named(e, &["value", "address"])?)).collect()),
            fallback: list("fallback_domains").map(|l| l.filter_map(fallback).collect()),
        };
        if settings.mode.is_none() && settings.split_mode.is_none() && settings.fallback.is_none() {
            return Err("warp-cli's settings have an unexpected shape".to_owned());
        }
        Ok(settings)
    }

    /// Whether some of a range is kept out of the tunnel.
    pub(super) fn leaves_out(&self, range: Ipv4Net) -> Option<bool> {
        let split = self.split.as_ref()?;
        match self.split_mode.as_deref()? {
            "include" => Some(!split.iter().any(|s| s.contains(&range))),
            _ => Some(split.iter().any(|s| s.contains(&range) || range.contains(s))),
        }
    }

    /// The entry with the longest suffix that a domain falls under.
    pub(super) fn fallback_for(&self, domain: &str) -> Option<&Fallback> {
        let falls_under = |f: &&Fallback| domain == f.suffix || domain.strip_suffix(&f.suffix).is_some_and(|head| head.ends_with('.'));
        self.fallback.as_ref()?.iter().filter(falls_under).max_by_key(|f| f.suffix.len())
    }
}

/// A text, or a text under one of some keys of an object.
fn named<'a>(entry: &'a Value, keys: &[&str]) -> Option<&'a str> {
    entry.as_str().or_else(|| keys.iter().find_map(|k| entry.get(*k)?.as_str()))
}

fn prefix(text: &str) -> Option<Ipv4Net> {
    text.parse().ok().or_else(|| Some(Ipv4Net::from(text.parse::<std::net::Ipv4Addr>().ok()?)))
}

fn fallback(entry: &Value) -> Option<Fallback> {
    let suffix = named(entry, &["suffix", "domain", "value"])?.trim_matches('.').to_lowercase();
    let servers = ["dns_server", "dns_servers", "servers"].iter().find_map(|k| entry.get(*k));
    let servers = match servers {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().take(16).filter_map(|s| s.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    (!suffix.is_empty()).then_some(Fallback { suffix, servers })
}
