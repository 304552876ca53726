use super::*;
use futures::StreamExt;
use std::net::Ipv4Addr;
use std::time::Instant;

const MODEL: &str = "deepseek-ai/DeepSeek-OCR";

struct Twin {
    handle: VllmHandle,
    client: reqwest::Client,
    base: String,
}

fn start() -> Twin {
    rustls::crypto::ring::default_provider().install_default().ok();
    let pace = Pace { first_token: Duration::from_millis(30), interval: Duration::from_millis(5) };
    let vllm = Vllm { model: MODEL.into(), max_model_len: 8192, pace };
    let handle = vllm.serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base = format!("http://{}", handle.address().unwrap());
    Twin { handle, client: reqwest::Client::builder().no_proxy().build().unwrap(), base }
}

fn chat(model: &str, stream: bool, max_tokens: i64) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Free OCR."}], "max_tokens": max_tokens, "stream": stream,
        "stream_options": {"include_usage": true}})
}

impl Twin {
    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let body = body.to_string();
        self.client.post(format!("{}{path}", self.base)).header("content-type", "application/json").body(body).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics").await;
        let line = page.lines().find(|line| line.starts_with(&format!("vllm:{name}{{"))).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Replaces what differs from run to run.
fn stable(text: &str) -> String {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut line = line.to_owned();
        for (from, to) in [("\"id\":\"", "\",\"object"), ("\"created\":", ",\"model")] {
            if let Some(start) = line.find(from).map(|at| at + from.len()) {
                let end = start + line[start..].find(to).unwrap();
                line.replace_range(start..end, "X");
            }
        }
        out.push(line);
    }
    out.join("\n")
}

#[tokio::test]
async fn a_stream_has_the_shape_of_the_captures() {
    let twin = start();
    let answer = twin.post("/v1/chat/completions", &chat(MODEL, true, 2)).await;
    let headers: Vec<_> = answer.headers().keys().map(|k| k.as_str().to_owned()).collect();
    assert_eq!(headers, ["date", "server", "content-type", "vary", "transfer-encoding"]);
    let head = format!("data: {{\"id\":\"X\",\"object\":\"chat.completion.chunk\",\"created\":X,\"model\":\"{MODEL}\",\"choices\":");
    let expected = [
        format!(
            "{head}[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}],\"prompt_token_ids\":null,\"prompt_text\":null}}"
        ),
        format!("{head}[{{\"index\":0,\"delta\":{{\"content\":\"#\"}},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}}]}}"),
        format!(
            "{head}[{{\"index\":0,\"delta\":{{\"content\":\" Vessel\"}},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null}}]}}"
        ),
        format!(
            "{head}[],\"usage\":{{\"prompt_tokens\":3,\"total_tokens\":5,\"completion_tokens\":2}},\"system_fingerprint\":\"vllm-0.32.0-03de073c\"}}"
        ),
        "data: [DONE]".to_owned(),
    ];
    assert_eq!(stable(&answer.text().await.unwrap()), expected.join("\n"));
    assert_eq!(twin.metric("generation_tokens_total").await, 2.0);
    assert_eq!(twin.metric("iteration_tokens_total_count").await, 2.0);
    assert_eq!(twin.metric("num_requests_running").await, 0.0);
}

#[tokio::test]
async fn tokens_come_at_the_pace_and_stop_at_the_end_of_the_text() {
    let twin = start();
    let started = Instant::now();
    let answer: Value =
        serde_json::from_str(&twin.post("/v1/chat/completions", &chat(MODEL, false, 4000)).await.text().await.unwrap()).unwrap();
    let took = started.elapsed();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    let least = Duration::from_millis(30 + 5 * (tokens - 1));
    assert!(took >= least, "{tokens} tokens in {took:?}");
    assert!(
        twin.get("/metrics")
            .await
            .1
            .contains("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"deepseek-ai/DeepSeek-OCR\"} 1.0\n")
    );
}

#[tokio::test]
async fn a_frozen_engine_is_all_green_and_says_nothing() {
    let twin = start();
    twin.handle.set_frozen(true);
    for path in ["/health", "/ping", "/version", "/v1/models", "/metrics"] {
        assert_eq!(twin.get(path).await.0, 200, "{path}");
    }
    let answer = twin.post("/v1/chat/completions", &chat(MODEL, true, 4)).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.bytes_stream();
    assert!(tokio::time::timeout(Duration::from_millis(200), body.next()).await.is_err());
    assert_eq!((twin.metric("num_requests_running").await, twin.metric("generation_tokens_total").await), (0.0, 0.0));
    twin.handle.set_frozen(false);
    assert!(body.next().await.unwrap().unwrap().starts_with(b"data: {"));
}

