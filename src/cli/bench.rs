//! `fathom bench vllm`: state, send, report.

use super::session::{Interrupts, Session};
use super::{BenchArgs, BenchCommand, Common, output};
use crate::bench::baseline;
use crate::bench::client::Target;
use crate::bench::drive::{Progress, Stop};
use crate::bench::human;
use crate::bench::plan::{Ceilings, Load, Plan};
use crate::bench::report::Report;
use crate::bench::run::{Bench, Refused};
use crate::bench::sample::Slo;
use crate::check::clean;
use crate::def::Inventory;
use crate::def::inventory::Vllm;
use crate::probe::lookup::{How, lookup};
use crate::probe::resolv::ResolvConf;
use crate::probe::tls;
use crate::vantage::Vantage;
use anyhow::{Context, Result, anyhow, bail};
use reqwest::Url;
use rustls::pki_types::ServerName;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Exit code of a server that does not have what is asked of it.
const FAILED: u8 = 1;
/// Exit code of a run that could not be judged.
const INCONCLUSIVE: u8 = 3;
/// Largest baseline file.
const MOST_BASELINE_BYTES: u64 = 256 << 20;

pub(super) fn run(common: &Common, command: &BenchCommand) -> Result<u8> {
    match command {
        BenchCommand::Vllm(args) => vllm(common, args),
        BenchCommand::Schema => {
            output::print(&format!("{:#}\n", crate::bench::report::schema()))?;
            Ok(0)
        }
    }
}

fn vllm(common: &Common, args: &BenchArgs) -> Result<u8> {
    let slo = args.slo.as_deref().map(Slo::parse).transpose().map_err(|e| anyhow!("--slo: {e}"))?;
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let mut session = Session::open(common)?;
    let Session { catalog, vantages, runtime, interrupts, .. } = &mut session;
    let [vantage] = vantages.as_slice() else { bail!("a bench has one vantage: --from names several") };
    let (documented, target) = match (&args.name, &args.url) {
        (Some(_), Some(_)) => bail!("a name and --url are two targets"),
        (None, Some(url)) => (None, runtime.block_on(of_url(vantage, url))?),
        (name, None) => {
            let server = documented(&catalog.inventory, name.as_deref()).map_err(|e| anyhow!("{e}; --url takes any"))?;
            (Some(server), target(vantage, server))
        }
    };
    let plan = plan(args, documented)?;
    let gpu = documented.and_then(|v| v.gpu.clone());
    let bench = Bench { target, from: vantage.id.clone(), gpu, plan, slo, goodput: args.goodput, ladder: args.ladder };
    if let Some(why) = bench.refused() {
        bail!("{why}");
    }
    if let Some(baseline) = &baseline {
        let name = args.baseline.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        runtime.block_on(bench.comparable(baseline)).map_err(|e| anyhow!("--baseline {name}: {e}"))?;
    }
    eprintln!("{} from {}: {}", bench.target.shown(), bench.from, bench.statement());
    match runtime.block_on(follow(&bench, interrupts))? {
        Ok(report) => finish(common, args, report, baseline.as_ref()),
        Err(refused) => {
            eprintln!("fathom: {refused}");
            Ok(if matches!(refused, Refused::NotServed(..)) { FAILED } else { INCONCLUSIVE })
        }
    }
}

/// A model server of the inventory by its name; without a name, the first.
pub(super) fn documented<'a>(inventory: &'a Inventory, name: Option<&str>) -> Result<&'a Vllm, String> {
    let servers = &inventory.vllms;
    let Some(name) = name else { return servers.first().ok_or_else(|| "the inventory has no model server".to_owned()) };
    servers.iter().find(|v| v.name == name).ok_or_else(|| {
        let known: Vec<&str> = servers.iter().map(|v| v.name.as_str()).collect();
        format!("no model server is called `{}`; known are {}", clean(name, 80), known.join(", "))
    })
}

/// Where a documented server is asked.
pub(super) fn target(vantage: &Vantage, server: &Vllm) -> Target {
    Target { key: key(), ..Target::plain(vantage.net.clone(), SocketAddrV4::new(server.address, server.port)) }
}

/// The key of the server, if there is one that can go into a header.
fn key() -> Option<String> {
    std::env::var("VLLM_API_KEY").ok().filter(|key| !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()))
}

