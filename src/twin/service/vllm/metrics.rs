//! vLLM's metrics, under the names of 0.32.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const REASONS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0];
const PER_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const REQUEST: &[f64] =
    &[0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0];
const PER_REQUEST: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const PREEMPTED: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
const STEP: &[f64] = &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// Blocks of the KV cache.
const KV_BLOCKS: f64 = 16_384.0;
/// Labels of `vllm:cache_config_info`, the engine's number aside: the KV cache has 16384 blocks of 128 tokens.
const CACHE_CONFIG: &[(&str, &str)] = &[
    ("_block_size_resolved", "True"),
    ("block_size", "128"),
    ("cache_dtype", "auto"),
    ("cache_hit_alignment_tokens", "None"),
    ("effective_attention_block_size", "128"),
    ("enable_mamba_shared_prefix_checkpoint", "False"),
    ("enable_prefix_caching", "True"),
    ("gpu_memory_utilization", "0.92"),
    ("hash_block_size", "None"),
    ("is_attention_free", "False"),
    ("kv_cache_dtype_skip_layers", "[]"),
    ("kv_cache_layout", "None"),
    ("kv_cache_max_concurrency", "4096.0"),
    ("kv_cache_memory_bytes", "1073741824"),
    ("kv_cache_size_tokens", "2097152"),
    ("kv_offloading_backend", "native"),
    ("kv_offloading_size", "None"),
    ("kv_sharing_fast_prefill", "False"),
    ("mamba_block_size", "None"),
    ("mamba_cache_dtype", "auto"),
    ("mamba_cache_mode", "none"),
    ("mamba_page_size_padded", "None"),
    ("mamba_ssm_cache_dtype", "float32"),
    ("num_cpu_blocks", "None"),
    ("num_gpu_blocks", "16384"),
    ("num_gpu_blocks_override", "None"),
    ("prefix_cache_retention_interval", "0"),
    ("prefix_caching_hash_algo", "sha256"),
    ("prefix_match_unit", "None"),
    ("replayssm_buffer_len", "16"),
    ("skip_page_size_padded", "None"),
    ("sliding_window", "None"),
    ("swa_bounded_replay", "True"),
    ("use_kda_recoverssm", "False"),
    ("use_replayssm", "False"),
    ("user_specified_block_size", "False"),
];

