//! The command line: clap types here, one file per command.

mod bench;
mod bundle;
mod check;
mod diagnose;
mod explain;
mod lint;
mod list;
mod measure;
mod output;
mod rbac;
mod replay;
mod schema;
mod services;
mod session;
mod tui;
mod twin;

use crate::report::build::FailOn;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of a usage, inventory or definition error.
pub const USAGE: u8 = 2;

/// Network diagnostics for the Oceanid cluster: live checks, one root cause with its proof.
///
/// fathom only reads: no check changes the network, and a fix is printed, never run.
#[derive(Debug, Parser)]
#[command(name = "fathom", version, about, long_about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
}

const EXIT_CODES: &str = "Exit codes: 0 nothing failed · 1 at least one check failed · 2 usage, inventory or definition error · \
3 nothing failed, but something that was asked for is unknown · 130 interrupted";

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Run against the digital twin, with these faults injected (a comma list; `fathom twin faults` names them).
    #[arg(long, global = true, value_name = "FAULTS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    twin: Option<String>,
    /// Where to look from: a vantage, a comma list, or `all`. Default: this machine; calypso in the twin.
    #[arg(long, global = true, value_name = "VANTAGE")]
    from: Option<String>,
    /// Use this inventory in place of the built-in one.
    #[arg(long, global = true, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Add the checks of a folder; may be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    checks: Vec<PathBuf>,
    /// Add the playbooks of a folder; may be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    playbooks: Vec<PathBuf>,
    /// Use this kubeconfig.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig, in place of its current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Deadline of the whole run, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    /// Use ASCII signs only.
    #[arg(long, global = true)]
    ascii: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=3600.0).contains(&s) => Ok(s),
        _ => Err("must be a number of seconds between 0.1 and 3600".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run checks and print a report with the diagnosis.
    Check(CheckArgs),
    /// Start from a symptom, such as an error message: run the playbooks that match it.
    Diagnose(DiagnoseArgs),
    /// Print the report of a recorded run (`fathom check -o ndjson > FILE`).
    Replay {
        /// The recording.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List checks, playbooks and probe kinds.
    List(OutputArgs),
    /// Explain a check, a playbook, a cause or a probe kind.
    Explain {
        /// Its id.
        id: String,
    },
    /// Check definition files; without files, the built-in catalogue and --inventory, --checks, --playbooks.
    Lint {
        /// Check, playbook or inventory files.
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of the report.
    Schema,
    /// Every service of the cluster: what stands behind it, and which lead nowhere.
    Services {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the ClusterRole that the checks need.
    Rbac,
    /// Measure latency and throughput of a server. This loads it: what will be sent is said first.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// The digital twin: its faults, a shell inside.
    Twin {
        #[command(subcommand)]
        command: TwinCommand,
    },
}

/// What to run and how to print it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check ids; without any, all checks.
    ids: Vec<String>,
    /// Only these layers (1 to 4); may be given several times.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4), allow_negative_numbers = true)]
    layer: Vec<u8>,
    /// Only the checks of this playbook; may be given several times.
    #[arg(long, value_name = "ID")]
    playbook: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A symptom and how to print the answer.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// What was seen, for instance "dial tcp 10.43.71.170:80: connect: network is unreachable".
    symptom: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Print one JSON document (the same as -o json).
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Output format.
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// What moves the exit code to 1.
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
}

impl OutputArgs {
    fn format(self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people.
    #[default]
    Human,
    /// One JSON document, `fathom.report/1`.
    Json,
    /// The stream of run events, one JSON object per line.
    Ndjson,
}

const BENCH_HELP: &str = "Examples:
  fathom bench vllm                                       the documented model server, 8 requests at a time
  fathom bench vllm --input image --requests 16           pages in place of texts
  fathom bench vllm --ladder --concurrency 64             climb to 64 at a time: where is the knee?
  fathom bench vllm --rate 4 --slo ttft=500ms,tpot=30ms   open loop: which share of requests is good?
  fathom bench vllm --save before.json                    keep a run ..
  fathom bench vllm --baseline before.json                .. and hold another one against it
  VLLM_API_KEY=.. fathom bench vllm --url https://HOST --model NAME

Exit codes: 0 good · 1 requests failed, or an SLO or the baseline was missed, or the model is not served · \
2 usage, or a ceiling would be passed · 3 invalid or inconclusive: no figure to rely on · 130 interrupted";

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// A vLLM server: time to first token, time per token, throughput, and whether these figures can be believed.
    ///
    /// It says what it will send before it sends anything, refuses a server on which requests wait, and stops when requests of
    /// others begin to. Ctrl+C prints the numbers so far. `--max-seconds` is its deadline; `--timeout` is that of checks.
    #[command(after_help = BENCH_HELP)]
    Vllm(Box<BenchArgs>),
    /// Print the JSON Schema of the bench report.
    Schema,
}

/// What to measure and how to print it.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// A model server of the inventory; without one, its first.
    name: Option<String>,
    /// Another server; its path may end in /v1. A key for it goes into VLLM_API_KEY.
    ///
    /// Users, passwords and queries are refused. What looks like a key in the path (16 or more letters and digits in a row, both of
    /// them, or a UUID) is shown as *** wherever the URL is shown; shorter ones are not known as such.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Its model; needed with --url.
    #[arg(long)]
    model: Option<String>,
    /// Closed loop: requests at a time. With --ladder the most.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Load")]
    concurrency: u32,
    /// Requests to measure.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 64, help_heading = "Load")]
    requests: u32,
    /// Requests before that, to warm up.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 4, help_heading = "Load")]
    warmup: u32,
    /// Open loop: requests per second, by a schedule made beforehand.
    #[arg(long, value_name = "R", allow_negative_numbers = true, conflicts_with = "concurrency", help_heading = "Load")]
    rate: Option<f64>,
    /// How the arrivals of an open loop are spread.
    #[arg(long, value_enum, default_value_t, help_heading = "Load")]
    arrivals: crate::bench::plan::Arrivals,
    /// Closed loops of 1, 2, 4, .. requests at a time, until more bring nothing.
    #[arg(long, help_heading = "Load")]
    ladder: bool,
    /// What is asked for.
    #[arg(long, value_enum, default_value_t, help_heading = "Load")]
    input: crate::bench::plan::Input,
    /// Words of a text prompt.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 256, help_heading = "Load")]
    prompt_words: u32,
    /// Tokens of each answer (a page: at most).
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=131_072), help_heading = "Load")]
    output_tokens: u32,
    /// Seed of schedule and prompts.
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    seed: u64,
    /// What makes a request good, such as ttft=500ms,tpot=30ms,e2e=10s.
    #[arg(long, value_name = "LIMITS", help_heading = "Judgement")]
    slo: Option<String>,
    /// Share of requests that must be good.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value_t = 0.9, value_parser = share, help_heading = "Judgement")]
    goodput: f64,
    /// Compare with a run that --save wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "ladder", help_heading = "Judgement")]
    baseline: Option<PathBuf>,
    /// How much slower than the baseline a median may be, as a share.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value_t = 0.05, value_parser = share, help_heading = "Judgement")]
    margin: f64,
    /// Keep the result as a baseline for later.
    #[arg(long, value_name = "FILE", help_heading = "Judgement")]
    save: Option<PathBuf>,
    /// Write every request as a line of CSV.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Print one JSON document, `fathom.bench/1`.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Seconds that one request may take.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = 60.0, value_parser = seconds, help_heading = "Ceilings")]
    request_timeout: f64,
    /// Ceiling on requests.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 20_000, help_heading = "Ceilings")]
    max_requests: u32,
    /// Ceiling on tokens, in and out, of all requests.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 5_000_000, help_heading = "Ceilings")]
    max_tokens: u64,
    /// Ceiling on time, in seconds.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = 300.0, value_parser = seconds, help_heading = "Ceilings")]
    max_seconds: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=1.0).contains(&s) => Ok(s),
        _ => Err("must be a share between 0 and 1".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
enum TwinCommand {
    /// List the faults that the twin can have, and the cause that each must be diagnosed as.
    Faults {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the twin's hosts.
    Hosts,
    /// Open a shell on a host of the twin.
    Shell {
        /// A host, such as calypso, or pod:apps/argilla.
        host: String,
        /// A command in place of the shell.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Runs the program; the process exits with what it returns.
pub fn main() -> ExitCode {
    // rustls has one provider here; without this line a client built before kube or rustls chose one would panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let outcome = match cli.command {
        None => tui::run(&cli.common),
        Some(Command::Check(args)) => check::run(&cli.common, &args),
        Some(Command::Diagnose(args)) => diagnose::run(&cli.common, &args),
        Some(Command::Replay { file, output }) => replay::run(&cli.common, &file, output),
        Some(Command::List(args)) => list::run(&cli.common, args),
        Some(Command::Explain { id }) => explain::run(&cli.common, &id),
        Some(Command::Lint { files }) => lint::run(&cli.common, &files),
        Some(Command::Schema) => schema::run(),
        Some(Command::Services { json }) => services::run(&cli.common, json),
        Some(Command::Rbac) => rbac::run(&cli.common),
        Some(Command::Bench { command }) => bench::run(&cli.common, &command),
        Some(Command::Twin { command }) => twin::run(&cli.common, command),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(0),
        Err(error) => {
            eprintln!("fathom: {}", crate::check::clean(&format!("{error:#}"), 4000));
            ExitCode::from(USAGE)
        }
    }
}
