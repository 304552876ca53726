//! How good the client of `fathom bench vllm` is: `cargo bench --bench vllm_client [-- accuracy|shared|cost|memory|others]`.
//!
//! The server is [`pacer`]: an exact pace, and a book of what it did when. It has processor 0, the client processor 1, unless
//! a section says otherwise. Other work on the machine shows as `invalid`; on a busy one, run under `chrt -f 10`
//! (not `shared`, where both must compete).
//!
//! | section | what it shows | fails if |
//! |---|---|---|
//! | accuracy | errors of TTFT, TPOT and E2E, 1 to 64 streams, with and without a queue; the same with ever faster tokens until the client cannot keep up, and what `judge.rs` sees on both sides of that | a valid figure is off by more than 1 ms and 1 % |
//! | shared | the same with client, server and a busy engine on one processor | a valid figure is wrong, or 64 streams are called valid |
//! | cost | tokens per second that one processor absorbs, processor time per token | the slowest rate is not absorbed |
//! | memory | what 256 streams at once cost | more than 64 MiB |
//! | others | the same server measured by guidellm or `vllm bench serve`, if installed | never |

#[path = "vllm_client/others.rs"]
mod others;
#[path = "../src/bench/pacer.rs"]
mod pacer;

use fathom::bench::budget::Budget;
use fathom::bench::client::Target;
use fathom::bench::drive::{Driven, drive};
use fathom::bench::judge::{self, Client, Validity, judge};
use fathom::bench::plan::{Ceilings, Input, Load, Plan};
use fathom::bench::sample::Sample;
use fathom::vantage::Net;
use others::others;
use pacer::{Held, Pace, Pacer, Truth, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const SERVER: usize = 0;
const CLIENT: usize = 1;
const FIRST_TOKEN: Duration = Duration::from_millis(40);
/// How far a valid figure may be from the truth, ms and as a share.
const TOLERANCE: (f64, f64) = (1.0, 0.01);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    type Section = (&'static str, fn() -> bool);
    let sections: [Section; 5] = [("memory", memory), ("accuracy", accuracy), ("shared", shared), ("cost", cost), ("others", others)];
    let mut good = true;
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("\n## {name}");
            good &= section();
        }
    }
    std::process::exit(i32::from(!good));
}

/// What is asked of the server and how.
#[derive(Clone, Copy)]
struct Case {
    streams: u32,
    slots: usize,
    interval: Duration,
    tokens: u32,
    rounds: u32,
}

const USUAL: Case = Case { streams: 1, slots: usize::MAX, interval: Duration::from_millis(10), tokens: 50, rounds: 4 };

