//! The model is served under another name than the documented one.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "vllm-wrong-model-name",
    layer: 4,
    title: "the model server serves its model under another name",
    expects: "vllm-wrong-model-name",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.model_servers().iter().for_each(|server| server.set_model("deepseek-ocr"));
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            for (server, documented) in twin.servers.model_servers().iter().zip(&twin.inventory.vllms) {
                server.set_model(&documented.model);
            }
            Ok(())
        })
    },
};
