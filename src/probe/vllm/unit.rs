//! What the service of a model server has logged: only on its own host, where no port answers but the journal does.

use crate::check::{Observation, clean, secret};
use crate::probe::command::Tool;
use crate::vantage::{Net, Transport, Vantage};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use tokio::time::Instant;

/// The facts, which nobody else's place can know.
pub(super) const FACTS: [&str; 3] = ["unit.out_of_memory", "unit.restarts", "unit.last"];
/// How long journalctl may take.
const TIME: Duration = Duration::from_secs(3);
/// Most bytes of the lines that are asked for. The newest come last, so that the first of them would tell nothing alone.
const MOST_BYTES: usize = 1 << 20;
/// How a start that finds too little GPU memory says so, in lower case. `out of memory` alone is none of them: a server that runs
/// says that too.
const START_FAILS: &[&str] = &["no available memory for the cache blocks", "less than desired gpu memory utilization"];
/// A start that got through: what was said before it is over.
const STARTED: &str = "application startup complete";

/// Reads the unit's journal of the last half hour, if this machine has the server's address.
pub(super) async fn look(vantage: &Vantage, address: Ipv4Addr, unit: Option<&str>, deadline: Instant, seen: &mut Observation) {
    match read(vantage, address, unit, deadline).await {
        Ok(text) => record(&text, seen),
        Err(reason) => FACTS.iter().for_each(|path| _ = seen.facts.unknown(path, reason.as_str())),
    }
}

async fn read(vantage: &Vantage, address: Ipv4Addr, unit: Option<&str>, deadline: Instant) -> Result<String, String> {
    let unit = unit.ok_or("the inventory names no systemd unit")?;
    if !has(&vantage.net, address) {
        return Err(format!("only the journal on {address} tells"));
    }
    match (&vantage.files.journal, vantage.transport) {
        (Some(source), _) => source.read(),
        (None, Transport::Local) => journal(unit, deadline).await,
        (None, _) => Err("the journal is read only on the machine that fathom runs on".to_owned()),
    }
}

/// Whether a network has this address itself. Binding a socket sends nothing.
fn has(net: &Net, address: Ipv4Addr) -> bool {
    net.with(|| UdpSocket::bind((address, 0))).is_ok_and(|bound| bound.is_ok())
}

async fn journal(unit: &str, deadline: Instant) -> Result<String, String> {
    let arguments = ["--unit", unit, "--since=-30min", "--lines=300", "--output=cat", "--no-pager", "--quiet"];
    let until = deadline.min(Instant::now() + TIME);
    let bytes = Tool { program: "journalctl", arguments: &arguments, path: None, most: MOST_BYTES, until }.output().await?;
    // Without rights it shows nothing of system units, which is not the same as that there is nothing.
    if bytes.trim_ascii().is_empty() {
        return Err(format!("the journal shows nothing of {unit}: no rights to it, or no such unit"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn record(text: &str, seen: &mut Observation) {
    let lower = text.to_lowercase();
    let since = lower.lines().rev().take_while(|line| !line.contains(STARTED)).count();
    let lines: Vec<&str> = text.lines().rev().take(since).filter(|line| fails(line)).collect();
    let last = lines.first().map(|line| clean(&secret::mask_words(line), 300)).unwrap_or_default();
    seen.note("journal", format!("{} lines, {} of them of starts without memory: {last}", text.lines().count(), lines.len()));
    seen.facts.set("unit.out_of_memory", lines.len()).set("unit.restarts", restarts(text)).set("unit.last", last);
}

fn fails(line: &str) -> bool {
    let line = line.to_lowercase();
    START_FAILS.iter().any(|words| line.contains(words))
}

/// systemd's own count, `restart counter is at 7.`, the last one; 0 if it has not restarted the unit.
fn restarts(text: &str) -> u64 {
    let counter = |line: &str| line.rsplit_once("restart counter is at ").and_then(|(_, n)| n.trim_end_matches('.').parse().ok());
    text.lines().rev().find_map(counter).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::vantage;
    use super::*;
    use crate::vantage::Source;
    use serde_json::json;

    async fn look_at(address: Ipv4Addr, text: &str) -> Observation {
        let mut here = vantage("");
        here.files.journal = Some(Source::Text(text.to_owned()));
        let mut seen = Observation::default();
        look(&here, address, Some("vllm.service"), Instant::now() + Duration::from_secs(2), &mut seen).await;
        seen
    }

    #[tokio::test]
    async fn a_start_that_fails_over_and_over_says_why() {
        let text = "Started vllm.service.\nValueError: No available memory for the cache blocks. Try increasing it.\n\
            vllm.service: Scheduled restart job, restart counter is at 6.\nStarted vllm.service.\n\
            ValueError: Free memory on device (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9)\n\
            vllm.service: Scheduled restart job, restart counter is at 7.\n";
        let facts = look_at(Ipv4Addr::LOCALHOST, text).await.facts;
        assert_eq!((facts.get("unit.out_of_memory"), facts.get("unit.restarts")), (Some(&json!(2)), Some(&json!(7))));
        assert!(facts.get("unit.last").unwrap().as_str().unwrap().contains("3.1/79.1 GiB"));
        let loading = look_at(Ipv4Addr::LOCALHOST, "Started vllm.service.\nLoading safetensors checkpoint shards: 50%\n").await.facts;
        assert_eq!((loading.get("unit.out_of_memory"), loading.get("unit.last")), (Some(&json!(0)), Some(&json!(""))));
    }

    #[tokio::test]
    async fn memory_that_ran_out_later_or_is_there_again_fails_no_start() {
        let count = async |text: &str| look_at(Ipv4Addr::LOCALHOST, text).await.facts.get("unit.out_of_memory").cloned();
        let failed = "ValueError: No available memory for the cache blocks.\n";
        let up = "INFO:     Application startup complete.\n";
        assert_eq!(count("torch.OutOfMemoryError: CUDA out of memory.\nStarted vllm.service.\n").await, Some(json!(0)));
        assert_eq!(count(&format!("{failed}{up}Started vllm.service.\n")).await, Some(json!(0)));
        assert_eq!(count(&format!("{failed}{up}{failed}")).await, Some(json!(1)));
    }

    #[tokio::test]
    async fn nobody_else_can_know() {
        // TEST-NET-1 (RFC 5737): no machine has it.
        let facts = look_at(Ipv4Addr::new(192, 0, 2, 77), "No available memory for the cache blocks").await.facts;
        assert_eq!(facts.unknowns()["unit.out_of_memory"], "only the journal on 192.0.2.77 tells");
    }
}