/// The text of the URL stays out of every message: it may hold a secret.
async fn of_url(vantage: &Vantage, text: &str) -> Result<Target> {
    let url = Url::parse(text).map_err(|e| anyhow!("--url is not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        bail!("--url takes no user, password or query; a key goes into VLLM_API_KEY");
    }
    let host = url.host_str().ok_or_else(|| anyhow!("--url has no host"))?.to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let address = resolve(vantage, &host).await?;
    let prefix = url.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
    let shown = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let tls = match url.scheme() {
        "http" => None,
        "https" => {
            let roots = tls::roots(vantage).await.map_err(|e| anyhow!(e))?;
            // A server that cannot be verified gets no key and no request.
            let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            Some((ServerName::try_from(host).context("--url: not a host name")?, Arc::new(config)))
        }
        _ => bail!("--url must be http or https"),
    };
    Ok(Target { host: shown, prefix, tls, key: key(), ..Target::plain(vantage.net.clone(), SocketAddrV4::new(address, port)) })
}

async fn resolve(vantage: &Vantage, host: &str) -> Result<Ipv4Addr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let conf = ResolvConf::of(vantage).map_err(|e| anyhow!(e))?;
    let found = lookup(&vantage.net, &conf, host, How::default(), Instant::now() + Duration::from_secs(5)).await.map_err(|e| anyhow!(e))?;
    found.address().ok_or_else(|| anyhow!("the host of --url does not resolve: {}", found.rcode()))
}

pub(super) fn plan(args: &BenchArgs, documented: Option<&Vllm>) -> Result<Plan> {
    let model = args.model.clone().or_else(|| documented.map(|v| v.model.clone()));
    let load = match args.rate {
        Some(_) if args.ladder => bail!("--ladder climbs by concurrency: it takes no --rate"),
        Some(rate) => Load::Open { rate, arrivals: args.arrivals },
        None => Load::Closed { concurrency: args.concurrency },
    };
    Ok(Plan {
        model: model.ok_or_else(|| anyhow!("--url needs --model"))?,
        load,
        input: args.input,
        requests: args.requests,
        warmup: args.warmup,
        prompt_words: args.prompt_words,
        output_tokens: args.output_tokens,
        request_seconds: args.request_timeout,
        seed: args.seed,
        ceilings: Ceilings { requests: args.max_requests, tokens: args.max_tokens, seconds: args.max_seconds },
    })
}

/// Runs it with a live line; an interrupt asks for the numbers so far.
async fn follow(bench: &Bench, interrupts: &mut Interrupts) -> Result<Result<Report, Refused>> {
    let (stop, _keep) = watch::channel(None);
    let progress = Arc::new(Progress::default());
    let running = bench.run(progress.clone(), stop.clone());
    tokio::pin!(running);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let live = std::io::stderr().is_terminal();
    let planned = bench.plans().iter().map(|plan| plan.requests).sum();
    let began = Instant::now();
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            () = interrupts.next() => { stop.send_replace(Some(Stop::Interrupted)); }
            _ = tick.tick(), if live => eprint!("\r\x1b[K{}", line(&progress, planned, began.elapsed())),
        }
    };
    if live {
        eprint!("\r\x1b[K");
        std::io::stderr().flush()?;
    }
    Ok(outcome)
}

fn line(progress: &Progress, planned: u32, elapsed: Duration) -> String {
    let (done, complete) = (progress.done.load(Relaxed), progress.complete.load(Relaxed));
    let seconds = elapsed.as_secs_f64().max(0.001);
    let ttft = progress.ttft_us.load(Relaxed) as f64 / 1000.0 / complete.max(1) as f64;
    let rate = progress.tokens.load(Relaxed) as f64 / seconds;
    let (flying, failed) = (progress.in_flight.load(Relaxed), done - complete.min(done));
    format!("{done} of {planned} done, {flying} in flight, {failed} failed, mean TTFT {ttft:.0} ms, {rate:.0} tokens/s, {seconds:.0} s")
}

fn finish(common: &Common, args: &BenchArgs, mut report: Report, baseline: Option<&Report>) -> Result<u8> {
    if let Some(baseline) = baseline {
        report.baseline = Some(baseline::compare(&report, baseline, args.margin).map_err(|e| anyhow!(e))?);
        report.exit_code = report.judge();
    }
    // First what was measured: a file that cannot be written must not lose it.
    output::is_read(&if args.json { report.json() } else { human::render(&report, common.ascii) })?;
    if let Some(path) = &args.save {
        std::fs::write(path, report.json()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.csv {
        std::fs::write(path, report.csv()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.exit_code)
}

fn read_baseline(path: &std::path::Path) -> Result<Report> {
    let name = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if size > MOST_BASELINE_BYTES {
        bail!("{name} is larger than 256 MiB");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    serde_json::from_str(&text).with_context(|| format!("{name} is no saved bench"))
}
