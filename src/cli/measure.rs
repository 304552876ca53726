//! `fathom bench vllm` with its defaults, from inside the terminal interface.

use super::BenchArgs;
use super::bench::{documented, plan, target};
use crate::bench::drive::Progress;
use crate::bench::human;
use crate::bench::run::Bench;
use crate::def::Inventory;
use crate::tui::Measuring;
use crate::tui::bench::Offer;
use crate::vantage::{Vantage, VantageKind};
use clap::{Args, FromArgMatches};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// What measuring a server would send. Sends nothing.
pub(super) fn offer(inventory: &Inventory, vantages: &[Arc<Vantage>], server: Option<&str>) -> Result<Offer, String> {
    let (name, bench) = make(inventory, vantages, server)?;
    let target = bench.target.shown();
    Ok(Offer { server: name, target, statement: bench.plan.statement(), requests: bench.plan.requests, from: bench.from })
}

/// Begins to measure a server.
pub(super) fn begin(inventory: &Inventory, vantages: &[Arc<Vantage>], server: &str) -> Result<Measuring, String> {
    let (_, bench) = make(inventory, vantages, Some(server))?;
    let progress = Arc::new(Progress::default());
    let (tell, done) = oneshot::channel();
    let (stop, _) = watch::channel(None);
    let (seen, stopper) = (progress.clone(), stop.clone());
    tokio::spawn(async move {
        let outcome = bench.run(seen, stopper).await;
        // Who has left has no use for the outcome.
        let _ = tell.send(outcome.map(|report| human::render(&report, false)).map_err(|refused| refused.to_string()));
    });
    Ok(Measuring { progress, done, stop })
}

/// From a node if there is one: that is where the models are asked from.
fn make(inventory: &Inventory, vantages: &[Arc<Vantage>], server: Option<&str>) -> Result<(String, Bench), String> {
    let vllm = documented(inventory, server)?;
    let vantage = vantages.iter().find(|v| v.kind == VantageKind::Node).or(vantages.first()).ok_or("there is no vantage")?;
    let plan = plan(&defaults()?, Some(vllm)).map_err(|e| e.to_string())?;
    if let Some(why) = plan.refused() {
        return Err(why);
    }
    let bench = Bench {
        target: target(vantage, vllm),
        from: vantage.id.clone(),
        gpu: vllm.gpu.clone(),
        plan,
        slo: None,
        goodput: 0.9,
        ladder: false,
    };
    Ok((vllm.name.clone(), bench))
}

/// The options of the command as they are when none is given.
fn defaults() -> Result<BenchArgs, String> {
    let matches = BenchArgs::augment_args(clap::Command::new("bench")).try_get_matches_from(["bench"]).map_err(|e| e.to_string())?;
    BenchArgs::from_arg_matches(&matches).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::def::{Catalog, Sources};
    use crate::vantage::{HostFiles, Net, Transport};

    #[test]
    fn the_offer_says_what_would_be_sent_and_from_where() {
        let catalog = Catalog::load(&Sources::default()).unwrap();
        let vantage = |id: &str, kind| {
            let files = HostFiles::default();
            Arc::new(Vantage { id: id.into(), kind, transport: Transport::Local, why: String::new(), node: None, net: Net::Here, files })
        };
        let vantages = [vantage("workstation", VantageKind::Workstation), vantage("calypso", VantageKind::Node)];
        let inventory = &catalog.inventory;
        let first = offer(inventory, &vantages, None).unwrap();
        assert_eq!((first.server.as_str(), first.from.as_str()), (inventory.vllms[0].name.as_str(), "calypso"));
        assert!(first.statement.contains("at most") && first.requests > 0, "{first:?}");
        assert_eq!(offer(inventory, &vantages, Some(&first.server)), Ok(first));
        assert!(offer(inventory, &vantages, Some("none\u{1b}")).unwrap_err().contains("no model server"));
        assert!(offer(inventory, &[], None).is_err());
    }
}
