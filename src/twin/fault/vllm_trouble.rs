//! What can be wrong with a model server that runs.

use super::Fault;
use crate::twin::Twin;
use crate::twin::service::vllm::{Traffic, Trouble};
use anyhow::Result;

pub(super) static QUEUE_FULL: Fault = Fault {
    id: "vllm-queue-full",
    layer: 4,
    title: "the model server's queue has its limit and is full: 503",
    expects: "vllm-queueing",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let traffic = Traffic { running: 256, waiting: 64, prompt_per_s: 3_000, generated_per_s: 4_000, ..Traffic::default() };
            twin.servers.model_servers().iter().for_each(|server| server.set_traffic(traffic));
            set(twin, Trouble::QueueFull)
        })
    },
    undo: mend,
};

pub(super) static ENGINE_CRASHED: Fault = Fault {
    id: "vllm-engine-crashed",
    layer: 4,
    title: "the vLLM engine process dies in the middle of its next answer",
    expects: "vllm-engine-crashed",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Trouble::Crash) }),
    undo: mend,
};

pub(super) static METRICS_ENDPOINT_WRONG: Fault = Fault {
    id: "vllm-metrics-endpoint-wrong",
    layer: 4,
    title: "/metrics of the model server answers 200 with nothing in it",
    expects: "vllm-metrics-endpoint-wrong",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Trouble::NoMetrics) }),
    undo: mend,
};

fn mend(twin: &Twin) -> futures::future::BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        twin.servers.model_servers().iter().for_each(|server| server.set_traffic(Traffic::default()));
        set(twin, Trouble::None)
    })
}

fn set(twin: &Twin, trouble: Trouble) -> Result<()> {
    twin.servers.model_servers().iter().for_each(|server| server.set_trouble(trouble));
    Ok(())
}
