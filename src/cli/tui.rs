//! `fathom` without a command: the terminal interface.

use super::Common;
use anyhow::Result;

pub(super) fn run(_common: &Common) -> Result<u8> {
    anyhow::bail!("the terminal interface is not merged yet")
}
