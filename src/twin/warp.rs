//! WARP on the twin's workstation: a `warp-cli` in its `PATH`, and what that prints.

use super::commands::Commands;
use crate::def::Inventory;
use anyhow::Result;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The command. Its arguments are the name of a file beside it, whose lines it prints. It starts no other program: nothing else
/// need be in `PATH`. Arguments that it does not know it refuses in words, as the real one does.
const SCRIPT: &str = r#"#!/bin/sh
file="${0%/*}/warp-cli $*"
if [ ! -f "$file" ]; then
    echo "error: unrecognized arguments '$*'" >&2
    exit 2
fi
while IFS= read -r line; do
    printf '%s\n' "$line"
done < "$file"
"#;

/// `warp-cli` of a workstation.
#[derive(Debug)]
pub struct WarpCli(Commands);

impl WarpCli {
    /// A command that has no answer to anything.
    pub fn new() -> Result<Self> {
        let commands = Commands::new()?;
        commands.write("warp-cli", SCRIPT, true)?;
        Ok(Self(commands))
    }

    /// The directory that it lies in, for `PATH`.
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// Changes what it prints for some arguments after `--json`, such as `registration show`.
    pub fn answer(&self, arguments: &str, document: &Value) -> Result<()> {
        self.0.write(&format!("warp-cli --json {arguments}"), &format!("{document}\n"), false)
    }
}

/// What of WARP's settings can be wrong.
#[derive(Clone, Debug, Default)]
pub struct WarpSettings {
    /// Ranges that the split tunnel leaves out besides the usual ones.
    pub excluded: Vec<Ipv4Net>,
    /// The fallback list has no entry for the cluster's domain.
    pub without_cluster_domain: bool,
}

/// The command with healthy answers.
pub fn healthy(inv: &Inventory) -> Result<WarpCli> {
    let cli = WarpCli::new()?;
    set(&cli, inv, &WarpSettings::default())?;
    Ok(cli)
}

/// Takes settings over.
pub fn set(cli: &WarpCli, inv: &Inventory, settings: &WarpSettings) -> Result<()> {
    let Some(warp) = &inv.warp else { return Ok(()) };
    let usual = ["169.254.0.0/16", "224.0.0.0/24", "240.0.0.0/4", "fe80::/10"].map(str::to_owned);
    let excluded: Vec<_> = usual.into_iter().chain(settings.excluded.iter().map(ToString::to_string)).collect();
    let excluded: Vec<_> = excluded.into_iter().map(|value| json!({"value": value, "description": ""})).collect();
    let mut fallback = vec![json!({"suffix": "local"}), json!({"suffix": "home.arpa"}), json!({"suffix": "lan"})];
    if !settings.without_cluster_domain {
        fallback.push(json!({"suffix": inv.cluster.domain, "dns_server": [inv.dns.nameserver]}));
    }
    cli.answer("status", &json!({"status": "Connected"}))?;
    cli.answer(
        "settings",
        &json!({"settings": {"operation_mode": "warp", "always_on": true, "switch_locked": false, "split_tunnel_mode": "exclude",
            "split_tunnel_ips": excluded, "split_tunnel_hosts": [], "fallback_domains": fallback}}),
    )?;
    let account = json!({"account_type": "team", "organization": warp.organization});
    cli.answer("registration show", &json!({"registration": {"account": account, "device_id": "twin"}}))
}
