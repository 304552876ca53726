//! What goes wrong at a model server only when it is sent a page.

use super::Fault;
use crate::twin::Twin;
use crate::twin::nft::{Batch, Hook, Rule};
use crate::twin::service::vllm::Trouble;
use anyhow::{Context, Result};
use futures::future::BoxFuture;
use ipnet::Ipv4Net;

/// The table that holds the dead egress.
const TABLE: &str = "lan-filter";
/// A context that text fits into, and a page does not.
const SHORT: u32 = 512;
/// What preparing a page costs a busy API server.
const PREPROCESSING_MS: u32 = 4_500;

pub(super) static OOM_RUN: Fault = Fault {
    id: "vllm-oom-run",
    layer: 4,
    title: "the model server runs out of GPU memory when an image comes",
    expects: "vllm-oom-run",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Trouble::OutOfMemory) }),
    undo: mend,
};

pub(super) static REPETITION: Fault = Fault {
    id: "vllm-ocr-repetition",
    layer: 4,
    title: "the model server runs without its no-repeat n-gram processor, and pages never end",
    expects: "vllm-ocr-repetition",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Trouble::Repetition) }),
    undo: mend,
};

pub(super) static CPU_BOUND: Fault = Fault {
    id: "vllm-cpu-bound-preprocessing",
    layer: 4,
    title: "the model server's API process needs seconds to prepare an image",
    expects: "vllm-cpu-bound-preprocessing",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| Box::pin(async move { set(twin, Trouble::SlowPreprocessing(PREPROCESSING_MS)) }),
    undo: mend,
};

pub(super) static TOO_LONG: Fault = Fault {
    id: "vllm-request-too-long",
    layer: 4,
    title: "the model server was started with a context too short for a page",
    expects: "vllm-request-too-long",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            twin.servers.model_servers().iter().for_each(|server| server.set_max_model_len(SHORT));
            Ok(())
        })
    },
    undo: |twin| {
        Box::pin(async move {
            for (server, documented) in twin.servers.model_servers().iter().zip(&twin.inventory.vllms) {
                server.set_max_model_len(documented.max_model_len.unwrap_or(8192));
            }
            Ok(())
        })
    },
};

pub(super) static IMAGE_FETCH: Fault = Fault {
    id: "vllm-image-fetch",
    layer: 4,
    title: "the home router drops what the model server's host sends to the internet",
    expects: "vllm-image-fetch",
    decided_from: &["calypso", "workstation", "all"],
    apply: |twin| {
        Box::pin(async move {
            let address = twin.inventory.vllms.first().context("the inventory has no model server")?.address;
            let batch = Batch::replace(TABLE).fresh().chain("forward", "filter", Hook::Forward, 0);
            let rule = Rule::new().from(Ipv4Net::from(address), true).out_by("wan").counted().drop();
            Ok(batch.rule("forward", rule).commit(&twin.host("home")?.net)?)
        })
    },
    undo: |twin| Box::pin(async move { Ok(Batch::replace(TABLE).removed().commit(&twin.host("home")?.net)?) }),
};

fn mend(twin: &Twin) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move { set(twin, Trouble::None) })
}

fn set(twin: &Twin, trouble: Trouble) -> Result<()> {
    twin.servers.model_servers().iter().for_each(|server| server.set_trouble(trouble));
    Ok(())
}
