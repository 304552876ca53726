//! What a bench leaves undone: whatever passes a ceiling, whatever could not be compared, and whatever would hurt others.

use super::super::budget::Budget;
use super::super::client::Target;
use super::super::drive::{Progress, Stop};
use super::super::plan::tests::plan;
use super::super::plan::{Ceilings, Load, Plan};
use super::super::run::{Bench, Refused};
use crate::twin::service::vllm::{Pace, Traffic, Vllm, VllmHandle};
use crate::vantage::Net;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

const MODEL: &str = "deepseek-ai/DeepSeek-OCR";

fn server(interval: Duration) -> VllmHandle {
    let pace = Pace { first_token: Duration::from_millis(5), interval };
    let vllm = Vllm { model: MODEL.into(), max_model_len: 8192, pace };
    vllm.serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn bench(server: &VllmHandle, concurrency: u32) -> Bench {
    let plan = Plan { requests: 8, warmup: 2, output_tokens: 10, prompt_words: 10, ..plan(Load::Closed { concurrency }) };
    let target = Target::plain(Net::Here, server.address().unwrap());
    Bench { target, from: "test".into(), gpu: None, plan, slo: None, goodput: 0.9, ladder: false }
}

/// Requests and prompt tokens that the server has seen.
async fn seen(bench: &Bench) -> (u64, u64) {
    let scrape = super::super::scrape::scrape(&bench.target).await.unwrap();
    (scrape.ended.unwrap() as u64, (scrape.prompt_tokens.unwrap() + scrape.output_tokens.unwrap()) as u64)
}

async fn run(bench: &Bench) -> Result<super::super::report::Report, Refused> {
    let (stop, _keep) = watch::channel(None);
    bench.run(Arc::default(), stop).await
}

#[tokio::test]
async fn a_ladder_that_would_pass_a_ceiling_is_not_begun() {
    let server = server(Duration::from_millis(1));
    let mut bench = Bench { ladder: true, ..bench(&server, 4) };
    // Three rungs of 8 requests, and 2 to warm up.
    bench.plan.ceilings.requests = 25;
    assert_eq!(bench.refused().unwrap(), "26 requests are above the ceiling of 25");
    assert!(matches!(run(&bench).await, Err(Refused::Plan(_))));
    bench.plan.ceilings.requests = 26;
    bench.plan.ceilings.tokens = 26 * 62 - 1;
    assert_eq!(bench.refused().unwrap(), "up to 1612 tokens are above the ceiling of 1611");
    assert_eq!(seen(&bench).await, (0, 0));
    bench.plan.ceilings.tokens += 1;
    assert!(bench.statement().starts_with("24 requests (text of 10 words, up to 10 tokens each) after 2 to warm up, 4 at a time"));
    run(&bench).await.unwrap();
    assert!(seen(&bench).await.0 <= 26);
}

#[tokio::test]
async fn ceilings_hold_for_all_rungs_together() {
    let server = server(Duration::from_millis(1));
    let bench = Bench { ladder: true, ..bench(&server, 4) };
    // The budget of plans with lower ceilings than were asked about: what counts is what is sent.
    let tight = |requests: u32, tokens: u64| {
        let ceilings = Ceilings { requests, tokens, ..bench.plan.ceilings };
        Budget::new(&Plan { ceilings, ..bench.plan.clone() })
    };
    // 2 to warm up, and 3 of the first rung's 8.
    let report = run_within(&bench, tight(5, u64::MAX)).await;
    assert_eq!((seen(&bench).await.0, report.stopped.as_deref()), (5, Some("requests")));
    assert_eq!(report.ladder.unwrap().ended, "requests");

    // In the second rung, unless this machine is too busy for a first.
    let report = run_within(&bench, tight(13, u64::MAX)).await;
    let (sent, ladder) = (seen(&bench).await.0 - 5, report.ladder.unwrap());
    assert!(
        (sent == 13 && ladder.ended == "requests" && ladder.rungs.len() == 2) || (sent == 10 && ladder.ended.starts_with("invalid")),
        "{sent} {ladder:?}"
    );

    let before = seen(&bench).await.1;
    let report = run_within(&bench, tight(u32::MAX, 200)).await;
    let used = seen(&bench).await.1 - before;
    assert!((100..=200).contains(&used) && report.stopped.as_deref() == Some("tokens"), "{used} {:?}", report.stopped);
}

async fn run_within(bench: &Bench, budget: Budget) -> super::super::report::Report {
    let (stop, _keep) = watch::channel(None);
    bench.run_within(Arc::new(budget), Arc::default(), stop).await.unwrap()
}

#[tokio::test]
async fn time_is_that_of_the_whole_run() {
    let server = server(Duration::from_millis(20));
    let mut bench = Bench { ladder: true, ..bench(&server, 4) };
    bench.plan.ceilings.seconds = 0.7;
    let report = run(&bench).await.unwrap();
    assert_eq!((report.stopped.as_deref(), report.exit_code), (Some("time"), 3));
    let ladder = report.ladder.unwrap();
    // One rung takes 8 x 185 ms: each for itself would have had the time.
    assert!(ladder.rungs.len() < 3 && ladder.ended == "time", "{ladder:?}");
}

#[tokio::test]
async fn another_model_and_a_queue_are_refused_before_anything_is_sent() {
    let server = server(Duration::from_millis(1));
    let mut bench = bench(&server, 1);
    bench.plan.model = "other".into();
    let refused = run(&bench).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("the server has no model `other` but {MODEL}"));
    bench.plan.model = MODEL.into();
    server.set_load(4, 2);
    assert!(matches!(run(&bench).await, Err(Refused::Waiting(2))));
    assert_eq!(seen(&bench).await, (0, 0));
}

