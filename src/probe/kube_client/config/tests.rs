use super::*;
use crate::probe::kube_client::fake::context;
use crate::probe::testing::Folder;
use crate::vantage::Net;
use std::sync::Arc;
use std::time::Duration;

/// A kubeconfig with one context, which is also the name of its cluster and its user; `current` says whether it is the current one.
fn kubeconfig(name: &str, current: bool) -> String {
    let current = if current { format!("current-context: {name}\n") } else { String::new() };
    format!(
        "apiVersion: v1\nkind: Config\n{current}clusters:\n- name: {name}\n  cluster: {{server: \"https://{name}.test:6443\"}}\n\
         users:\n- name: {name}\n  user: {{token: secret-of-{name}}}\ncontexts:\n- name: {name}\n  context: {{cluster: {name}, user: {name}}}\n"
    )
}

fn vantage(kubeconfig: Option<Source>, wanted: Option<&str>, transport: Transport) -> (Vantage, Arc<Inventory>) {
    let cx = context(Net::Here, kubeconfig, Duration::from_secs(1));
    let mut vantage = (*cx.vantage).clone();
    vantage.files.context = wanted.map(str::to_owned);
    vantage.transport = transport;
    (vantage, cx.inventory)
}

/// Reading waits for kube's own future, so it is done where blocking is allowed.
async fn read(place: Place, wanted: Option<&'static str>) -> Result<Option<(String, String)>, String> {
    let reading = tokio::task::spawn_blocking(move || place.read(wanted));
    reading.await.unwrap().map(|found| found.map(|(context, config)| (context, config.cluster_url.to_string()))).map_err(|e| told(&e))
}

async fn found(kubeconfig: Source, wanted: Option<&str>) -> Result<Found, Missing> {
    let (vantage, inventory) = vantage(Some(kubeconfig), wanted, Transport::Local);
    tokio::task::spawn_blocking(move || find(&vantage, &inventory)).await.unwrap()
}

#[test]
fn places_come_in_the_documented_order_and_only_on_this_machine() {
    let (here, inventory) = vantage(None, None, Transport::Local);
    let listed = Some(OsString::from("/a:/b::"));
    let texts = |vantage: &Vantage| places(vantage, &inventory, listed.clone()).iter().map(ToString::to_string).collect::<Vec<_>>();
    let home = |path: &str| expand_home(path).display().to_string();
    assert_eq!(
        texts(&here),
        [
            "/nowhere/kubeconfig".to_owned(),
            "KUBECONFIG=/a:/b".to_owned(),
            home("~/.kube/k3s-warp.yaml"),
            home("~/.kube/config"),
            "/etc/rancher/k3s/k3s.yaml".to_owned(),
            "in-cluster service account".to_owned(),
        ]
    );
    assert_eq!(texts(&vantage(None, None, Transport::Netns).0), ["/nowhere/kubeconfig"]);
    assert_eq!(texts(&vantage(Some(Source::File("/given".into())), None, Transport::Local).0), ["/given"]);
    assert_eq!(texts(&vantage(Some(Source::Text(String::new())), None, Transport::Twin).0), ["the vantage's own"]);
}

#[tokio::test]
async fn several_files_are_one_the_first_wins_and_absent_ones_are_passed_over() {
    let folder = Folder::new("kubeconfig-several");
    let (a, b) = (folder.write("a", &kubeconfig("a", false)), folder.write("b", &kubeconfig("b", true)));
    let a_again = folder.write("a-again", &kubeconfig("a", true).replace("a.test", "other.test"));
    let absent = folder.0.join("absent");
    let list = |paths: &[&PathBuf]| Place::Environment(paths.iter().map(|p| (*p).clone()).collect());
    let at = |name: &str| Ok(Some((name.to_owned(), format!("https://{name}.test:6443/"))));
    assert_eq!(read(list(&[&a, &b]), None).await, at("b"), "the first file has no current context");
    assert_eq!(read(list(&[&absent, &a, &a_again]), None).await, at("a"), "the first cluster of a name counts");
    assert_eq!(read(list(&[&a, &b]), Some("a")).await, at("a"));
    assert!(read(list(&[&absent]), None).await.unwrap_err().contains("absent"));
    assert_eq!(read(list(&[]), None).await, Ok(None));
    let broken = folder.write("broken", "clusters: [\n");
    assert!(read(list(&[&a, &broken]), None).await.is_err(), "a file that is there and no kubeconfig is no file to pass over");
}

#[tokio::test]
async fn a_context_is_the_current_one_or_the_one_asked_for() {
    let both = kubeconfig("a", true);
    let context = async |text: &str, wanted: Option<&'static str>| read(Place::Text(text.to_owned()), wanted).await;
    assert_eq!(context(&both, None).await.unwrap().unwrap().0, "a");
    assert_eq!(context(&both, Some("nope")).await.unwrap_err(), "has no context `nope`");
    assert!(context(&kubeconfig("a", false), None).await.unwrap_err().starts_with("has no current context"));
    assert!(context(&both.replace("current-context: a", "current-context: \"\""), None).await.is_err());
    assert_eq!(read(Place::InCluster, Some("a")).await, Ok(None), "a service account has no contexts");
}

#[tokio::test]
async fn what_is_no_kubeconfig_is_named_without_a_word_of_it() {
    let folder = Folder::new("kubeconfig-broken");
    for (name, text) in [
        ("cut", "apiVersion: v1\nusers:\n- name: u\n  user:\n    token: hunter2\n    bad: [hunter2\n".to_owned()),
        ("type", "apiVersion: v1\nusers: hunter2\n".to_owned()),
        ("tab", kubeconfig("a", true).replace("users:", "users:\n\t- hunter2")),
        ("bytes", "\u{0}\u{1}hunter2".to_owned()),
    ] {
        let path = folder.write(name, &text);
        let Err(Missing::Unusable { source, failure }) = found(Source::File(path.clone()), None).await else { panic!("{name}") };
        assert_eq!((source, failure.at), (path.display().to_string(), At::Config));
        assert!(failure.word.starts_with(&path.display().to_string()) && !failure.word.contains("hunter2"), "{}", failure.word);
        assert!(!failure.detail.contains("hunter2"), "{}", failure.detail);
    }
    let Err(Missing::Nowhere(why)) = found(Source::File(folder.0.join("none")), None).await else { panic!() };
    assert!(why.ends_with("none: no such file)"), "{why}");
    let found = found(Source::File(folder.write("good", &kubeconfig("a", true))), None).await.unwrap();
    assert_eq!((found.context.as_str(), credentials(&found.config).as_str()), ("a", "token"));
}
