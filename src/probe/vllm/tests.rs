use super::super::testing::{answer, http, listen, read_request, vantage};
use super::*;
use crate::check::Facts;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;

fn probe(at: SocketAddrV4, metrics_port: u16, model: &str) -> Vllm {
    let with = toml::toml! { address = "127.0.0.1" port = 1 model = "" first_token_ms = 800 };
    let probe: Vllm = toml::Value::Table(with).try_into().unwrap();
    assert_eq!((probe.max_tokens, probe.metrics_port), (16, None));
    Vllm { address: *at.ip(), port: at.port(), metrics_port: Some(metrics_port), model: model.into(), ..probe }
}

async fn look(probe: &Vllm) -> Facts {
    let seen = probe.look(&vantage(""), Instant::now() + Duration::from_secs(8)).await;
    for fact in KIND.facts {
        let told = seen.facts.get(fact.path).is_some() || seen.facts.unknowns().contains_key(fact.path);
        assert!(told, "{} is neither known nor unknown", fact.path);
    }
    seen.facts
}

/// A server as captured; each scrape after the first has 8 tokens and steps more.
async fn server(stream: &'static [u8]) -> SocketAddrV4 {
    let scrapes = AtomicU64::new(0);
    http(move |request| match request.split(' ').nth(1).unwrap_or_default() {
        "/health" => answer("200 OK", ""),
        "/version" => include_bytes!("../../../tests/data/vllm/get_version.txt").to_vec(),
        "/v1/models" => {
            // A name in it was edited after the capture: its content-length is no longer right.
            let capture = include_str!("../../../tests/data/vllm/get_v1_models.txt");
            answer("200 OK", capture.split_once("\r\n\r\n").unwrap().1)
        }
        "/metrics" => {
            let n = 8 * scrapes.fetch_add(1, Ordering::Relaxed);
            let text = include_str!("../../../tests/data/vllm/metrics_under_load.txt");
            let text = text.replace("} 14278.0", &format!("}} {}.0", 14278 + n)).replace("} 8140.0", &format!("}} {}.0", 8140 + n));
            answer("200 OK", &text)
        }
        "/v1/chat/completions" => stream.to_vec(),
        _ => answer("404 Not Found", "{\"detail\":\"Not Found\"}"),
    })
    .await
}

#[tokio::test]
async fn a_healthy_server() {
    let at = server(include_bytes!("../../../tests/data/vllm/raw_stream_bytes.bin")).await;
    let facts = look(&probe(at, at.port(), "tiny")).await;
    let get = |path| facts.get(path).cloned().unwrap_or_default();
    assert_eq!((get("health_status"), get("version"), get("connect_error")), (json!(200), json!("0.32.0"), json!("")));
    assert_eq!(get("models"), json!(["tiny", "deepseek-ai/DeepSeek-OCR"]));
    assert_eq!((get("model_served"), get("max_model_len")), (json!(true), json!(512)));
    assert_eq!((get("canary.complete"), get("canary.error"), get("canary.first_token")), (json!(true), json!(""), json!(true)));
    assert_eq!((get("metrics.running"), get("metrics.generated"), get("metrics.steps")), (json!(8), json!(8), json!(8)));
    assert_eq!((get("metrics.kv_cache_percent"), get("metrics.preemptions")), (json!(0.049), json!(0)));
}

#[tokio::test]
async fn another_model_and_a_closed_metrics_port() {
    let at = server(include_bytes!("../../../tests/data/vllm/err_unknown_model_stream.txt")).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let facts = look(&probe(at, closed, "nope")).await;
    assert_eq!((facts.get("model_served"), facts.get("canary.status")), (Some(&json!(false)), Some(&json!(404))));
    assert_eq!(facts.get("metrics.status"), Some(&json!(0)));
    assert_eq!(facts.unknowns()["metrics.running"], "/metrics: ECONNREFUSED");
    assert_eq!(facts.unknowns()["max_model_len"], "the server does not say");
}

#[tokio::test]
async fn no_connection_decides_little() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let facts = look(&probe(SocketAddrV4::new(Ipv4Addr::LOCALHOST, closed), closed, "tiny")).await;
    assert_eq!(facts.get("connect_error"), Some(&json!("ECONNREFUSED")));
    assert_eq!(facts.get("canary.first_token"), Some(&json!(false)));
    assert_eq!(facts.unknowns()["health_status"], NO_CONNECTION);
    assert_eq!(facts.unknowns()["metrics.generated"], "no canary was sent");
    assert_eq!(facts.unknowns()["unit.out_of_memory"], "the inventory names no systemd unit");
}

#[tokio::test]
async fn metrics_on_a_port_of_their_own_are_told_apart_by_family() {
    let api =
        http(
            |request| {
                if request.starts_with("GET /metrics ") { answer("200 OK", "vllm:num_requests_running 0\n") } else { answer("404 N", "") }
            },
        )
        .await;
    for (body, family) in
        [("nv_inference_count 1\n", "triton"), ("DCGM_FI_DEV_GPU_UTIL 3\n", "dcgm"), (" \n", "empty"), ("up 1\n", "other")]
    {
        let other = http(move |_| answer("200 OK", body)).await;
        let facts = look(&probe(api, other.port(), "tiny")).await;
        assert_eq!((facts.get("metrics.family"), facts.get("metrics.api_family")), (Some(&json!(family)), Some(&json!("vllm"))));
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert_eq!(look(&probe(api, closed, "tiny")).await.get("metrics.family"), Some(&json!("none")));
}

#[tokio::test]
async fn a_server_that_is_no_vllm() {
    let at = http(|_| answer("200 OK", "<html>")).await;
    let facts = look(&probe(at, at.port(), "tiny")).await;
    assert_eq!(facts.unknowns()["model_served"], "/v1/models: not the answer of a vLLM server");
    assert_eq!(facts.unknowns()["metrics.running"], "no metric of vLLM in the answer");
    assert_eq!(facts.get("canary.error"), Some(&json!("not an event stream but ``")));
}

/// Sends the head and a first piece at once, and the rest a while later, as a narrow link would.
#[tokio::test]
async fn a_scrape_that_trickles_in_is_measured_and_what_is_cut_off_is_no_empty_page() {
    let page = include_str!("../../../tests/data/vllm/metrics_under_load.txt");
    let slow = listen(move |mut stream| async move {
        let request = read_request(&mut stream).await;
        let whole = answer("200 OK", if request.starts_with("GET /metrics ") { page } else { "" });
        let (first, rest) = whole.split_at(whole.len().min(200));
        let _ = stream.write_all(first).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = stream.write_all(rest).await;
    })
    .await;
    let facts = look(&probe(slow, slow.port(), "tiny")).await;
    let number = |path| facts.get(path).and_then(Value::as_f64).unwrap();
    assert!((250.0..2000.0).contains(&number("metrics.body_ms")), "{}", number("metrics.body_ms"));
    assert_eq!(number("metrics.size_bytes"), page.len() as f64);
    assert!(number("metrics.kb_per_s") < page.len() as f64 / 250.0);

    let cut = http(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n".to_vec()).await;
    let facts = look(&probe(cut, cut.port(), "tiny")).await;
    assert_eq!(facts.unknowns()["metrics.family"], "/metrics: EOF after 0 bytes of the body");
    assert_eq!(facts.get("metrics.status"), Some(&json!(200)));
}
