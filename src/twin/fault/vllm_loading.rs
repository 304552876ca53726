//! The model server's service loads its model: nothing listens yet.

use super::Fault;

pub(super) static FAULT: Fault = Fault {
    id: "vllm-loading",
    layer: 4,
    title: "the model server is loading: its port is closed",
    expects: "vllm-loading",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            for server in twin.servers.model_servers() {
                server.close().await;
            }
            Ok(())
        })
    },
    undo: |twin| Box::pin(async move { Ok(twin.servers.model_servers().iter().try_for_each(|server| server.open())?) }),
};