/// Measures a server; both keep to their processors.
fn measure(case: Case, server: usize, client: usize) -> (Driven, Vec<Truth>) {
    let pace = Pace { first_token: FIRST_TOKEN, interval: case.interval, slots: case.slots };
    let pacer = Pacer::start(pace, Some(server)).expect("a server");
    // Threads of the client inherit this.
    pin(client).expect("two processors");
    let plan = Plan {
        model: "m".to_owned(),
        load: Load::Closed { concurrency: case.streams },
        input: Input::Text,
        requests: case.streams * case.rounds,
        warmup: 0,
        prompt_words: 100,
        output_tokens: case.tokens,
        request_seconds: 60.0,
        seed: 1,
        ceilings: Ceilings { tokens: u64::MAX, ..Ceilings::default() },
    };
    let target = Target::plain(Net::Here, pacer.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (_stop, stopped) = watch::channel(None);
    let driven = runtime.block_on(async {
        let budget = Arc::new(Budget::new(&plan));
        drive(target, plan, 0, budget, Arc::default(), stopped).await.expect("a client")
    });
    (driven, pacer.finish().expect("its book"))
}

/// One line about a run; whether it is right, and whether it says that it is valid.
fn examine(case: Case, driven: &Driven, book: &[Truth]) -> (bool, Validity) {
    let seen = |of: fn(&Sample) -> Option<f64>| driven.samples.iter().filter_map(of).collect::<Vec<_>>();
    let ttft = Held::of(book.iter().map(|t| t.ttft_ms).collect(), seen(|s| s.ttft_ms));
    let tpot = Held::of(book.iter().filter_map(|t| t.tpot_ms).collect(), seen(|s| s.tpot_ms));
    let e2e = Held::of(book.iter().map(|t| t.e2e_ms).collect(), seen(|s| s.e2e_ms));
    let complete = driven.samples.iter().filter(|s| s.complete()).count();
    let right = [&ttft, &tpot, &e2e].iter().all(|held| held.within(TOLERANCE)) && complete == book.len();
    let (c, validity) = (&driven.client, judge(&driven.client));
    EXAMINED.lock().unwrap_or_else(PoisonError::into_inner).push((right, c.clone()));
    let share = |part: Option<f64>| part.unwrap_or(f64::NAN) / c.window_ms * 100.0;
    println!(
        "{:>4} {:>6} | {:>8.2} {:>+7.3} | {:>7.3} {:>+7.3} | {:>8.1} {:>+7.3} | {:>5.1} {:>6.3} {:>5.1} | {:>5.2} {:>5.2} | {:>5.2} | {:>5.1} | {} {}",
        case.streams,
        if case.slots == usize::MAX { "-".to_owned() } else { case.slots.to_string() },
        ttft.p50.0.least,
        ttft.error(),
        tpot.p50.0.least,
        tpot.error(),
        e2e.p50.0.least,
        e2e.error(),
        share(c.waiting_ms),
        c.waiting_ms.zip(c.turns).map_or(f64::NAN, |(waited, turns)| waited / turns as f64),
        share(c.running_ms),
        c.lag_p50_ms.unwrap_or(f64::NAN),
        c.lag_p99_ms.unwrap_or(f64::NAN),
        c.events_per_read().unwrap_or(f64::NAN),
        c.read_late().unwrap_or(f64::NAN) * 100.0,
        if right { "right" } else { "WRONG" },
        validity.word(),
    );
    (right, validity)
}

/// What was examined so far: whether it was right, and what the client noticed about itself.
static EXAMINED: Mutex<Vec<(bool, Client)>> = Mutex::new(Vec::new());

/// What each sign of a starved client was in runs that were right, and in runs that were wrong: a threshold belongs between the
/// two, nearer to the first, for a valid run that is wrong is the defect.
fn thresholds() {
    type Sign = (&'static str, f64, fn(&Client) -> Option<f64>);
    let signs: [Sign; 6] = [
        ("MOST_WAITING, share of the window", judge::MOST_WAITING, |c| Some(c.waiting_ms? / c.window_ms)),
        ("MOST_WAIT_PER_TURN_MS", judge::MOST_WAIT_PER_TURN_MS, |c| Some(c.waiting_ms? / c.turns.filter(|t| *t > 0)? as f64)),
        ("MOST_BUSY, share of one processor", judge::MOST_BUSY, |c| Some(c.running_ms? / c.window_ms)),
        ("MOST_LAG_MS.0, median", judge::MOST_LAG_MS.0, |c| c.lag_p50_ms),
        ("MOST_LAG_MS.1, 99th percentile", judge::MOST_LAG_MS.1, |c| c.lag_p99_ms),
        ("MOST_READ_LATE, share of answers", judge::MOST_READ_LATE.0, Client::read_late),
    ];
    let examined = EXAMINED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = |right: bool| examined.iter().filter(|(was, _)| *was == right).count();
    println!(
        "\n{:<36} {:>10} {:>16} {:>16}   of {} right, {} WRONG runs",
        "sign",
        "threshold",
        "most if right",
        "least if WRONG",
        count(true),
        count(false)
    );
    for (name, threshold, of) in signs {
        let values = |right: bool| examined.iter().filter(move |(was, _)| *was == right).filter_map(move |(_, client)| of(client));
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
        let (most, least) = (values(true).max_by(f64::total_cmp), values(false).min_by(f64::total_cmp));
        println!("{name:<36} {threshold:>10} {:>16} {:>16}", cell(most), cell(least));
    }
}

fn header() {
    println!("times in ms; `error` is the client's worst of mean, p50 and p90 against the server's book");
    println!("  streams slots | TTFT    error | TPOT    error | E2E     error | wait% /turn  busy% | lag50  99 | ev/rd | late% |");
}

fn accuracy() -> bool {
    header();
    let (mut good, mut valid) = (true, true);
    let queue = |streams, slots| Case { streams, slots, ..USUAL };
    for case in [queue(1, usize::MAX), queue(4, usize::MAX), queue(16, usize::MAX), queue(64, usize::MAX), queue(16, 4), queue(64, 32)] {
        let (driven, book) = measure(case, SERVER, CLIENT);
        let (right, validity) = examine(case, &driven, &book);
        good &= right || !validity.valid;
        valid &= validity.valid;
    }
    println!("ever faster tokens, 64 streams: until the client cannot keep up");
    for interval_us in [5_000, 2_500, 1_250, 625, 312, 0] {
        let case = Case { streams: 64, interval: Duration::from_micros(interval_us), tokens: 400, rounds: 2, ..USUAL };
        let (driven, book) = measure(case, SERVER, CLIENT);
        let (right, validity) = examine(case, &driven, &book);
        good &= right || !validity.valid;
    }
    thresholds();
    println!(
        "{}",
        if valid {
            "every run at the usual pace is valid"
        } else {
            "the client was disturbed: run again on a machine with nothing else to do"
        }
    );
    good
}

/// A busy engine: it keeps a processor busy for a share of every 5 ms.
struct Engine(Arc<AtomicBool>, std::thread::JoinHandle<()>);

impl Engine {
    fn start(percent: u32, core: usize) -> Self {
        const PERIOD: Duration = Duration::from_millis(5);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            pin(core).expect("a processor");
            while !stopped.load(Ordering::Relaxed) {
                let (began, busy) = (Instant::now(), PERIOD * percent / 100);
                while began.elapsed() < busy {
                    std::hint::spin_loop();
                }
                std::thread::sleep(PERIOD.saturating_sub(began.elapsed()));
            }
        });
        Self(stop, thread)
    }

    fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().expect("the engine's thread");
    }
}