#[tokio::test]
async fn refusals_are_word_for_word() {
    let twin = start();
    let path = "/v1/chat/completions";
    for (body, status, says) in [
        (
            chat("nope", true, 1),
            404,
            "{\"error\":{\"message\":\"The model `nope` does not exist. Valid aliases: deepseek-ai/DeepSeek-OCR.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}",
        ),
        (
            json!({"model": MODEL}),
            400,
            "{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 1 items>'}\",\"type\":\"Bad Request\",\"param\":\"body.messages\",\"code\":400}}",
        ),
        (
            chat(MODEL, false, 0),
            400,
            "{\"error\":{\"message\":\"max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)\",\"type\":\"BadRequestError\",\"param\":\"max_tokens\",\"code\":400}}",
        ),
        (
            json!({"model": MODEL, "messages": []}),
            400,
            "{\"error\":{\"message\":\"Cannot apply chat template to an empty conversation. Provide at least one message.\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}",
        ),
    ] {
        let answer = twin.post(path, &body).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (status, says.to_owned()));
    }
    let url = format!("{}{path}", twin.base);
    let bad = twin
        .client
        .post(&url)
        .header("content-type", "application/json")
        .body("{\"model\": \"tiny\", \"messages\": ")
        .send()
        .await
        .unwrap();
    assert!(bad.text().await.unwrap().contains("'type': 'json_invalid', 'loc': 'body."));
    let plain = twin.client.post(&url).body("x").send().await.unwrap();
    assert!(plain.text().await.unwrap().contains("Only 'application/json' is allowed"));
    assert_eq!(twin.get("/nothere").await, (404, "{\"detail\":\"Not Found\"}".to_owned()));
    let wrong = twin.client.get(&url).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"POST".parse().unwrap()));
}

#[tokio::test]
async fn who_leaves_is_an_abort() {
    let twin = start();
    let mut body = twin.post("/v1/chat/completions", &chat(MODEL, true, 4000)).await.bytes_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(twin.metric("num_requests_running").await, 1.0);
    drop(body);
    let gone = async {
        while twin.metric("num_requests_running").await > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    assert!(twin.get("/metrics").await.1.contains("finished_reason=\"abort\",model_name=\"deepseek-ai/DeepSeek-OCR\"} 1.0\n"));
}

#[tokio::test]
async fn an_engine_that_dies_says_so_in_the_captured_bytes() {
    let twin = start();
    twin.handle.set_trouble(Trouble::Crash);
    let answer = twin.post("/v1/chat/completions", &chat(MODEL, true, 8)).await;
    assert_eq!(answer.status(), 200);
    let (stream, capture) = (answer.text().await.unwrap(), include_str!("../../../../tests/data/vllm/engine_death_stream.txt"));
    let tail = capture.lines().skip_while(|line| !line.starts_with("data: {\"error\"")).filter(|line| line.starts_with("data: "));
    assert_eq!(
        stream.lines().rev().filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>(),
        tail.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>()
    );
    assert_eq!(twin.get("/health").await, (503, String::new()));
    assert_eq!(twin.post("/v1/chat/completions", &chat(MODEL, true, 8)).await.status(), 500);
    twin.handle.set_trouble(Trouble::None);
    assert_eq!(twin.get("/health").await.0, 200);
}

#[tokio::test]
async fn a_full_queue_and_the_n_gram_processor_refuse_word_for_word() {
    let twin = start();
    let mut request = chat(MODEL, false, 1);
    request["vllm_xargs"] = json!({"ngram_size": -1});
    let answer = twin.post("/v1/chat/completions", &request).await;
    assert_eq!(answer.status(), 400);
    let expected = r#"{"error":{"message":"`ngram_size` has to be a strictly positive integer, got -1.","type":"BadRequestError","param":null,"code":400}}"#;
    assert_eq!(answer.text().await.unwrap(), expected);
    twin.handle.set_trouble(Trouble::QueueFull);
    let answer = twin.post("/v1/chat/completions", &chat(MODEL, true, 8)).await;
    assert_eq!(answer.status(), 503);
    let message = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.";
    let expected = format!(r#"{{"error":{{"message":"{message}","type":"Service Unavailable","param":null,"code":503}}}}"#);
    assert_eq!(answer.text().await.unwrap(), expected);
}

#[tokio::test]
async fn traffic_of_others_moves_the_counters_and_a_closed_port_refuses() {
    let twin = start();
    let busy = Traffic { running: 3, waiting: 2, prompt_per_s: 50_000, generated_per_s: 100_000, ..Traffic::default() };
    twin.handle.set_traffic(busy);
    let before = twin.metric("generation_tokens_total").await;
    assert_eq!((twin.metric("num_requests_running").await, twin.metric("num_requests_waiting").await), (3.0, 2.0));
    assert!(twin.metric("generation_tokens_total").await > before);
    twin.handle.close().await;
    let refused = twin.client.get(format!("{}/health", twin.base)).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    twin.handle.open().unwrap();
    assert_eq!(twin.get("/health").await.0, 200);
}
