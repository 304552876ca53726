//! The model server finds too little GPU memory, over and over: nothing listens, and only its own host's journal says why.

use super::Fault;

/// Two starts as systemd and vLLM log them.
const JOURNAL: &str = "Started deepseek-ocr-vllm.service - vLLM.\n\
    ERROR EngineCore failed to start.\n\
    ValueError: Free memory on device (3.12/79.11 GiB) on startup is less than desired GPU memory utilization (0.9, 71.2 GiB).\n\
    deepseek-ocr-vllm.service: Main process exited, code=exited, status=1/FAILURE\n\
    deepseek-ocr-vllm.service: Scheduled restart job, restart counter is at 11.\n\
    Started deepseek-ocr-vllm.service - vLLM.\n\
    ERROR EngineCore failed to start.\n\
    ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.\n\
    deepseek-ocr-vllm.service: Main process exited, code=exited, status=1/FAILURE\n\
    deepseek-ocr-vllm.service: Scheduled restart job, restart counter is at 12.\n";

/// From elsewhere it looks like a server that loads: only the journal on the server's own host tells. That host is no vantage of the
/// inventory (on it fathom takes itself for the workstation, and most of a whole run means nothing there), so no set is named; the
/// matrix asks the one check from there.
pub(super) static FAULT: Fault = Fault {
    id: "vllm-oom-start",
    layer: 4,
    title: "the model server finds too little GPU memory to start, again and again",
    expects: "vllm-oom-start",
    decided_from: &[],
    apply: |twin| {
        Box::pin(async move {
            for server in twin.servers.model_servers() {
                server.close().await;
            }
            twin.servers.set_model_journal(JOURNAL);
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            twin.servers.set_model_journal(crate::twin::servers::STARTED);
            Ok(twin.servers.model_servers().iter().try_for_each(|server| server.open())?)
        })
    },
};
