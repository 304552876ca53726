//! The section `others`: the same server measured by other clients.

use super::pacer::{Held, Pace, Pacer, Span, Truth, pin};
use super::{CLIENT, Case, FIRST_TOKEN, SERVER, USUAL, examine, header, measure};
use std::process::Command;
use std::time::{Duration, Instant};

/// The same server by this client and by others, on the same processor: `GUIDELLM` or `VLLM` name their programs, otherwise
/// `PATH` does. First at a usual pace, for what they say; then as fast as they read, for what they cost. The others are
/// processes: what one takes to start is measured by a run of a single request, and not counted.
pub(super) fn others() -> bool {
    let usual = Case { streams: 16, ..USUAL };
    let fast = Case { streams: 64, interval: Duration::ZERO, tokens: 400, rounds: 2, slots: usize::MAX };
    header();
    let (driven, book) = measure(usual, SERVER, CLIENT);
    examine(usual, &driven, &book);
    let before = rusage(libc::RUSAGE_SELF).0;
    let (driven, book) = measure(fast, SERVER, CLIENT);
    cost_line("fathom", &book, driven.client.running_ms.unwrap_or(f64::NAN), rusage(libc::RUSAGE_SELF).1);
    println!("  (the process took {:.0} ms, the server among it)", rusage(libc::RUSAGE_SELF).0 - before);
    for (name, other) in [("guidellm", guidellm as fn(&str, Case) -> Result<String, String>), ("vllm bench serve", vllm)] {
        let run = |case: Case| {
            let pacer = Pacer::start(Pace { first_token: FIRST_TOKEN, interval: case.interval, slots: case.slots }, Some(SERVER))
                .expect("a server");
            pin(CLIENT).expect("two processors");
            let before = rusage(libc::RUSAGE_CHILDREN).0;
            let said = other(&format!("http://{}", pacer.address), case);
            (said, pacer.finish().expect("its book"), rusage(libc::RUSAGE_CHILDREN).0 - before)
        };
        let (said, book, _) = run(usual);
        match said {
            Err(why) => {
                println!("{why}");
                continue;
            }
            Ok(said) => println!("{said}"),
        }
        let truth = |of: fn(&Truth) -> Option<Span>| Held::of(book.iter().filter_map(of).collect(), vec![0.0]).mean.0.least;
        let (ttft, tpot) = (truth(|t| Some(t.ttft_ms)), truth(|t| t.tpot_ms));
        println!("server's book of that run: {} answers, TTFT mean {ttft:.2}, TPOT mean {tpot:.3} ms", book.len());
        let (_, _, start) = run(Case { streams: 1, tokens: 1, rounds: 1, ..fast });
        let (said, book, cpu) = run(fast);
        match said {
            Err(why) => println!("{why}"),
            Ok(_) => cost_line(name, &book, cpu - start, rusage(libc::RUSAGE_CHILDREN).1),
        }
    }
    true
}

/// What was absorbed, by the server's book, and what it cost the client.
fn cost_line(name: &str, book: &[Truth], cpu_ms: f64, largest_mib: f64) {
    let tokens: u64 = book.iter().map(|t| u64::from(t.tokens)).sum();
    let window =
        book.iter().map(|t| t.began).min().zip(book.iter().map(|t| t.ended).max()).map_or(f64::NAN, |(from, to)| (to - from).as_secs_f64());
    println!(
        "{name}: {tokens} tokens in {window:.2} s: {:.0} tokens/s, {:.1} us of a processor per token, largest resident size {largest_mib:.0} MiB",
        tokens as f64 / window,
        cpu_ms * 1000.0 / tokens as f64
    );
}