#[tokio::test]
async fn a_baseline_of_something_else_is_refused_before_anything_is_sent() {
    let server = server(Duration::from_millis(1));
    let bench = bench(&server, 1);
    let old = run(&bench).await.unwrap();
    assert_eq!(old.serving.as_ref().unwrap().max_model_len, Some(8192));
    let sent = seen(&bench).await;
    // This machine may have been too busy to measure: that is not what this test is about.
    let old = super::super::report::Report { validity: super::super::judge::Validity::good(), ..old };
    assert_eq!(bench.comparable(&old).await, Ok(()));
    let longer = Bench { plan: Plan { output_tokens: 11, ..bench.plan.clone() }, ..bench.clone() };
    assert!(longer.comparable(&old).await.unwrap_err().contains("the output length"));
    server.set_max_model_len(4096);
    assert!(bench.comparable(&old).await.unwrap_err().contains("the longest sequence"));
    assert_eq!(seen(&bench).await, sent);
}

#[tokio::test]
async fn it_stops_when_requests_of_others_begin_to_wait() {
    let server = server(Duration::from_millis(20));
    let mut bench = bench(&server, 2);
    bench.plan.requests = 1000;
    let (stop, _keep) = watch::channel(None);
    let progress = Arc::new(Progress::default());
    let (running, watched) = (bench.run(progress.clone(), stop), progress.clone());
    tokio::pin!(running);
    // Others wait once the measurement is under way.
    let others = async {
        while watched.complete.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.set_traffic(Traffic { running: 6, waiting: 3, ..Traffic::default() });
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = &mut running => report.unwrap(),
        () = others => unreachable!("it waits for ever"),
    };
    assert_eq!(report.stopped.as_deref(), Some("foreign-wait"));
    let done = report.figures.complete;
    assert!((2..1000).contains(&done) && report.exit_code == 3, "{done} {}", report.exit_code);
}

#[tokio::test]
async fn its_own_queue_is_no_reason_to_stop() {
    let server = server(Duration::from_millis(20));
    let mut bench = bench(&server, 8);
    bench.plan.requests = 64;
    server.set_traffic(Traffic { queue: Duration::from_millis(100), ..Traffic::default() });
    let report = run(&bench).await.unwrap();
    assert_eq!((report.stopped, report.figures.complete), (None, 64));
}

#[tokio::test]
async fn an_interrupt_leaves_the_numbers_so_far() {
    let server = server(Duration::from_millis(5));
    let mut bench = bench(&server, 2);
    bench.plan.requests = 10_000;
    let (stop, _keep) = watch::channel(None);
    let progress = Arc::new(Progress::default());
    let running = bench.run(progress.clone(), stop.clone());
    let interrupt = async {
        while progress.complete.load(Ordering::Relaxed) < 6 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.send_replace(Some(Stop::Interrupted));
    };
    let (report, ()) = tokio::join!(running, interrupt);
    let report = report.unwrap();
    assert_eq!((report.stopped.as_deref(), report.exit_code), (Some("interrupted"), 130));
    let f = &report.figures;
    assert!(f.complete >= 6 && f.failed == 0 && f.cut <= 2, "{f:?}");
    assert!(f.ttft_ms.p50.number().is_some() && f.output_tokens_per_s.number().is_some());
    let text = super::super::human::render(&report, false);
    assert!(text.contains("stopped early: interrupted") && text.contains("TTFT"), "{text}");
}