/// One histogram.
struct Histogram {
    name: &'static str,
    help: &'static str,
    bounds: Vec<f64>,
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(name: &'static str, help: &'static str, bounds: &[f64]) -> Self {
        Self { name, help, bounds: bounds.to_vec(), buckets: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    fn record(&mut self, value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(&self.bounds) {
            *bucket += u64::from(value <= *bound);
        }
        self.count += 1;
        self.sum += value;
    }
}

/// 1, 2, 5, 10, ... up to the longest sequence.
fn one_two_five(most: u32) -> Vec<f64> {
    let decades = (0..9).flat_map(|exponent| [1u32, 2, 5].map(|digit| f64::from(digit) * 10f64.powi(exponent)));
    decades.take_while(|bound| *bound <= f64::from(most)).collect()
}

/// A request that has ended by itself.
pub(super) struct Finished {
    pub(super) reason: &'static str,
    pub(super) prompt_tokens: u32,
    pub(super) tokens: u32,
    pub(super) max_tokens: u32,
    pub(super) queued: Duration,
    pub(super) prefill: Duration,
    pub(super) decode: Duration,
    pub(super) whole: Duration,
}

/// What the engine counts.
pub(super) struct Counts {
    /// Requests in the batch.
    pub(super) running: u32,
    prompt_tokens: u64,
    generated: u64,
    preempted: u64,
    /// Requests refused because the queue is full.
    pub(super) rejected: u64,
    ended: [u64; REASONS.len()],
    prompt: Histogram,
    generation: Histogram,
    steps: Histogram,
    most_generated: Histogram,
    answers: Histogram,
    max_tokens: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    per_token: Histogram,
    whole: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    preemptions: Histogram,
    computed: Histogram,
}

impl Counts {
    pub(super) fn new(max_model_len: u32) -> Self {
        let lengths = one_two_five(max_model_len);
        let h = Histogram::new;
        Self {
            running: 0,
            prompt_tokens: 0,
            generated: 0,
            preempted: 0,
            rejected: 0,
            ended: [0; REASONS.len()],
            prompt: h("request_prompt_tokens", "Number of prefill tokens processed.", &lengths),
            generation: h("request_generation_tokens", "Number of generation tokens processed.", &lengths),
            steps: h("iteration_tokens_total", "Histogram of number of tokens per engine_step.", STEP),
            most_generated: h("request_max_num_generation_tokens", "Most generation tokens asked for.", &lengths),
            answers: h("request_params_n", "Answers asked for.", PER_REQUEST),
            max_tokens: h("request_params_max_tokens", "Histogram of the max_tokens request parameter.", &lengths),
            first_token: h("time_to_first_token_seconds", "Histogram of time to first token in seconds.", FIRST_TOKEN),
            inter_token: h("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", PER_TOKEN),
            per_token: h("request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", PER_TOKEN),
            whole: h("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", REQUEST),
            queue: h("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", REQUEST),
            inference: h("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", REQUEST),
            prefill: h("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", REQUEST),
            decode: h("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", REQUEST),
            preemptions: h("request_num_preemptions", "Preemptions of a request.", PREEMPTED),
            computed: h("request_prefill_kv_computed_tokens", "Tokens computed in prefill, cached ones aside.", &lengths),
        }
    }

    /// The prefill step, which yields the first token.
    pub(super) fn first_token(&mut self, prompt_tokens: u32, after: Duration) {
        self.prompt_tokens += u64::from(prompt_tokens);
        self.generated += 1;
        self.steps.record(f64::from(prompt_tokens));
        self.first_token.record(after.as_secs_f64());
    }

    /// A decode step.
    pub(super) fn next_token(&mut self, after: Duration) {
        self.generated += 1;
        self.steps.record(1.0);
        self.inter_token.record(after.as_secs_f64());
    }

    /// Tokens of other clients' requests: every generated one is a step's, and so is a prefill. And their preemptions.
    pub(super) fn others(&mut self, prompt: u64, generated: u64, preempted: u64) {
        self.prompt_tokens += prompt;
        self.generated += generated;
        self.preempted += preempted;
        let steps = generated / 8 + prompt / 2048;
        self.steps.count += steps;
        self.steps.sum += (prompt + generated) as f64;
        if let Some(bucket) = self.steps.buckets.last_mut() {
            *bucket += steps;
        }
    }

    pub(super) fn finished(&mut self, request: &Finished) {
        self.end(request.reason);
        self.prompt.record(f64::from(request.prompt_tokens));
        self.generation.record(f64::from(request.tokens));
        self.most_generated.record(f64::from(request.tokens));
        self.answers.record(1.0);
        self.max_tokens.record(f64::from(request.max_tokens));
        self.whole.record(request.whole.as_secs_f64());
        self.queue.record(request.queued.as_secs_f64());
        self.prefill.record(request.prefill.as_secs_f64());
        self.decode.record(request.decode.as_secs_f64());
        self.preemptions.record(0.0);
        self.computed.record(f64::from(request.prompt_tokens));
        self.inference.record((request.prefill + request.decode).as_secs_f64());
        self.per_token.record(request.decode.as_secs_f64() / f64::from(request.tokens.saturating_sub(1).max(1)));
    }

    pub(super) fn aborted(&mut self) {
        self.end("abort");
    }

    fn end(&mut self, reason: &str) {
        for (count, known) in self.ended.iter_mut().zip(REASONS) {
            *count += u64::from(known == reason);
        }
    }

    /// The page; `load` is what others make of it, and `cpu` the API process' processor time.
    pub(super) fn render(&self, model: &str, load: &Load, started: SystemTime, cpu: Duration) -> String {
        let mut page = Page { text: String::new(), model: escape(model), created: started };
        page.process(cpu);
        for (name, help) in [
            ("estimated_flops_per_gpu", "Estimated floating point operations."),
            ("estimated_read_bytes_per_gpu", "Estimated bytes read from memory."),
            ("estimated_write_bytes_per_gpu", "Estimated bytes written to memory."),
        ] {
            page.counter(name, help, 0);
        }
        self.gauges(&mut page, load);
        self.counters(&mut page);
        for histogram in self.histograms() {
            page.histogram(histogram);
        }
        page.cache_config();
        page.text
    }

    fn gauges(&self, page: &mut Page, load: &Load) {
        let (running, waiting) = (f64::from(self.running + load.running), f64::from(load.waiting));
        page.gauge("num_requests_running", "Number of requests in model execution batches.", running);
        page.gauge("num_requests_waiting", "Number of requests waiting to be processed.", waiting);
        page.family("num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.");
        page.value("num_requests_waiting_by_reason", "", ",reason=\"capacity\"", waiting);
        page.value("num_requests_waiting_by_reason", "", ",reason=\"deferred\"", 0.0);
        page.family("engine_sleep_state", "gauge", "Whether the engine sleeps, and how deeply.");
        for (state, on) in [("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)] {
            page.value("engine_sleep_state", "", &format!(",sleep_state=\"{state}\""), on);
        }
        let blocks = running * 8.0;
        let used = load.kv_cache.max((blocks / KV_BLOCKS).min(1.0));
        page.gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", used);
    }

    fn counters(&self, page: &mut Page) {
        page.counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", self.prompt_tokens);
        for (name, help) in [
            ("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
            ("external_prefix_cache_queries", "Tokens looked up in the caches of other instances."),
            ("external_prefix_cache_hits", "Tokens found there."),
            ("mm_cache_queries", "Images looked up in the cache."),
            ("mm_cache_hits", "Images found there."),
        ] {
            page.counter(name, help, 0);
        }
        page.counter("num_preemptions", "Cumulative number of preemption from the engine.", self.preempted);
        page.counter("prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens);
        let computed = [("local_compute", self.prompt_tokens), ("local_cache_hit", 0), ("external_kv_transfer", 0)];
        page.by_label("prompt_tokens_by_source", "Prompt tokens by source.", |word, model| after("source", word, model), &computed);
        page.counter("prompt_tokens_cached", "Number of cached prompt tokens (local + external).", 0);
        let tiers = ["device", "host", "p2p", "disk", "external_unspecified"].map(|tier| (tier, 0));
        page.by_label(
            "prompt_tokens_cached_by_source",
            "Cached prompt tokens by tier.",
            |word, model| after("source", word, model),
            &tiers,
        );
        page.counter("generation_tokens", "Number of generation tokens processed.", self.generated);
        let ended: Vec<(&str, u64)> = REASONS.into_iter().zip(self.ended).collect();
        let reason = |word: &str, model: &str| format!("engine=\"0\",finished_reason=\"{word}\",model_name=\"{model}\"");
        page.by_label("request_success", "Count of successfully processed requests.", reason, &ended);
        // Counted by the API server, which is no engine.
        let refused = [("max_num_queued_reqs", self.rejected), ("max_num_queued_tokens", 0)];
        let by_limit = |word: &str, model: &str| format!("model_name=\"{model}\",reason=\"{word}\"");
        page.by_label("admission_rejections", "Requests refused by a limit of the queue.", by_limit, &refused);
    }

    fn histograms(&self) -> [&Histogram; 16] {
        [
            &self.prompt,
            &self.generation,
            &self.steps,
            &self.most_generated,
            &self.answers,
            &self.max_tokens,
            &self.first_token,
            &self.inter_token,
            &self.per_token,
            &self.whole,
            &self.queue,
            &self.inference,
            &self.prefill,
            &self.decode,
            &self.preemptions,
            &self.computed,
        ]
    }
}

/// What others make of the gauges.
pub(super) struct Load {
    /// Their requests in the batch.
    pub(super) running: u32,
    /// Requests that wait.
    pub(super) waiting: u32,
    /// The share of the KV cache that is in use at least.
    pub(super) kv_cache: f64,
}

/// A label set with one more label behind the model's name.
fn after(label: &str, word: &str, model: &str) -> String {
    format!("engine=\"0\",model_name=\"{model}\",{label}=\"{word}\"")
}

/// Escapes a label value (Prometheus text format 0.0.4).
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    text: String,
    model: String,
    created: SystemTime,
}

impl Page {
    /// What prometheus_client's process collector adds.
    fn process(&mut self, cpu: Duration) {
        let help = "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n";
        writeln!(self.text, "{help}# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {:.2}", cpu.as_secs_f64()).ok();
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}").ok();
    }

    /// Labels are in alphabetical order: `before` lies between engine and model name, `after` behind.
    fn value(&mut self, name: &str, before: &str, after: &str, value: f64) {
        writeln!(self.text, "vllm:{name}{{engine=\"0\"{before},model_name=\"{}\"{after}}} {value:?}", self.model).ok();
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.value(name, "", "", value);
    }

    fn started(&self) -> f64 {
        self.created.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }

    fn created(&mut self, name: &str, help: &str) {
        self.gauge(&format!("{name}_created"), help, self.started());
    }

    /// A counter with a value for each word; `labels` makes the label set of a word and the model.
    fn by_label(&mut self, name: &str, help: &str, labels: impl Fn(&str, &str) -> String, values: &[(&str, u64)]) {
        let started = self.started();
        for (suffix, kind) in [("total", "counter"), ("created", "gauge")] {
            self.family(&format!("{name}_{suffix}"), kind, help);
            for (word, count) in values {
                let value = if suffix == "total" { *count as f64 } else { started };
                writeln!(self.text, "vllm:{name}_{suffix}{{{}}} {value:?}", labels(word, &self.model)).ok();
            }
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(&format!("{name}_total"), "counter", help);
        self.value(&format!("{name}_total"), "", "", value as f64);
        self.created(name, help);
    }

    fn histogram(&mut self, h: &Histogram) {
        self.family(h.name, "histogram", h.help);
        let name = format!("{}_bucket", h.name);
        for (count, bound) in h.buckets.iter().zip(&h.bounds) {
            self.value(&name, &format!(",le=\"{bound:?}\""), "", *count as f64);
        }
        self.value(&name, ",le=\"+Inf\"", "", h.count as f64);
        self.value(&format!("{}_count", h.name), "", "", h.count as f64);
        self.value(&format!("{}_sum", h.name), "", "", h.sum);
        self.created(h.name, h.help);
    }

    fn cache_config(&mut self) {
        self.family("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
        let mut labels: Vec<(&str, &str)> = CACHE_CONFIG.to_vec();
        labels.push(("engine", "0"));
        labels.sort_unstable();
        let labels: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        writeln!(self.text, "vllm:cache_config_info{{{}}} 1.0", labels.join(",")).ok();
    }
}