/// Processor time, ms, and largest resident size of one process, MiB: getrusage(2).
fn rusage(who: libc::c_int) -> (f64, f64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills in the structure that it is given.
    let usage = unsafe {
        assert_eq!(libc::getrusage(who, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let ms = |t: libc::timeval| t.tv_sec as f64 * 1000.0 + t.tv_usec as f64 / 1000.0;
    (ms(usage.ru_utime) + ms(usage.ru_stime), usage.ru_maxrss as f64 / 1024.0)
}

/// Runs a program, or says that it is missing.
fn program(variable: &str, name: &str, arguments: &[String]) -> Result<String, String> {
    let path = std::env::var(variable).unwrap_or_else(|_| name.to_owned());
    let began = Instant::now();
    let output = Command::new(&path).args(arguments).output().map_err(|e| format!("{name}: not measured, {e} (set {variable})"))?;
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{name}: {} after {:.1?}\n{text}", output.status, began.elapsed())) }
}

/// guidellm 0.8 (`pip install guidellm`); without a tokeniser, as none can be fetched here: prompts are lines of text.
fn guidellm(url: &str, case: Case) -> Result<String, String> {
    let place = |kind: &str| std::env::temp_dir().join(format!("fathom-guidellm-{}.{kind}", std::process::id()));
    let (prompts, result) = (place("txt"), place("json"));
    let lines: String = (0..case.streams * case.rounds).map(|n| format!("Tell of ship {n}, its port and its crew.\n")).collect();
    if let Err(error) = std::fs::write(&prompts, lines) {
        return Err(format!("guidellm: not measured, {error}"));
    }
    let arguments = [
        "run".to_owned(),
        "--disable-console".to_owned(),
        format!("--backend=kind=openai_http,target={url},model=m,http2=false,max_tokens={}", case.tokens),
        format!("--profile=kind=concurrent,streams={}", case.streams),
        format!("--constraint=kind=max_requests,count={}", case.streams * case.rounds),
        format!("--data=kind=text_file,path={}", prompts.display()),
        format!("--output=kind=json,path={}", result.display()),
    ];
    let said = program("GUIDELLM", "guidellm", &arguments);
    let read = std::fs::read_to_string(&result).ok();
    for file in [prompts, result] {
        let _ = std::fs::remove_file(file);
    }
    let text = said?;
    read.and_then(|json| guidellm_figures(&json)).ok_or_else(|| format!("guidellm: no figures found in its file\n{text}"))
}

/// `benchmarks[0].metrics.{time_to_first_token_ms,inter_token_latency_ms}.successful.{mean,median}` of guidellm's file; its
/// `time_per_output_token_ms` counts the first token too and is no TPOT.
fn guidellm_figures(json: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(json).ok()?;
    let metrics = document.pointer("/benchmarks/0/metrics")?;
    let figure = |name: &str, what: &str| metrics.pointer(&format!("/{name}/successful/{what}")).and_then(serde_json::Value::as_f64);
    let (ttft, itl) = ("time_to_first_token_ms", "inter_token_latency_ms");
    Some(format!(
        "guidellm: TTFT mean {:.2} median {:.2}, TPOT (its inter_token_latency) mean {:.3} median {:.3} ms",
        figure(ttft, "mean")?,
        figure(ttft, "median")?,
        figure(itl, "mean")?,
        figure(itl, "median")?
    ))
}

fn vllm(url: &str, case: Case) -> Result<String, String> {
    let arguments = [
        "bench",
        "serve",
        "--backend",
        "openai-chat",
        "--endpoint",
        "/v1/chat/completions",
        "--base-url",
        url,
        "--model",
        "m",
        "--dataset-name",
        "random",
        "--random-input-len",
        "100",
        "--random-output-len",
        &case.tokens.to_string(),
        "--num-prompts",
        &(case.streams * case.rounds).to_string(),
        "--max-concurrency",
        &case.streams.to_string(),
        "--ignore-eos",
    ]
    .map(str::to_owned);
    let said = program("VLLM", "vllm bench serve", &arguments);
    let lines = |text: String| {
        text.lines().filter(|l| l.contains("TTFT") || l.contains("TPOT") || l.contains("requests:")).collect::<Vec<_>>().join("\n")
    };
    said.map(lines)
}
