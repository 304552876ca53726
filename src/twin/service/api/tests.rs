mod captured;
mod kubectl;

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
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "discovery.k8s.io"));
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

/// Status and body of a captured answer of kube-apiserver 1.33.13.
fn captured(name: &str) -> (u16, Value) {
    let text = std::fs::read_to_string(format!("{}/tests/data/k8s/{name}.http", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body = body.lines().next().filter(|_| name.starts_with("watch-pods-rv1")).unwrap_or(body);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

fn client_of(twin: &Twin, user: &User) -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca = reqwest::Certificate::from_pem(twin.authority.pem().as_bytes()).unwrap();
    let identity = twin.authority.client(user, Validity::Current).unwrap();
    let identity = reqwest::Identity::from_pem(format!("{}{}", identity.key_pem, identity.certificate_pem).as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([ca]).identity(identity).build().unwrap()
}

#[tokio::test]
async fn what_was_captured_of_the_real_server_is_answered_word_for_word() {
    let twin = start();
    let (admin, viewer) = (client_of(&twin, &User::admin()), client_of(&twin, &User::viewer()));
    let pod = twin.cluster.read(|o| o.list(Resource::Pods).find(|(k, _)| k.starts_with("apps/argilla")).unwrap().0.to_owned());
    let exec = format!("/api/v1/namespaces/apps/pods/{}/exec?command=true", pod.split_once('/').unwrap().1);
    for (capture, client, method, path) in [
        ("forbidden-pods", &viewer, "GET", "/api/v1/pods"),
        ("forbidden-configmap", &viewer, "GET", "/api/v1/namespaces/kube-system/configmaps/coredns"),
        ("pod-exec-plain-get", &admin, "GET", exec.as_str()),
        ("watch-pods-initial-events", &admin, "GET", "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        ("method-not-allowed", &admin, "POST", "/api/v1/nodes/calypso"),
        ("path-404", &admin, "GET", "/nothing/here"),
    ] {
        let url = format!("https://{}{path}", twin.address);
        let answer = client.request(method.parse().unwrap(), url).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        assert_eq!((status, body), captured(capture), "{capture}");
    }
}

#[tokio::test]
async fn reviews_tell_who_may_do_what() {
    let twin = start();
    let (admin, viewer) = (client_of(&twin, &User::admin()), client_of(&twin, &User::viewer()));
    let post = async |client: &reqwest::Client, path: &str, spec: Value| {
        let url = format!("https://{}/apis/{path}", twin.address);
        let answer = client.post(url).body(serde_json::json!({"kind": "x", "spec": spec}).to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()["status"].clone())
    };
    let access = "authorization.k8s.io/v1/selfsubjectaccessreviews";
    let pods = serde_json::json!({"resourceAttributes": {"verb": "list", "resource": "pods"}});
    let nodes = serde_json::json!({"resourceAttributes": {"verb": "list", "resource": "nodes"}});
    let (status, expected) = captured("selfsubjectaccessreview");
    assert_eq!(post(&admin, access, pods.clone()).await, (status, expected["status"].clone()));
    assert_eq!(post(&viewer, access, pods).await.1, serde_json::json!({"allowed": false}));
    assert_eq!(post(&viewer, access, nodes).await.1, serde_json::json!({"allowed": true}));
    let (_, rules) = post(&viewer, "authorization.k8s.io/v1/selfsubjectrulesreviews", serde_json::json!({"namespace": "apps"})).await;
    assert_eq!(rules["resourceRules"][0], captured("selfsubjectrulesreview-viewer").1["status"]["resourceRules"][0]);
    let (_, who) = post(&viewer, "authentication.k8s.io/v1/selfsubjectreviews", serde_json::json!({})).await;
    assert_eq!(who["userInfo"]["username"], "fathom-viewer");
}

#[tokio::test]
async fn tables_have_the_columns_of_the_real_server() {
    let twin = start();
    let client = client(&twin);
    let columns = |table: &Value| -> Vec<(Value, Value)> {
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| (c["name"].clone(), c["priority"].clone())).collect()
    };
    let url = format!("https://{}/api/v1/nodes", twin.address);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = client.get(url).header("accept", accept).send().await.unwrap();
    let table: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let (_, real) = captured("list-nodes-table");
    assert_eq!((columns(&table), &table["kind"]), (columns(&real), &real["kind"]));
    let row = |table: &Value| table["rows"].as_array().unwrap().iter().find(|r| r["cells"][0] == "calypso").unwrap().clone();
    let (row, real) = (row(&table), row(&real));
    assert_eq!((&row["cells"][1], &row["cells"][6]), (&real["cells"][1], &real["cells"][6]));
    assert_eq!(
        (&row["object"]["kind"], &row["object"]["metadata"]["name"]),
        (&real["object"]["kind"], &real["object"]["metadata"]["name"])
    );
}

#[tokio::test]
async fn a_watch_tells_changes_bookmarks_and_that_it_is_too_old() {
    let twin = start();
    let client = client(&twin);
    let (_, list) = json(&client, &twin, "/apis/discovery.k8s.io/v1/endpointslices?limit=1").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let token = list["metadata"]["continue"].as_str().unwrap().to_owned();
    let path =
        format!("watch=true&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1&fieldSelector=metadata.namespace%3Dapps");
    let url = format!("https://{}/apis/discovery.k8s.io/v1/endpointslices?{path}", twin.address);
    let watch = client.get(url).send().await.unwrap();
    twin.cluster.set_pod_ready("apps", "argilla", false);
    let events: Vec<Value> = watch.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[0]["type"], &events[0]["object"]["kind"]), (&serde_json::json!("MODIFIED"), &serde_json::json!("EndpointSlice")));
    assert_eq!(events[0]["object"]["endpoints"][0]["conditions"]["ready"], false);
    assert_eq!(events[1]["type"], "BOOKMARK");
    let seen = |event: &Value| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(seen(&events[1]) >= seen(&events[0]) && seen(&events[0]) > version.parse().unwrap());

    twin.cluster.compact();
    let url = format!("https://{}/api/v1/pods?watch=true&resourceVersion=1", twin.address);
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    let (event, (_, real)) = (serde_json::from_str::<Value>(&text).unwrap(), captured("watch-pods-rv1"));
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&real["type"], &real["object"]["code"], &real["object"]["reason"])
    );
    let (status, gone) = json(&client, &twin, &format!("/apis/discovery.k8s.io/v1/endpointslices?limit=1&continue={token}")).await;
    assert_eq!((status, &gone["reason"]), (410, &serde_json::json!("Expired")));
}

