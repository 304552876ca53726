use super::*;
use crate::twin::cluster::tests::inventory;
use crate::twin::service::pki::Validity;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api as Kube, ListParams};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

struct Twin {
    api: ApiHandle,
    cluster: Cluster,
    authority: Arc<Authority>,
    address: SocketAddrV4,
}

fn start() -> Twin {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let authority = Arc::new(Authority::new("k3s-server-ca").unwrap());
    let tls = authority.server_that_asks(&["kubernetes"], &[*address.ip()], Validity::Current).unwrap();
    let cluster = Cluster::from_inventory(&inventory());
    let api = serve(&Net::Here, address, cluster.clone(), authority.clone(), tls, "v1.33.4+k3s1").unwrap();
    let address = api.address().unwrap();
    Twin { api, cluster, authority, address }
}

fn client(twin: &Twin) -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca = reqwest::Certificate::from_pem(twin.authority.pem().as_bytes()).unwrap();
    let identity = twin.authority.client(&User::admin(), Validity::Current).unwrap();
    let pem = format!("{}{}", identity.key_pem, identity.certificate_pem);
    let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([ca]).identity(identity).build().unwrap()
}

async fn kube(twin: &Twin, validity: Validity) -> kube::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let text = twin.authority.kubeconfig(&format!("https://{}", twin.address), validity).unwrap();
    let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    config.default_retry = false;
    config.proxy_url = None;
    kube::Client::try_from(config).unwrap()
}

async fn json(client: &reqwest::Client, twin: &Twin, path: &str) -> (u16, Value) {
    let answer = client.get(format!("https://{}{path}", twin.address)).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn a_kube_client_reads_everything() {
    let twin = start();
    let client = kube(&twin, Validity::Current).await;
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.33.4+k3s1");
    let all = ListParams::default();
    assert_eq!(Kube::<Node>::all(client.clone()).list(&all).await.unwrap().items.len(), 3);
    assert_eq!(Kube::<Service>::namespaced(client.clone(), "apps").get("argilla").await.unwrap().metadata.name.unwrap(), "argilla");
    assert!(Kube::<Pod>::namespaced(client.clone(), "nothere").list(&all).await.unwrap().items.is_empty());

    // A slice without endpoints has `null` in their place.
    twin.cluster.set_selector("apps", "argilla", BTreeMap::from([("app".into(), "typo".into())]));
    let of = ListParams::default().labels("kubernetes.io/service-name=argilla");
    let slices = Kube::<EndpointSlice>::namespaced(client.clone(), "apps").list(&of).await.unwrap();
    assert_eq!(slices.items.len(), 1);
    assert!(slices.items[0].endpoints.is_empty());

    match Kube::<Service>::namespaced(client, "apps").get("nothere").await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, status.reason.as_str()), (404, "NotFound")),
        other => panic!("{other:?}"),
    }
    twin.api.stop().await;
}

#[tokio::test]
async fn no_certificate_and_an_expired_one_get_401() {
    let twin = start();
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca = reqwest::Certificate::from_pem(twin.authority.pem().as_bytes()).unwrap();
    let anonymous = reqwest::Client::builder().no_proxy().user_agent("curl/8").tls_certs_only([ca]).build().unwrap();
    let answer = anonymous.get(format!("https://{}/version", twin.address)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["content-length"], "157", "as the real server's");
    match kube(&twin, Validity::Expired).await.apiserver_version().await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lists_page_select_and_refuse_as_the_real_server_does() {
    let twin = start();
    let client = client(&twin);
    let (status, page) = json(&client, &twin, "/api/v1/pods?limit=1").await;
    assert_eq!((status, page["items"].as_array().unwrap().len(), &page["metadata"]["remainingItemCount"]), (200, 1, &serde_json::json!(2)));
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = json(&client, &twin, &format!("/api/v1/pods?limit=5&continue={token}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    assert_ne!(rest["items"][0]["metadata"]["name"], page["items"][0]["metadata"]["name"]);

    let (_, on_node) = json(&client, &twin, "/api/v1/pods?fieldSelector=spec.nodeName%3Dcalypso").await;
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);
    for (path, code, message) in [
        ("/api/v1/pods?fieldSelector=spec.nope%3Dx", 400, "field label not supported: spec.nope"),
        ("/api/v1/pods?continue=%%", 400, "invalid continue token"),
        ("/api/v1/pods?resourceVersion=999999999", 504, "Timeout: Too large resource version: 999999999"),
    ] {
        let (status, body) = json(&client, &twin, path).await;
        assert_eq!(status, code, "{path}");
        assert!(body["message"].as_str().unwrap().starts_with(message), "{body}");
    }
    let post = client.post(format!("https://{}/api/v1/pods", twin.address)).send().await.unwrap();
    assert_eq!(post.status(), 405);
    let unknown = client.get(format!("https://{}/api/v1/nothere", twin.address)).send().await.unwrap();
    assert_eq!((unknown.status().as_u16(), unknown.text().await.unwrap()), (404, "404 page not found\n".to_owned()));
    let (_, groups) = json(&client, &twin, "/apis").await;
    assert_eq!(groups["groups"][0]["name"], "discovery.k8s.io");
    let (_, core) = json(&client, &twin, "/api/v1").await;
    assert!(core["resources"].as_array().unwrap().iter().any(|r| r["name"] == "nodes" && r["namespaced"] == false));
}

#[tokio::test]
async fn health_names_what_failed() {
    let twin = start();
    let client = client(&twin);
    let get = async |path: &str| {
        let answer = client.get(format!("https://{}{path}", twin.address)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/readyz").await, (200, "ok".into()));
    let (_, verbose) = get("/readyz?verbose").await;
    assert_eq!(verbose.len(), 1639, "as the real server's");
    twin.api.set_datastore_hung(true);
    let (status, text) = get("/livez").await;
    assert_eq!((status, text.len()), (500, 1603), "as the real server's");
    assert!(text.contains("[-]etcd failed: reason withheld"));
    assert_eq!(get("/version").await.0, 200);
    assert_eq!(get("/api/v1/nodes?resourceVersion=0").await.0, 200);
}

#[tokio::test]
async fn plain_http_is_told_so() {
    let twin = start();
    let mut stream = tokio::net::TcpStream::connect(twin.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request"), "{text}");
}
