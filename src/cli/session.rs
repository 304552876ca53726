//! What commands that run checks share: definitions, twin, vantages, runtime.

use super::Common;
use crate::def::{Catalog, Finding, Sources};
use crate::twin::{self, Twin};
use crate::vantage::privilege::Capabilities;
use crate::vantage::{Source, Vantage, select};
use anyhow::{Context, Result, anyhow, bail};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the end waits for threads that the kernel does not give back, such as a read from a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// The runtime; its end is bounded, however it is reached.
pub(super) struct Bounded(Option<Runtime>);

impl std::ops::Deref for Bounded {
    type Target = Runtime;
    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken by drop alone")
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// Everything that is ready before a run begins.
pub(super) struct Session {
    pub(super) catalog: Arc<Catalog>,
    pub(super) vantages: Vec<Arc<Vantage>>,
    pub(super) runtime: Bounded,
    /// Interrupts since the program began: one that came while the twin was built is not lost.
    pub(super) interrupts: Interrupts,
    /// Keeps the twin up; dropped last.
    twin: Option<Twin>,
}

impl Session {
    /// Loads the definitions, enters the twin if it was asked for, and resolves `--from`. On a real machine, capabilities that no
    /// probe needs are given up here.
    pub(super) fn open(common: &Common) -> Result<Self> {
        let catalog = Arc::new(load(common)?);
        let faults = common.twin.as_deref().map(twin::fault::parse).transpose().map_err(|e| anyhow!(e))?;
        if faults.is_some() && common.inventory.is_some() {
            bail!("--twin rebuilds the built-in inventory: it cannot be combined with --inventory");
        }
        if faults.is_some() {
            enter_twin()?;
        }
        let from = common.from.as_deref();
        let mut vantages = Vec::new();
        if faults.is_none() {
            vantages = select::on_this_machine(from, &catalog.inventory).map_err(|e| anyhow!(e))?;
            // Threads have capabilities of their own: this must come before there are any.
            give_up_all_but(Capabilities::for_probing(&vantages));
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build().context("cannot start the runtime")?;
        let interrupts = runtime.block_on(async { Interrupts::listen() })?;
        let twin = match faults {
            Some(faults) => Some(runtime.block_on(Twin::start(catalog.inventory.clone(), &faults)).context("the twin did not come up")?),
            None => None,
        };
        if let Some(twin) = &twin {
            vantages = select::of_the_twin(from, twin.vantages()).map_err(|e| anyhow!(e))?;
        }
        let vantages = vantages.into_iter().map(|v| with_kubeconfig(v, common)).collect();
        let runtime = Bounded(Some(runtime));
        Ok(Self { catalog, vantages, runtime, interrupts, twin })
    }

    /// The probes are done: their threads end, and on a real machine the last capabilities go. The twin stays as long as what is
    /// returned.
    pub(super) fn end_of_probing(self) -> Option<Twin> {
        drop(self.runtime);
        if self.twin.is_none() {
            give_up_all_but(Capabilities::NONE);
        }
        self.twin
    }

    /// The run's own deadline.
    pub(super) fn limits(common: &Common) -> crate::run::Limits {
        crate::run::Limits { timeout: Duration::from_secs_f64(common.timeout), ..Default::default() }
    }
}

/// ctrl+C and SIGTERM.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A kernel or a sandbox that does not allow it is no reason not to look.
fn give_up_all_but(kept: Capabilities) {
    if let Err(error) = kept.keep_only() {
        eprintln!("fathom: capabilities that are not needed cannot be given up: {error}");
    }
}

/// Enters the private namespaces that the twin is built in.
pub(super) fn enter_twin() -> Result<()> {
    crate::vantage::netns::enter_private()
        .context("the twin needs network namespaces: run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)")
}

/// Loads the catalogue; every finding is printed.
pub(super) fn load(common: &Common) -> Result<Catalog> {
    Catalog::load(&sources(common)).map_err(|findings| anyhow!("{}", summary(&findings)))
}

pub(super) fn sources(common: &Common) -> Sources {
    Sources { inventory: common.inventory.clone(), checks: common.checks.clone(), playbooks: common.playbooks.clone() }
}

fn summary(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn with_kubeconfig(vantage: Arc<Vantage>, common: &Common) -> Arc<Vantage> {
    let mut vantage = (*vantage).clone();
    if let Some(path) = &common.kubeconfig {
        vantage.files.kubeconfig = Some(Source::File(path.clone()));
    }
    vantage.files.context.clone_from(&common.context);
    Arc::new(vantage)
}
