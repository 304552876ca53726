//! `fathom twin`: faults, hosts, a shell inside.

use super::session::{enter_twin, load};
use super::{Common, TwinCommand, output};
use crate::twin::{Twin, fault};
use crate::vantage::Vantage;
use anyhow::{Context, Result, anyhow};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt::Write;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

pub(super) fn run(common: &Common, command: TwinCommand) -> Result<u8> {
    match command {
        TwinCommand::Faults { json } => faults(json),
        TwinCommand::Hosts => hosts(common),
        TwinCommand::Shell { host, command } => shell(common, &host, &command),
    }
}

fn faults(json: bool) -> Result<u8> {
    let list = fault::list();
    if json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&list)?))?;
        return Ok(0);
    }
    let mut out = String::new();
    for fault in list {
        writeln!(out, "{:<32} layer {}  {}", fault.id, fault.layer, fault.title)?;
        let expected = fault.expects.map_or("no fault: nothing is claimed".to_owned(), |cause| format!("diagnosed as {cause}"));
        let from = match fault.decided_from {
            [] => "the place of the fault itself, which --from cannot name".to_owned(),
            sets => sets.join(" or "),
        };
        writeln!(out, "{:<32} {expected} from {from}", "")?;
    }
    output::print(&out)?;
    Ok(0)
}

fn hosts(common: &Common) -> Result<u8> {
    let (_runtime, twin) = start(common)?;
    let mut out = String::new();
    twin.host_names().iter().try_for_each(|name| writeln!(out, "{name}"))?;
    output::print(&out)?;
    Ok(0)
}

fn start(common: &Common) -> Result<(tokio::runtime::Runtime, Twin)> {
    let catalog = load(common)?;
    let faults = fault::parse(common.twin.as_deref().unwrap_or_default()).map_err(|e| anyhow!(e))?;
    enter_twin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let twin = runtime.block_on(Twin::start(catalog.inventory.clone(), &faults)).context("the twin did not come up")?;
    Ok((runtime, twin))
}

/// The vantage's kubeconfig in memory, inherited by the shell and its children: nothing of it stays behind.
fn kubeconfig(vantage: &Vantage) -> Option<OwnedFd> {
    let text = vantage.files.kubeconfig.as_ref()?.read().ok()?;
    let file = std::fs::File::from(memfd_create("kubeconfig", MFdFlags::empty()).ok()?);
    (&file).write_all(text.as_bytes()).ok()?;
    Some(file.into())
}

fn shell(common: &Common, host: &str, command: &[String]) -> Result<u8> {
    let (_runtime, twin) = start(common)?;
    let net = twin.net(host).ok_or_else(|| anyhow!("the twin has no host `{host}`; it has {}", twin.host_names().join(", ")))?.clone();
    let default = [std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())];
    let (program, args) = command.split_first().unwrap_or((&default[0], &[]));
    let mut child = Command::new(program);
    child.args(args).env("PS1", format!("{host}# "));
    let vantage = twin.vantages().into_iter().find(|v| v.id == host);
    if let Some(path) = vantage.as_ref().and_then(|v| v.files.path.clone()) {
        // The host's own commands come first; the machine's are what is left to look with.
        let others = std::env::var_os("PATH").unwrap_or_default();
        child.env("PATH", std::env::join_paths(std::iter::once(path).chain(std::env::split_paths(&others)))?);
    }
    let kubeconfig = vantage.as_ref().and_then(kubeconfig);
    if let Some(file) = &kubeconfig {
        child.env("KUBECONFIG", format!("/proc/self/fd/{}", file.as_raw_fd()));
    }
    // The child enters the host's namespace between fork and exec; only async-signal-safe calls are made there.
    // SAFETY: setns(2) on an open descriptor is async-signal-safe and touches no memory of the parent.
    unsafe {
        child.pre_exec(move || net.enter());
    }
    let status = child.status().with_context(|| format!("cannot run {program}"))?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}
