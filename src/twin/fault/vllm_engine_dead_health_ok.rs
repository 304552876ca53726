//! vLLM's engine is frozen while its API server goes on answering 200.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "vllm-engine-dead-health-ok",
    layer: 4,
    title: "the vLLM engine is frozen, its API server is not",
    expects: "vllm-engine-dead-health-ok",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.set_vllm_frozen(true);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_vllm_frozen(false);
            Ok(())
        })
    },
};