fn shared() -> bool {
    header();
    let mut good = true;
    for percent in [0, 25, 50, 75, 90, 100] {
        println!("an engine that uses {percent} % of the one processor");
        for streams in [1, 8, 64] {
            let case = Case { streams, ..USUAL };
            let engine = Engine::start(percent, CLIENT);
            let (driven, book) = measure(case, CLIENT, CLIENT);
            engine.stop();
            let (right, validity) = examine(case, &driven, &book);
            good &= right || !validity.valid;
            good &= !(validity.valid && percent == 100 && streams == 64);
        }
    }
    thresholds();
    good
}

fn cost() -> bool {
    println!("64 streams; asked for: tokens/s that the server offers; the client has one processor");
    println!("{:>10} {:>10} {:>7} {:>10} {:>7}  verdict", "asked for", "absorbed", "busy%", "us/token", "ev/rd");
    let mut slowest_is_valid = None;
    for interval_us in [20_000, 10_000, 5_000, 2_500, 1_250, 625, 0] {
        let case = Case { streams: 64, interval: Duration::from_micros(interval_us), tokens: 400, rounds: 2, ..USUAL };
        let (driven, book) = measure(case, SERVER, CLIENT);
        let tokens: u64 = book.iter().map(|t| u64::from(t.tokens)).sum();
        let (c, validity) = (&driven.client, judge(&driven.client));
        let running = c.running_ms.unwrap_or(f64::NAN);
        let asked = 64_000_000_u64.checked_div(interval_us).map_or("all".to_owned(), |rate| rate.to_string());
        println!(
            "{asked:>10} {:>10.0} {:>7.1} {:>10.2} {:>7.2}  {}",
            tokens as f64 / c.window_ms * 1000.0,
            running / c.window_ms * 100.0,
            running * 1000.0 / tokens as f64,
            c.events_per_read().unwrap_or(f64::NAN),
            validity.word()
        );
        slowest_is_valid.get_or_insert(validity.valid);
    }
    slowest_is_valid == Some(true)
}

fn memory() -> bool {
    const MOST_MIB: f64 = 64.0;
    // The greatest size so far is forgotten: proc(5), clear_refs.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = status_mib("VmRSS:");
    let case = Case { streams: 256, rounds: 2, ..USUAL };
    let (driven, book) = measure(case, SERVER, CLIENT);
    let grown = status_mib("VmHWM:") - before;
    println!(
        "{} streams at once, {} answers of {} tokens: {grown:.1} MiB more than before, the server's own buffers among them ({} KiB per stream)",
        driven.peak,
        book.len(),
        case.tokens,
        (grown * 1024.0 / f64::from(driven.peak)).round()
    );
    grown <= MOST_MIB && driven.peak == case.streams
}

fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(field)).and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    line.map_or(f64::NAN, |kib| kib / 1024.0)
}
