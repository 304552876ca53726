use super::*;
use crate::probe::command::tests::all_ended;
use crate::probe::testing::Folder;
use std::path::Path;

/// The file that a plugin writes.
fn file(folder: &Folder) -> String {
    folder.0.join("pids").display().to_string()
}

/// A plugin that is a line of shell.
fn plugin(line: &str) -> AuthInfo {
    serde_json::from_value(json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", line, "sh", "argument-that-is-secret"],
        "env": [{"name": "OWN", "value": "from-the-kubeconfig"}],
    }}))
    .unwrap()
}

async fn filled(line: &str, patience: Duration) -> Result<serde_json::Value, Failure> {
    let mut auth = plugin(line);
    fill(&mut auth, &Net::Here, "here", Instant::now() + patience).await?;
    assert!(auth.exec.is_none(), "kube must not run it again");
    Ok(serde_json::to_value(&auth).unwrap())
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_token_and_a_certificate_take_the_plugins_place() {
    let token = r#"printf '{"kind":"ExecCredential","status":{"token":"%s"}}' "$OWN""#;
    assert_eq!(filled(token, SOON).await.unwrap()["token"], "from-the-kubeconfig");
    let certificate = r#"echo '{"status":{"clientCertificateData":"PEM","clientKeyData":"KEY"}}'"#;
    assert_eq!(filled(certificate, SOON).await.unwrap()["client-certificate-data"], "UEVN");
    // It is told that nobody sits at a terminal.
    let info = r#"echo "$KUBERNETES_EXEC_INFO" | grep -q '"interactive":false' && ! read line && echo '{"status":{"token":"t"}}'"#;
    assert_eq!(filled(info, SOON).await.unwrap()["token"], "t");
}

#[tokio::test]
async fn what_is_no_credential_is_told_without_a_word_of_it() {
    for (line, expected) in [
        ("echo hunter2; exit 3", "exec plugin /bin/sh failed with exit status 3; run by hand it says why"),
        ("kill -9 $$", "exec plugin /bin/sh was killed"),
        ("echo hunter2", "exec plugin /bin/sh printed no ExecCredential"),
        ("head -c 1000 /dev/urandom", "exec plugin /bin/sh printed no ExecCredential"),
        ("echo '{}'", "exec plugin /bin/sh printed an ExecCredential without a status"),
        (r#"echo '{"status":{}}'"#, "exec plugin /bin/sh gave neither a token nor a certificate"),
        (
            r#"echo '{"status":{"clientKeyData":"hunter2"}}'"#,
            "exec plugin /bin/sh gave a certificate without its key, or a key without its certificate",
        ),
        (
            r#"echo '{"status":{"token":"hunter2","expirationTimestamp":"2020-01-01T00:00:00Z"}}'"#,
            "exec plugin /bin/sh gave credentials that have expired",
        ),
        ("head -c 1000000 /dev/zero", "exec plugin /bin/sh printed more than 262144 bytes"),
    ] {
        let failure = filled(line, SOON).await.unwrap_err();
        assert_eq!((failure.at, failure.word.as_str(), failure.detail.as_str()), (At::Config, expected, ""), "{line}");
    }
    let mut auth: AuthInfo = serde_json::from_value(json!({"exec": {"command": "/nowhere/plugin"}})).unwrap();
    let failure = fill(&mut auth, &Net::Here, "here", Instant::now() + SOON).await.unwrap_err();
    assert_eq!(failure.word, "exec plugin /nowhere/plugin is not installed");
    let mut auth: AuthInfo = serde_json::from_value(json!({"exec": {"command": "/bin/true", "interactiveMode": "Always"}})).unwrap();
    assert!(fill(&mut auth, &Net::Here, "here", Instant::now() + SOON).await.unwrap_err().word.contains("terminal"));
}

#[tokio::test]
async fn a_plugin_that_hangs_is_ended_with_its_children() {
    let folder = Folder::new("exec-hang");
    let line = format!("sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", file(&folder));
    let began = Instant::now();
    let failure = filled(&line, Duration::from_secs(1)).await.unwrap_err();
    assert!(failure.word.starts_with("exec plugin /bin/sh did not end"), "{}", failure.word);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    all_ended(Path::new(&file(&folder)), 2).await;
}

#[tokio::test]
async fn many_that_ask_at_once_run_it_once() {
    let folder = Folder::new("exec-once");
    let line = format!(r#"echo x >> {}; echo '{{"status":{{"token":"t"}}}}'"#, file(&folder));
    let all = futures::future::join_all((0..20).map(|_| filled(&line, SOON))).await;
    assert!(all.iter().all(|given| given.as_ref().unwrap()["token"] == "t"));
    assert_eq!(std::fs::read_to_string(file(&folder)).unwrap(), "x\n");
}

#[tokio::test]
async fn the_command_of_an_auth_provider_is_never_run() {
    let folder = Folder::new("exec-provider");
    let with = |more: &str| {
        let text = format!(
            "current-context: c\nclusters: [{{name: k, cluster: {{server: \"https://127.0.0.1:9\"}}}}]\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             users: [{{name: u, user: {{auth-provider: {{name: gcp, config: {{cmd-path: /bin/sh, cmd-args: \"-c touch$IFS{}\"{more}}}}}}}}}]\n",
            file(&folder)
        );
        crate::probe::kube_client::fake::context(Net::Here, Some(crate::vantage::Source::Text(text)), SOON)
    };
    let opened = crate::probe::kube_client::KubeApi::open(&with("")).await.unwrap();
    assert_eq!(opened.credentials(), "auth provider");
    let failure = opened.client(None).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.at, At::Config);
    assert!(failure.word.starts_with("the auth provider gcp would run /bin/sh, which is not done"), "{}", failure.word);
    // A token that the file holds and that is still good needs no command.
    let kept = ", access-token: t, expiry: \"2999-01-01T00:00:00Z\"";
    assert!(crate::probe::kube_client::KubeApi::open(&with(kept)).await.unwrap().client(None).await.is_ok());
    assert!(!Path::new(&file(&folder)).exists(), "it was run");
}
