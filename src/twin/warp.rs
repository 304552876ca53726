//! WARP on the twin's workstation: what `warp-cli --json` prints there.

use crate::def::Inventory;
use crate::vantage::WarpAnswers;
use ipnet::Ipv4Net;
use serde_json::json;

/// What of WARP's settings can be wrong.
#[derive(Clone, Debug, Default)]
pub struct WarpSettings {
    /// Ranges that the split tunnel leaves out besides the usual ones.
    pub excluded: Vec<Ipv4Net>,
    /// The fallback list has no entry for the cluster's domain.
    pub without_cluster_domain: bool,
}

/// The healthy answers.
pub fn answers(inv: &Inventory) -> WarpAnswers {
    let answers = WarpAnswers::default();
    set(&answers, inv, &WarpSettings::default());
    answers
}

/// Takes settings over.
pub fn set(answers: &WarpAnswers, inv: &Inventory, settings: &WarpSettings) {
    let Some(warp) = &inv.warp else { return };
    let usual = ["169.254.0.0/16", "224.0.0.0/24", "240.0.0.0/4", "fe80::/10"].map(str::to_owned);
    let excluded: Vec<_> = usual.into_iter().chain(settings.excluded.iter().map(ToString::to_string)).collect();
    let excluded: Vec<_> = excluded.into_iter().map(|value| json!({"value": value, "description": ""})).collect();
    let mut fallback = vec![json!({"suffix": "local"}), json!({"suffix": "home.arpa"}), json!({"suffix": "lan"})];
    if !settings.without_cluster_domain {
        fallback.push(json!({"suffix": inv.cluster.domain, "dns_server": [inv.dns.nameserver]}));
    }
    answers.set("status", json!({"status": "Connected"}).to_string());
    answers.set(
        "settings",
        json!({"settings": {"operation_mode": "warp", "always_on": true, "switch_locked": false, "split_tunnel_mode": "exclude",
            "split_tunnel_ips": excluded, "split_tunnel_hosts": [], "fallback_domains": fallback}})
        .to_string(),
    );
    let account = json!({"account_type": "team", "organization": warp.organization});
    answers.set("registration show", json!({"registration": {"account": account, "device_id": "twin"}}).to_string());
}
