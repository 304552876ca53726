//! What the applications that nobody asks have logged while all is well.

use super::Logs;
use crate::def::Inventory;

/// Of a worker that moves files: levels and numbers, and words that look like trouble only at first sight.
const ALL_IS_WELL: [&str; 5] = [
    "INFO worker started, request timeout 30s, 4 retries",
    "INFO GET object vessels/2025-11-10.csv from bucket vessel-parquet: 200",
    "INFO ingested 503 rows in 1.1 s",
    "INFO idle: last poll timed out without new objects",
    "INFO wrote 503 rows, 0 rejected",
];

/// Writes the logs of all pods that are told by what they log.
pub(super) fn begin(logs: &Logs, inventory: &Inventory) {
    for pod in inventory.pods.iter().filter(|pod| pod.told_by_log) {
        ALL_IS_WELL.iter().for_each(|line| logs.write(&pod.namespace, &pod.name, line));
    }
}
