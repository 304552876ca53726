//! Which kubeconfig is used, and that the report tells it: each place in turn, in a network where nothing can be reached.

use super::harness::Fathom;
use super::tempdir;
use serde_json::Value;

fn kubeconfig(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\nclusters:\n- name: {name}\n  cluster: {{server: \"https://192.0.2.1:6443/{name}\"}}\n\
         users:\n- name: u\n  user: {{token: hunter2}}\ncontexts:\n- name: {name}\n  context: {{cluster: {name}, user: u}}\n\
         - name: other\n  context: {{cluster: {name}, user: nobody}}\n"
    )
}

/// What the report says about the kubeconfig, from a machine with this home.
fn used(home: &str, args: &[&str], with: impl FnOnce(Fathom) -> Fathom) -> Value {
    let call = Fathom::new(["check", "kube-api", "--json"].iter().chain(args)).env("HOME", home).isolated();
    let run = with(call).run();
    assert!(!run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"), "{}", run.stdout);
    let json = run.json();
    json["checks"].as_array().unwrap().iter().find(|c| c["id"] == "kube-api").unwrap().clone()
}

fn facts(check: &Value) -> [&str; 3] {
    ["source", "context", "server"].map(|fact| check["facts"][fact].as_str().unwrap_or_else(|| panic!("{check}")))
}

fn file(folder: &str, name: &str) -> String {
    let path = format!("{folder}/{name}");
    std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
    std::fs::write(&path, kubeconfig(name.rsplit('/').next().unwrap().trim_end_matches(".yaml"))).unwrap();
    path
}

#[test]
fn each_place_is_used_in_its_turn_and_the_report_says_which() {
    let home = tempdir("kubeconfig-home");
    let server = |name: &str| format!("https://192.0.2.1:6443/{name}");
    let none = used(&home, &[], |f| f);
    let reason = none["reason"].as_str().unwrap();
    let order = [
        "KUBECONFIG: not set",
        "/.kube/k3s-warp.yaml: no such file",
        "/.kube/config: no such file",
        "/etc/rancher/k3s/k3s.yaml:",
        "in-cluster service account: not set",
    ];
    let at: Vec<usize> = order.iter().map(|place| reason.find(place).unwrap_or_else(|| panic!("{place} is missing: {reason}"))).collect();
    assert!(at.is_sorted() && none["outcome"] == "unknown", "{none}");

    let config = file(&home, ".kube/config");
    assert_eq!(facts(&used(&home, &[], |f| f)), [config.as_str(), "config", &server("config")]);
    let warp = file(&home, ".kube/k3s-warp.yaml");
    assert_eq!(facts(&used(&home, &[], |f| f)), [warp.as_str(), "k3s-warp", &server("k3s-warp")]);
    let (a, b) = (file(&home, "a"), file(&home, "b"));
    let list = format!("{home}/absent:{a}:{b}");
    let listed = format!("KUBECONFIG={list}");
    assert_eq!(facts(&used(&home, &[], |f| f.env("KUBECONFIG", &list))), [listed.as_str(), "a", &server("a")]);
    assert_eq!(facts(&used(&home, &["--context", "b"], |f| f.env("KUBECONFIG", &list))), [listed.as_str(), "b", &server("b")]);
    let given = file(&home, "given");
    let check = used(&home, &["--kubeconfig", &given], |f| f.env("KUBECONFIG", &list));
    assert_eq!(facts(&check), [given.as_str(), "given", &server("given")]);
    assert_eq!((&check["facts"]["stage"], &check["facts"]["credentials"]), (&"connect".into(), &"token".into()));
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn an_unknown_context_and_a_broken_file_stop_there_and_name_it() {
    let home = tempdir("kubeconfig-broken");
    let config = file(&home, ".kube/config");
    let check = used(&home, &["--context", "nope"], |f| f);
    let said = format!("{config}: has no context `nope`");
    assert_eq!((&check["facts"]["stage"], &check["facts"]["error"]), (&"config".into(), &said.into()));
    assert_eq!(check["facts"]["source"], config);
    std::fs::write(&config, "users:\n- name: u\n  user: {token: hunter2\n").unwrap();
    let check = used(&home, &[], |f| f);
    assert_eq!(check["facts"]["source"], config, "no other place takes its turn");
    assert_eq!(check["facts"]["error"], format!("{config}: is no kubeconfig: its YAML cannot be read as one"));
    std::fs::remove_dir_all(home).unwrap();
}

#[test]
fn a_servers_own_file_and_a_pods_service_account_come_last() {
    let folder = tempdir("kubeconfig-machine");
    file(&folder, "etc/rancher/k3s/k3s.yaml");
    let etc = format!("{folder}/etc");
    assert_eq!(facts(&used("/nonexistent", &[], |f| f.mounted(&etc, "/etc")))[..2], ["/etc/rancher/k3s/k3s.yaml", "k3s"]);

    let account = format!("{folder}/run/secrets/kubernetes.io/serviceaccount");
    std::fs::create_dir_all(&account).unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["kubernetes".to_owned()]).unwrap().cert.pem();
    for (name, text) in [("token", "hunter2"), ("namespace", "apps"), ("ca.crt", &authority)] {
        std::fs::write(format!("{account}/{name}"), text).unwrap();
    }
    let run = format!("{folder}/run");
    let pod = |f: Fathom| f.mounted(&run, "/run").env("KUBERNETES_SERVICE_HOST", "192.0.2.7").env("KUBERNETES_SERVICE_PORT", "443");
    let check = used("/nonexistent", &[], pod);
    assert_eq!(facts(&check), ["in-cluster service account", "", "https://192.0.2.7/"]);
    assert_eq!(check["facts"]["credentials"], "token");
    std::fs::remove_dir_all(folder).unwrap();
}
