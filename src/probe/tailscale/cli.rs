//! `tailscale status --json`, where tailscaled's socket is somewhere else or not open to us: it prints the LocalAPI's document.

use crate::probe::Context;
use crate::probe::command::Tool;
use crate::vantage::Transport;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest document that is read, as by LocalAPI.
const MOST: usize = 4 << 20;

/// The document. The error is a clause.
pub(super) async fn status(cx: &Context) -> Result<Value, String> {
    let path = cx.vantage.files.path.as_deref();
    if path.is_none() && cx.vantage.transport != Transport::Local {
        return Err("no command tailscale is known at this vantage".to_owned());
    }
    let until = cx.deadline.min(Instant::now() + PATIENCE);
    let bytes = Tool { program: "tailscale", arguments: &["status", "--json"], path, most: MOST, until }.output().await?;
    serde_json::from_slice(&bytes).map_err(|_| "the command tailscale printed no JSON".to_owned())
}
