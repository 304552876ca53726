//! The client's figures against the server's own book.

use super::super::budget::Budget;
use super::super::client::Target;
use super::super::drive::drive;
use super::super::judge::judge;
use super::super::pacer::{Held, Pace, Pacer};
use super::super::plan::tests::plan;
use super::super::plan::{Load, Plan};
use super::super::sample::Sample;
use crate::vantage::Net;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How near the truth a valid figure is in a build without optimisation, whose client needs about a millisecond for a request, on a
/// machine that runs other tests beside it. What is asked of a release build is measured in `benches/vllm_client.rs`.
const TOLERANCE: (f64, f64) = (6.0, 0.01);

/// One latency, as the server's book has it and as the client's samples have it.
type Latency = (&'static str, Held);

async fn examine(concurrency: u32, slots: usize) -> (String, Vec<Latency>) {
    let pace = Pace { first_token: Duration::from_millis(40), interval: Duration::from_millis(8), slots };
    let server = Pacer::start(pace, None).unwrap();
    let plan = Plan { requests: 4 * concurrency, output_tokens: 20, ..plan(Load::Closed { concurrency }) };
    let (_stop, stopped) = watch::channel(None);
    let budget = Arc::new(Budget::new(&plan));
    let target = Target::plain(Net::Here, server.address);
    let driven = drive(target, plan, 0, budget, Arc::default(), stopped).await.unwrap();
    let book = server.finish().unwrap();
    assert_eq!(driven.samples.iter().filter(|s| s.complete()).count(), book.len());
    let seen = |of: fn(&Sample) -> Option<f64>| driven.samples.iter().filter_map(of).collect::<Vec<_>>();
    let held = vec![
        ("ttft", Held::of(book.iter().map(|t| t.ttft_ms).collect(), seen(|s| s.ttft_ms))),
        ("tpot", Held::of(book.iter().filter_map(|t| t.tpot_ms).collect(), seen(|s| s.tpot_ms))),
        ("e2e", Held::of(book.iter().map(|t| t.e2e_ms).collect(), seen(|s| s.e2e_ms))),
    ];
    (judge(&driven.client).word(), held)
}

/// On a busy machine the client may be starved; then it has to say so. A wrong figure that claims to be valid is the defect.
#[tokio::test]
async fn what_is_valid_is_right() {
    for (concurrency, slots) in [(1, 1), (8, 8), (8, 2)] {
        let (validity, held) = examine(concurrency, slots).await;
        for (what, held) in &held {
            assert!(
                held.within(TOLERANCE) || validity == "invalid: client-limited",
                "{what} of {concurrency} on {slots}: {validity}, {held:?}"
            );
        }
        // The order of things does not depend on how busy the machine is: a queue of four turns is seen as one.
        let (ttft, least) = (held[0].1, if slots < concurrency as usize { 3.0 * 190.0 } else { 39.0 });
        assert!(ttft.p90.1 >= least, "{concurrency} on {slots}: {ttft:?}");
    }
}
