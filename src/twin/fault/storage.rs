//! Object storage refuses a worker, or fails: the network carries every request and every answer, and only a log tells.

use super::Fault;
use crate::twin::Twin;
use futures::future::BoxFuture;

/// The worker: namespace and name.
const WORKER: (&str, &str) = ("apps", "annotations-sink");
/// Objects that it tries to write.
const OBJECTS: [&str; 4] = ["a-0001", "a-0002", "a-0003", "a-0004"];
/// From where the API can be asked.
const ANYWHERE: &[&str] = &["calypso", "tethys", "workstation", "pod:apps/csv-ingestion-worker", "all"];

pub(super) static ACCESS_DENIED: Fault = Fault {
    id: "storage-access-denied",
    layer: 4,
    title: "R2 refuses the key of annotations-sink",
    expects: "storage-access-denied",
    decided_from: ANYWHERE,
    apply: |twin| fail(twin, "SignatureDoesNotMatch", "the request signature we calculated differs"),
    undo: mend,
};

pub(super) static UNAVAILABLE: Fault = Fault {
    id: "storage-unavailable",
    layer: 4,
    title: "R2 answers annotations-sink with errors of its own",
    expects: "storage-unavailable",
    decided_from: ANYWHERE,
    apply: |twin| fail(twin, "InternalError", "we encountered an internal error"),
    undo: mend,
};

/// As boto3 says it, with what such lines must not show: a key and a signed URL.
fn fail<'a>(twin: &'a Twin, code: &'static str, message: &'static str) -> BoxFuture<'a, anyhow::Result<()>> {
    Box::pin(async move {
        for object in OBJECTS {
            let line = format!(
                "ERROR botocore.exceptions.ClientError: An error occurred ({code}) when calling the PutObject operation: {message} \
                 key={object} access_key=AKIA0TWIN0TWIN0TWIN0"
            );
            twin.cluster.logs().write(WORKER.0, WORKER.1, &line);
        }
        Ok(())
    })
}

/// A new pod: the old one's log is gone.
fn mend(twin: &Twin) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        twin.cluster.logs().clear(WORKER.0, WORKER.1);
        Ok(())
    })
}
