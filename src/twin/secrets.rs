//! No secret that the inventory or a kubeconfig holds is ever shown, whatever goes wrong.

use super::Twin;
use super::fault::parse;
use crate::def::{Catalog, Sources};
use crate::report::build::{FailOn, build};
use crate::report::{Report, human, json};
use crate::run::{Filter, Plan, Run, RunEvent, start};
use crate::tui;
use crate::tui::update::{Msg, update};
use crate::vantage::select::of_the_twin;
use crate::vantage::{HostFiles, Source, netns};
use crossterm::event::{KeyCode, KeyEvent};

/// Stands in every place where a secret can be.
const MARKER: &str = "MaRkErSeCrEt012345";

/// The documented inventory with a login, a path that is a key and tokens in every URL.
fn inventory() -> String {
    let login = |text: &str, host: &str| {
        text.replace(&format!("https://{host}/"), &format!("https://me:{MARKER}1@{host}/{MARKER}2?access_token={MARKER}3&x={MARKER}4"))
    };
    let text = crate::def::load::OCEANID.to_owned();
    let text = ["api.ipify.org", "upload.goldfish.io"].iter().fold(text, |text, host| login(&text, host));
    text.replace("https://ipinfo.io/ip", &format!("https://{MARKER}5:{MARKER}6@ipinfo.io/ip?key={MARKER}7"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ns_no_secret_is_shown() {
    if !netns::testing::in_private() {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let path = std::env::temp_dir().join(format!("fathom-secrets-{}.toml", std::process::id()));
    std::fs::write(&path, inventory()).unwrap();
    let sources = Sources { inventory: Some(path.clone()), ..Sources::default() };
    let catalog = Catalog::load(&sources).unwrap_or_else(|f| panic!("{f:?}"));
    std::fs::remove_file(&path).unwrap();
    let faults = parse("external-5xx,egress-ip-differs,vllm-image-fetch,pg-database-missing").unwrap();
    let twin = Twin::start(catalog.inventory.clone(), &faults).await.unwrap();
    let secret = |of: fn(&HostFiles) -> Option<String>| twin.vantages().iter().filter_map(|v| of(&v.files)).collect::<Vec<_>>();
    let (keys, passwords) = (secret(|files| key_of(files.kubeconfig.as_ref())), secret(|files| password_of(files.pgpass.as_ref())));
    assert!(!keys.is_empty(), "the twin's kubeconfigs hold a key");
    assert!(!passwords.is_empty(), "the twin's hosts have a login for the database");

    // A place of each kind that holds a secret or is shown a URL; another node or pod would show the same again. The node gets as far as
    // the database, the pod does not.
    let vantages = of_the_twin(Some("tethys,workstation,pod:apps/md-query-proxy"), twin.vantages()).unwrap();
    let plan = Plan::make(&catalog, &vantages, &Filter::default()).unwrap();
    let mut running = start(plan, &catalog, crate::run::Limits::default());
    let (mut run, mut shown, mut events) = (Run::new(), String::new(), Vec::new());
    while let Some(event) = running.events.recv().await {
        shown += &serde_json::to_string(&event).unwrap();
        run.apply(&event);
        events.push(event);
    }
    let report = build(&run, &catalog, FailOn::default());
    let login = report.checks.iter().find(|c| c.check == "database-login" && c.facts.to_string().contains("pgpass"));
    assert!(login.is_some(), "somebody has logged in, with the password file");
    assert!(report.diagnoses.iter().any(|d| d.code == "external-5xx"), "the endpoints were asked: {:?}", report.diagnoses);
    shown += &json::render(&report);
    shown += &human::render(&report, &human::Style { color: false, ascii: true, width: 400 });
    let copied = what_is_copied(&events, &report);
    assert!(copied.contains("https://***@upload.goldfish.io/"), "every check was copied");
    shown += &copied;
    shown += &catalog.notes.iter().map(ToString::to_string).collect::<String>();
    assert!(shown.contains("https://***@upload.goldfish.io/***?access_token=***&x=***"), "the URL itself is shown");
    for secret in keys.iter().chain(&passwords).map(String::as_str).chain([MARKER]) {
        let found = shown.find(secret).map(|at| shown[at.saturating_sub(80)..].chars().take(200).collect::<String>());
        assert_eq!(found, None, "a secret is shown");
    }
}

/// What may be copied in the terminal, of the whole run and of each check.
fn what_is_copied(events: &[RunEvent], report: &Report) -> String {
    let mut model = tui::tests::model(events, (200, 60), "");
    update(&mut model, Msg::Report(Box::new(report.clone())));
    let mut shown = tui::copy::markdown(&model).unwrap_or_default();
    // The list, and each check on it with its evidence, the next one each time.
    for key in
        std::iter::once('/').chain("\n".chars()).chain(std::iter::repeat_n(['\n', 'e', '\u{1b}', 'j'], report.checks.len()).flatten())
    {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        update(&mut model, Msg::Key(KeyEvent::from(code)));
        if key == 'e' {
            shown += &tui::copy::markdown(&model).unwrap_or_default();
            shown += &tui::copy::line(&model).unwrap_or_default();
        }
    }
    shown
}

fn password_of(pgpass: Option<&Source>) -> Option<String> {
    let Some(Source::Text(text)) = pgpass else { return None };
    Some(text.trim_end().rsplit(':').next()?.to_owned())
}

fn key_of(kubeconfig: Option<&Source>) -> Option<String> {
    let Some(Source::Text(text)) = kubeconfig else { return None };
    let key = text.split("client-key-data:").nth(1)?.split_whitespace().next()?;
    Some(key.trim_matches(['"', ',']).chars().take(60).collect())
}
