use super::super::kube_client::fake::context;
use super::super::testing::{answer, http};
use super::*;
use crate::vantage::{Net, Source};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn observe(urls: &[String], environment: String) -> Value {
    let mut cx = context(Net::Here, None, Duration::from_secs(5));
    let mut vantage = (*cx.vantage).clone();
    vantage.files.environment = Some(Source::Text(environment));
    cx.vantage = Arc::new(vantage);
    let urls = urls.iter().map(|url| url.clone().try_into().unwrap()).collect();
    HttpProxy { urls, nameserver: None }.observe(&cx).await.facts.to_json()
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_the_server_that_answers() {
    let asked = Arc::new(Mutex::new(String::new()));
    let log = asked.clone();
    let proxy = http(move |request| {
        request.clone_into(&mut log.lock().unwrap());
        b"HTTP/1.1 503 Service Unavailable\r\nvia: 1.1 gate (squid/6.13)\r\nserver: squid/6.13\r\ncontent-length: 0\r\n\r\n".to_vec()
    })
    .await;
    // Loopback itself is never proxied; 0.0.0.0 is another name of this machine.
    let server = http(|_| answer("200 OK", "fine")).await;
    let url = format!("http://0.0.0.0:{}/health", server.port());
    let secret = format!("HTTP_PROXY=http://user:hunter2@{proxy}\nNO_PROXY=.example\n");
    let facts = observe(std::slice::from_ref(&url), secret).await;
    assert_eq!((&facts["status"], &facts["direct_ok"]), (&json!(503), &json!(true)));
    assert_eq!((&facts["takes"], &facts["set"]), (&json!([format!("0.0.0.0:{}", server.port())]), &json!(["HTTP_PROXY", "NO_PROXY"])));
    assert_eq!(facts["by"], json!("1.1 gate (squid/6.13)"));
    assert!(!facts.to_string().contains("hunter2"), "{facts}");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.starts_with(&format!("GET {url} HTTP/1.1\r\n")), "as to a proxy: {asked}");
    assert!(!asked.to_ascii_lowercase().contains("authorization"), "{asked}");
}

#[tokio::test]
async fn for_https_the_proxy_is_asked_for_a_tunnel() {
    let asked = Arc::new(Mutex::new(String::new()));
    let log = asked.clone();
    let proxy = http(move |request| {
        request.clone_into(&mut log.lock().unwrap());
        b"HTTP/1.1 403 Forbidden\r\nserver: gate\r\ncontent-length: 0\r\n\r\n".to_vec()
    })
    .await;
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let facts = observe(&[format!("https://0.0.0.0:{port}/version")], format!("https_proxy={proxy}\n")).await;
    assert_eq!((&facts["status"], &facts["direct_ok"], &facts["by"]), (&json!(403), &json!(true), &json!("gate")));
    assert!(asked.lock().unwrap().starts_with(&format!("CONNECT 0.0.0.0:{port} HTTP/1.1\r\n")));
}

#[tokio::test]
async fn without_variables_nobody_is_asked() {
    let facts = observe(&["http://10.43.0.1/".to_owned()], String::new()).await;
    assert_eq!((&facts["set"], &facts["takes"]), (&json!([]), &json!([])));
    assert_eq!(facts["status"], json!({"unknown": NOBODY_ASKED}));
    // A proxy that is not there is no answer, and says nothing about the server.
    let facts = observe(&["http://0.0.0.0:9/".to_owned()], "HTTP_PROXY=127.0.0.1:9\n".to_owned()).await;
    assert_eq!((&facts["status"], &facts["error"], &facts["direct_ok"]), (&json!(0), &json!("ECONNREFUSED"), &json!(false)));
}
