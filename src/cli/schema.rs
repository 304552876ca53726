//! `fathom schema`: the JSON Schema of the report.

use super::output;
use anyhow::Result;

pub(super) fn run() -> Result<u8> {
    output::print(&format!("{:#}\n", crate::report::json::schema()))?;
    Ok(0)
}
