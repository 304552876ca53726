//! What a run costs, as ratios measured in one process: `cargo bench --bench runs`.
//!
//! Runs in private namespaces against the twin; needs no cluster and no network. Medians of [`ROUNDS`] rounds.

use fathom::def::{Catalog, Sources};
use fathom::run::{Filter, Limits, Plan, RunEvent, start};
use fathom::twin::Twin;
use fathom::vantage::select::of_the_twin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;

fn main() {
    fathom::vantage::netns::enter_private().expect("the twin needs network namespaces");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build().expect("runtime");
    let catalog = Catalog::load(&Sources::default()).expect("built-in catalogue");
    println!("medians of {ROUNDS} rounds");

    let load = median(|| {
        Catalog::load(&Sources::default()).expect("built-in catalogue");
    });
    println!(
        "{:<58} {}",
        format!("load, compile and lint {} checks, {} playbooks", catalog.checks.len(), catalog.playbooks.len()),
        show(load)
    );

    let version = median(|| {
        let status = Command::new(env!("CARGO_BIN_EXE_fathom")).arg("--version").stdout(Stdio::null()).status().expect("fathom --version");
        assert!(status.success());
    });
    println!("{:<58} {}", "start of `fathom --version`", show(version));

    let up = median(|| {
        runtime.block_on(Twin::start(catalog.inventory.clone(), &[])).expect("twin");
    });
    println!("{:<58} {}", "twin start-up", show(up));

    let twin = runtime.block_on(Twin::start(catalog.inventory.clone(), &[])).expect("twin");
    let vantages = of_the_twin(Some("calypso"), twin.vantages()).expect("calypso");
    let plan = median(|| {
        Plan::make(&catalog, &vantages, &Filter::default()).expect("plan");
    });
    println!("{:<58} {}", "plan of the catalogue from calypso", show(plan));

    let run = |concurrency: usize| {
        median(|| {
            let plan = Plan::make(&catalog, &vantages, &Filter::default()).expect("plan");
            let complete = runtime.block_on(async {
                let mut running = start(plan, &catalog, Limits { concurrency, timeout: Duration::from_secs(60) });
                let mut complete = false;
                while let Some(event) = running.events.recv().await {
                    if let RunEvent::Finished { complete: all, .. } = event {
                        complete = all;
                    }
                }
                complete
            });
            assert!(complete);
        })
    };
    let (together, apart) = (run(Limits::default().concurrency), run(1));
    println!("{:<58} {}", "all checks from calypso, together", show(together));
    println!("{:<58} {}", "the same looks, one after the other", show(apart));
    println!("{:<58} {:.1}", "ratio", apart.as_secs_f64() / together.as_secs_f64());
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

fn show(time: Duration) -> String {
    format!("{:>9.2} ms", time.as_secs_f64() * 1000.0)
}