#[tokio::test]
async fn discovery_is_given_out_in_one_document_to_who_takes_it() {
    let twin = start();
    let client = client(&twin);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for (root, resource) in [("api", "pods"), ("apis", "endpointslices")] {
        let answer = client.get(format!("https://{}/{root}", twin.address)).header("accept", accept).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], AGGREGATED);
        let text = answer.text().await.unwrap();
        assert!(text.contains(&format!("\"resource\":\"{resource}\"")), "{text}");
    }
}

#[tokio::test]
async fn a_log_comes_from_the_kubelet_or_says_where_it_stopped() {
    let twin = start();
    let client = client(&twin);
    let pod = twin.cluster.read(|o| o.list(Resource::Pods).find(|(k, _)| k.starts_with("apps/argilla")).unwrap().0.to_owned());
    let path = format!("/api/v1/namespaces/apps/pods/{}/log", pod.split_once('/').unwrap().1);
    let node: Ipv4Addr = "100.95.51.125".parse().unwrap();
    twin.api.set_kubelet(node, Some(Trouble::NoTunnel));
    // Nothing is dialled where there is no tunnel.
    let (status, body) = json(&client, &twin, &path).await;
    assert_eq!(status, 500);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .ends_with("proxy error from 127.0.0.1:6443 while dialing 100.95.51.125:10250, code 502: 502 Bad Gateway")
    );
}

#[tokio::test]
async fn a_clock_that_is_ahead_shows_in_every_date() {
    let twin = start();
    let client = client(&twin);
    twin.api.set_clock_ahead(chrono::TimeDelta::days(2));
    let answer = client.get(format!("https://{}/version", twin.address)).send().await.unwrap();
    let date = chrono::DateTime::parse_from_rfc2822(answer.headers()["date"].to_str().unwrap()).unwrap();
    assert_eq!((date.to_utc() - chrono::Utc::now()).num_hours(), 47);
}
