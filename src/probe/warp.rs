//! `warp`: Cloudflare WARP on a workstation, by `warp-cli --json`, and what the kernel does with the documented ranges.
//!
//! `warp-cli` reports errors as `{"code": .., "error": ..}` with exit status 0, so only what it prints counts. Whatever is
//! not understood is unknown, never false. Only commands that read are run.

mod settings;

use super::command::Tool;
use super::way::way_to;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::{Facts, Observation, clean};
use crate::vantage::{Transport, Vantage};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};
use settings::Settings;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for one command.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest output that is read.
const MOST: usize = 256 << 10;

/// Cloudflare WARP on a workstation, by `warp-cli --json`, and what the kernel does with the documented ranges.
pub(super) static KIND: Kind = Kind {
    name: "warp",
    root: "warp",
    about: "Cloudflare WARP on a workstation, by `warp-cli --json`, and what the kernel does with the documented ranges",
    privilege: None,
    args: &[
        ("routes", "ranges that must go through WARP"),
        ("device", "WARP's network device"),
        ("domain", "domain that must be resolved by `nameserver`"),
        ("nameserver", "address of the nameserver for it"),
    ],
    facts: &[
        fact("status", "text", "Connected, Disconnected, Connecting, Unable, ..."),
        fact("reason", "text", "why it is not connected, in WARP's words; empty if it gives none"),
        fact("connected", "bool", "the status is Connected"),
        fact("organization", "text", "Zero Trust organisation that it is registered with; empty if it is registered with none"),
        fact("mode", "text", "operation mode: warp, warp+doh, warp+dot, tunnel_only, proxy, doh, dot"),
        fact("tunnels", "bool", "that mode carries IP traffic"),
        fact("split_mode", "text", "`exclude` or `include`"),
        fact("left_out", "list of text", "documented ranges that the split tunnel keeps out of WARP"),
        fact("fallback", "list of text", "suffixes of the fallback list: names that do not go to Cloudflare"),
        fact("domain_suffix", "text", "longest suffix of the fallback list that the domain falls under; empty if none"),
        fact("domain_servers", "list of text", "servers that the list names for it; without any, the workstation's own resolver is asked"),
        fact("domain_ok", "bool", "the domain's names go to the nameserver"),
        fact("routes", "list", "each documented range: cidr, address tried, device, table or error"),
        fact("not_by_warp", "list of text", "documented ranges that the kernel does not send to WARP's device"),
    ],
    decode: decode::<Warp>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Warp {
    routes: Vec<Ipv4Net>,
    device: String,
    domain: String,
    nameserver: Ipv4Addr,
}

#[async_trait]
impl Probe for Warp {
    async fn observe(&self, cx: &Context) -> Observation {
        let mut seen = Observation::default();
        self.kernel(cx, &mut seen).await;
        let (status, settings, registration) =
            tokio::join!(ask(cx, &["status"]), ask(cx, &["settings"]), ask(cx, &["registration", "show"]));
        for (what, answer) in [("status", &status), ("settings", &settings), ("registration show", &registration)] {
            match answer {
                Ok(document) => seen.note("warp-cli", format!("{what}: {}", clean(&document.to_string(), 400))),
                Err(reason) => seen.note("error", format!("warp-cli {what}: {reason}")),
            };
        }
        status_facts(&mut seen.facts, &status);
        registration_facts(&mut seen.facts, &registration);
        self.settings_facts(&mut seen.facts, settings.and_then(|document| Settings::read(&document)));
        seen
    }

    fn target(&self) -> String {
        "warp-cli".to_owned()
    }
}

impl Warp {
    /// By which device the kernel would send to an address of each range.
    async fn kernel(&self, cx: &Context, seen: &mut Observation) {
        let mut list = Vec::new();
        let mut others = Vec::new();
        for cidr in self.routes.iter().take(16) {
            let address = if cidr.contains(&self.nameserver) { self.nameserver } else { cidr.hosts().last().unwrap_or(cidr.network()) };
            let (device, shown) = match way_to(&cx.vantage.net, address, cx.deadline).await {
                Ok(way) => (way.device.clone(), json!({"cidr": cidr, "address": address, "device": way.device, "table": way.table})),
                Err(error) => (String::new(), json!({"cidr": cidr, "address": address, "error": error})),
            };
            if device != self.device {
                others.push(cidr.to_string());
            }
            list.push(shown);
        }
        seen.note("netlink", Value::Array(list.clone()).to_string());
        seen.facts.set("routes", list).set("not_by_warp", others);
    }

    fn settings_facts(&self, facts: &mut Facts, settings: Result<Settings, String>) {
        let settings = match settings {
            Ok(settings) => settings,
            Err(reason) => return facts.rest_unknown(&KIND, &reason),
        };
        let no = "warp-cli's settings do not tell";
        facts.set_or_unknown("mode", settings.mode.as_deref().map(|m| clean(m, 64)), no);
        facts.set_or_unknown("tunnels", settings.mode.as_deref().map(|m| !matches!(m, "doh" | "dot" | "proxy")), no);
        facts.set_or_unknown("split_mode", settings.split_mode.as_deref().map(|m| clean(m, 32)), no);
        let left_out = self.routes.iter().map(|r| Some(settings.leaves_out(*r)?.then(|| r.to_string()))).collect::<Option<Vec<_>>>();
        facts.set_or_unknown("left_out", left_out.map(|l| l.into_iter().flatten().collect::<Vec<_>>()), no);
        facts.set_or_unknown(
            "fallback",
            settings.fallback.as_ref().map(|f| f.iter().map(|d| clean(&d.suffix, 100)).collect::<Vec<_>>()),
            no,
        );
        let found = settings.fallback.as_ref().map(|_| settings.fallback_for(&self.domain));
        facts.set_or_unknown("domain_suffix", found.map(|d| d.map_or(String::new(), |d| clean(&d.suffix, 100))), no);
        let servers = found.map(|d| d.map_or(Vec::new(), |d| d.servers.clone()));
        facts.set_or_unknown("domain_ok", servers.as_ref().map(|s| s.contains(&self.nameserver.to_string())), no);
        facts.set_or_unknown("domain_servers", servers.map(|s| s.iter().map(|s| clean(s, 64)).collect::<Vec<_>>()), no);
    }
}

fn status_facts(facts: &mut Facts, answer: &Result<Value, String>) {
    let status = match answer {
        Ok(document) => document["status"].as_str().ok_or_else(|| "warp-cli's status has an unexpected shape".to_owned()),
        Err(reason) => Err(reason.clone()),
    };
    match status {
        Ok(status) => {
            let reason = answer.as_ref().map(|d| reason(&d["reason"])).unwrap_or_default();
            facts.set("status", clean(status, 64)).set("connected", status == "Connected").set("reason", reason);
        }
        Err(why) => {
            for path in ["status", "connected", "reason"] {
                facts.unknown(path, why.as_str());
            }
        }
    }
}

/// A string, or an object with one key and perhaps a text below it.
fn reason(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text, 200),
        Value::Object(map) => {
            let words = map.iter().take(2).map(|(key, below)| match below.as_str() {
                Some(text) => format!("{key}: {text}"),
                None => key.clone(),
            });
            clean(&words.collect::<Vec<_>>().join(", "), 200)
        }
        _ => String::new(),
    }
}

