//! The link of the model server's host is narrow: everything works, and everything takes its time.

use super::Fault;

/// 240 kbit/s: a page of a megabyte would take the better part of a minute.
const BYTES_PER_S: u32 = 30_000;
/// 320 kbit/s: the sample page takes some seconds.
const UPLOAD_BYTES_PER_S: u32 = 40_000;

pub(super) static FAULT: Fault = Fault {
    id: "vllm-slow-path",
    layer: 4,
    title: "the link of the model server's host carries 30 kB/s",
    expects: "vllm-slow-path",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { twin.host("dgx")?.narrow("eth0", BYTES_PER_S).await }),
    undo: |twin| Box::pin(async move { twin.host("dgx")?.widen("eth0").await }),
};

pub(super) static UPLOAD: Fault = Fault {
    id: "vllm-slow-upload",
    layer: 4,
    title: "the link to the model server's host carries 40 kB/s, the one from it whatever comes",
    expects: "vllm-slow-path",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { twin.host("home")?.narrow("to-dgx", UPLOAD_BYTES_PER_S).await }),
    undo: |twin| Box::pin(async move { twin.host("home")?.widen("to-dgx").await }),
};
