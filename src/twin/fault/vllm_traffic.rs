//! Other clients load the model server: more requests than it can run, prompts so long that nothing else runs, or more tokens
//! than its cache holds.

use super::Fault;
use crate::twin::Twin;
use crate::twin::service::vllm::Traffic;
use anyhow::Result;
use std::time::Duration;

/// How long a new request waits: longer than any check's deadline.
const FOR_EVER: Duration = Duration::from_secs(600);

/// A full batch that generates at a normal rate, and a queue.
const SATURATED: Traffic =
    Traffic { running: 256, waiting: 40, prompt_per_s: 3_000, generated_per_s: 4_000, preempted_per_s: 0, kv_cache: 0.6, queue: FOR_EVER };
/// Prefill after prefill of long prompts, and hardly a token.
const PREFILLING: Traffic =
    Traffic { running: 2, waiting: 5, prompt_per_s: 16_000, generated_per_s: 2, preempted_per_s: 0, kv_cache: 0.3, queue: FOR_EVER };
/// A KV cache without room: requests are stopped half way, so that others can go on.
const PREEMPTING: Traffic =
    Traffic { running: 48, waiting: 16, prompt_per_s: 900, generated_per_s: 600, preempted_per_s: 4, kv_cache: 0.998, queue: FOR_EVER };

pub(super) static QUEUEING: Fault = Fault {
    id: "vllm-queueing",
    layer: 4,
    title: "other clients have filled the model server's queue",
    expects: "vllm-queueing",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, SATURATED) }),
    undo: |twin| Box::pin(async move { set(twin, Traffic::default()) }),
};

pub(super) static LONG_PREFILL: Fault = Fault {
    id: "vllm-long-prefill-hol",
    layer: 4,
    title: "long prompts of other clients hold up the model server",
    expects: "vllm-long-prefill-hol",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, PREFILLING) }),
    undo: |twin| Box::pin(async move { set(twin, Traffic::default()) }),
};

pub(super) static PREEMPTING_REQUESTS: Fault = Fault {
    id: "vllm-preempting",
    layer: 4,
    title: "the model server's KV cache is full, and it stops requests half way",
    expects: "vllm-preempting",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, PREEMPTING) }),
    undo: |twin| Box::pin(async move { set(twin, Traffic::default()) }),
};

fn set(twin: &Twin, traffic: Traffic) -> Result<()> {
    twin.servers.model_servers().iter().for_each(|server| server.set_traffic(traffic));
    Ok(())
}