fn registration_facts(facts: &mut Facts, answer: &Result<Value, String>) {
    match answer {
        Ok(document) => {
            let found = find(document, "organization", 4).map(|o| clean(o.as_str().unwrap_or_default(), 100));
            facts.set_or_unknown("organization", found, "warp-cli's registration does not tell");
        }
        // The error payload of an unregistered device.
        Err(reason) if reason.to_lowercase().contains("registration") => {
            facts.set("organization", "");
        }
        Err(reason) => {
            facts.unknown("organization", reason.as_str());
        }
    }
}

/// A key at any depth up to a bound.
fn find<'a>(value: &'a Value, key: &str, depth: usize) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| if depth == 0 { None } else { map.values().find_map(|v| find(v, key, depth - 1)) })
}

/// What `warp-cli --json ARGS` prints. The error is a clause: not installed, not in time, no JSON, or WARP's own error.
async fn ask(cx: &Context, args: &[&str]) -> Result<Value, String> {
    let bytes = told(&cx.vantage, args, cx.deadline.min(Instant::now() + PATIENCE)).await?;
    read(&String::from_utf8_lossy(&bytes))
}

async fn told(vantage: &Vantage, args: &[&str], until: Instant) -> Result<Vec<u8>, String> {
    let path = vantage.files.path.as_deref();
    if path.is_none() && vantage.transport != Transport::Local {
        return Err("no warp-cli is known at this vantage".to_owned());
    }
    let arguments = [&["--json"], args].concat();
    Tool { program: "warp-cli", arguments: &arguments, path, most: MOST, until }.output().await
}

fn read(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(map)) => match map.get("error").and_then(Value::as_str) {
            Some(error) => {
                let code = map.get("code").and_then(Value::as_str).unwrap_or_default();
                Err(clean(&format!("WARP says: {code} {error}"), 300))
            }
            None => Ok(Value::Object(map)),
        },
        Ok(_) => Err("warp-cli printed something that is not a JSON object".to_owned()),
        Err(_) => Err(clean(&format!("warp-cli printed no JSON: {}", text.trim()), 200)),
    }
}

/// For fuzzers: ranges and suffixes of the settings that a text holds.
pub(super) fn kept(bytes: &[u8]) -> usize {
    let settings = serde_json::from_slice::<Value>(bytes).ok().and_then(|document| Settings::read(&document).ok()).unwrap_or_default();
    settings.split.map_or(0, |s| s.len()) + settings.fallback.map_or(0, |f| f.len())
}

#[cfg(test)]
mod tests;
