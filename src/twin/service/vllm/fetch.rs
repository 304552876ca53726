//! Images that the server fetches itself: whether its host reaches the URL is all that matters, for nothing in the twin
//! serves an image.

use super::request::Refusal;
use crate::probe::net::connect;
use crate::vantage::Net;
use reqwest::Url;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::Instant;

/// `VLLM_IMAGE_FETCH_TIMEOUT`.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host that the server runs on.
#[derive(Clone)]
pub(super) struct Host {
    /// Its network.
    pub(super) net: Net,
    /// What names resolve to there.
    pub(super) names: BTreeMap<String, Ipv4Addr>,
}

/// Why a request with an image at this URL is refused.
pub(super) async fn image(host: &Host, url: &str) -> Refusal {
    let parsed = Url::parse(url).ok();
    let Some((name, port)) = parsed.as_ref().and_then(|u| Some((u.host_str()?, u.port_or_known_default()?))) else {
        return Refusal::not_fetched(url);
    };
    let Some(address) = host.names.get(name).copied().or(name.parse().ok()) else {
        let message = format!("Cannot connect to host {name}:{port} ssl:default [Name or service not known]");
        return Refusal::not_fetched(&message);
    };
    match connect(&host.net, SocketAddrV4::new(address, port), Instant::now() + PATIENCE).await {
        Ok(_) => Refusal::no_image(),
        Err(failed) if failed.word == "TIMEOUT" => Refusal::not_fetched(&format!("Connection timeout to host {url}")),
        Err(_) => {
            Refusal::not_fetched(&format!("Cannot connect to host {name}:{port} ssl:default [Connect call failed ('{address}', {port})]"))
        }
    }
}
