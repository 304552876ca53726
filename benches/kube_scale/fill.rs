//! Makes a cluster large: a namespace of its own with services, pods that select each other, and the slices that the cluster's own
//! controller makes of them. Pods run nowhere: only their status says so.

use super::Size;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Everything is in here.
pub(crate) const NAMESPACE: &str = "fathom-scale";
/// Requests at a time.
const AT_ONCE: usize = 32;
/// Longest wait for all of it. The controller makes slices at 20 requests a second, which is its client's default.
const PATIENCE: Duration = Duration::from_secs(900);

/// Fills the cluster that a kubeconfig leads to; what is there already stays as it is.
pub(crate) async fn fill(kubeconfig: &str, size: Size) {
    println!(
        "filling: namespace {NAMESPACE} with {} pods and {} services; only for a cluster that is thrown away",
        size.pods, size.services
    );
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, all(kubeconfig, size)).await.unwrap_or_else(|_| panic!("not filled within {PATIENCE:?}"));
    println!("filled in {:.0} s; `kubectl delete namespace {NAMESPACE}` takes it away again", began.elapsed().as_secs_f64());
}

async fn all(kubeconfig: &str, size: Size) {
    let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig");
    let config = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
    let mut config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a kubeconfig");
    config.proxy_url = None;
    let client = Client::try_from(config).expect("a client");
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.expect("nodes");
    // The controller passes over pods of nodes that do not exist.
    let node = nodes.items.into_iter().find_map(|node| node.metadata.name).expect("a node");
    create(&Api::<Namespace>::all(client.clone()), json!({"metadata": {"name": NAMESPACE}})).await;
    let pods = &Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    at_once((0..size.pods).map(|n| run(pods, n, &node))).await;
    let services = &Api::<Service>::namespaced(client.clone(), NAMESPACE);
    at_once((0..size.services).map(|n| create(services, service(n, size)))).await;
    slices(&Api::namespaced(client, NAMESPACE), size.services).await;
}

async fn at_once(all: impl Iterator<Item = impl Future<Output = ()>>) {
    futures::stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn create<T>(api: &Api<T>, object: Value)
where
    T: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let object = serde_json::from_value(object).expect("an object");
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("cannot be created: {error}"),
    }
}

/// A pod and, as its kubelet would write it, that it is ready.
async fn run(pods: &Api<Pod>, n: usize, node: &str) {
    let name = format!("pod-{n}");
    let labels = json!({"app": format!("app-{n}"), "pod-template-hash": "5f5d7c9b8"});
    let container = json!({"name": "app", "image": "none.invalid/app:1", "ports": [{"name": "http", "containerPort": 8080}]});
    create(pods, json!({"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node, "containers": [container]}})).await;
    let address = format!("10.{}.{}.{}", 64 + n / 65_536, n / 256 % 256, n % 256);
    let ready = json!({"type": "Ready", "status": "True"});
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

/// Services share pods; every fiftieth selects nothing.
fn service(n: usize, size: Size) -> Value {
    let app = if n.is_multiple_of(50) { format!("app-{n}-gone") } else { format!("app-{}", n % size.pods) };
    let port = json!({"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"});
    json!({"metadata": {"name": format!("service-{n}"), "labels": {"app": app}}, "spec": {"selector": {"app": app}, "ports": [port]}})
}

/// Waits until there is a slice of each service.
async fn slices(api: &Api<EndpointSlice>, wanted: usize) {
    let count = async || {
        let pages = futures::stream::try_unfold(Some(String::new()), async |token| {
            let Some(token) = token else { return Ok::<_, Error>(None) };
            let mut page = ListParams::default().limit(500);
            page.continue_token = Some(token).filter(|token| !token.is_empty());
            let list = api.list_metadata(&page).await?;
            let next = list.metadata.continue_.filter(|token| !token.is_empty());
            Ok(Some((list.items.len(), next)))
        });
        pages.try_fold(0, async |all, page| Ok(all + page)).await.expect("slices")
    };
    loop {
        let there = count().await;
        if there >= wanted {
            return;
        }
        println!("  {there} of {wanted} slices");
        // The controller makes twenty a second: there is nothing to wait on that tells more than a list does.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
