//! Credentials of an exec plugin (Kubernetes documentation, client-go credential plugins; `client.authentication.k8s.io`).
//!
//! Run here and not by kube, which gives a plugin the terminal, waits for it without end, keeps whatever it prints, and prints its
//! arguments and its output where it fails. Many probes ask at once: one of them runs the plugin, the others take what it got.

use super::failure::{At, Failure};
use crate::check::clean;
use crate::encoding::base64;
use crate::probe::command;
use crate::vantage::Net;
use chrono::{DateTime, Utc};
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock, Mutex as SyncMutex, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// Longest wait for a plugin; those that ask a cloud take some seconds.
const PATIENCE: Duration = Duration::from_secs(8);
/// Most that a plugin prints: certificates and a token.
const MOST: usize = 256 << 10;
/// For how long credentials are used again; less if they expire before.
const KEPT: Duration = Duration::from_secs(60);
/// For how long a failure stands.
const FAILED: Duration = Duration::from_secs(10);

/// What a plugin gave, or why it gave nothing, and until when that holds.
type Kept = Option<(Instant, Result<AuthInfo, Failure>)>;

static GIVEN: LazyLock<SyncMutex<HashMap<String, Arc<Mutex<Kept>>>>> = LazyLock::new(SyncMutex::default);

/// Puts the plugin's credentials in its place. `place` names the vantage: another one's network may lead elsewhere.
pub(super) async fn fill(auth: &mut AuthInfo, net: &Net, place: &str, deadline: Instant) -> Result<(), Failure> {
    let Some(exec) = auth.exec.take() else { return Ok(()) };
    let slot = {
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry(key(&exec, place)).or_default().clone()
    };
    let asked = async {
        let mut kept = slot.lock().await;
        match kept.as_ref().filter(|(until, _)| Instant::now() < *until) {
            Some((_, given)) => given.clone(),
            None => {
                let given = ask(&exec, net, deadline).await;
                *kept = Some((Instant::now() + lasts(&given), given.clone().map(|(auth, _)| auth)));
                given.map(|(auth, _)| auth)
            }
        }
    };
    let late = || failed(&exec, "did not end in time");
    let given = timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(late()))?;
    auth.token = given.token.or(auth.token.take());
    auth.client_certificate_data = given.client_certificate_data.or(auth.client_certificate_data.take());
    auth.client_key_data = given.client_key_data.or(auth.client_key_data.take());
    Ok(())
}

/// Takes the command out of an auth provider of the kind that Kubernetes has dropped (1.26): kube would wait for it without end and
/// print what it prints. A token that the file still holds is used. Returns what to say if there is none.
pub(super) fn without_provider_command(auth: &mut AuthInfo) -> Option<String> {
    let provider = auth.auth_provider.as_mut()?;
    let command = provider.config.remove("cmd-path")?;
    let (name, command) = (clean(&provider.name, 60), clean(&command, 120));
    Some(format!(
        "the auth provider {name} would run {command}, which is not done: clients of Kubernetes 1.26 and later know exec plugins only"
    ))
}

/// What makes two plugins the same. Of the variables the maps have no order of their own.
fn key(exec: &ExecConfig, place: &str) -> String {
    let cluster = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info);
    json!([place, exec.command, exec.args, variables(exec).collect::<Vec<_>>(), exec.api_version, cluster]).to_string()
}

fn variables(exec: &ExecConfig) -> impl Iterator<Item = (&String, &String)> {
    exec.env.iter().flatten().filter_map(|variable| Some((variable.get("name")?, variable.get("value")?)))
}

fn lasts(given: &Result<(AuthInfo, Option<DateTime<Utc>>), Failure>) -> Duration {
    match given {
        Ok((_, Some(ends))) => (*ends - Utc::now()).to_std().unwrap_or_default().min(KEPT),
        Ok((_, None)) => KEPT,
        Err(_) => FAILED,
    }
}

/// The command's name alone: arguments may be secrets.
pub(super) fn name(exec: &ExecConfig) -> String {
    clean(exec.command.as_deref().unwrap_or("without a command"), 120)
}

fn failed(exec: &ExecConfig, what: &str) -> Failure {
    Failure::new(At::Config, format!("exec plugin {} {what}", name(exec)))
}

async fn ask(exec: &ExecConfig, net: &Net, deadline: Instant) -> Result<(AuthInfo, Option<DateTime<Utc>>), Failure> {
    let Some(program) = exec.command.as_deref() else { return Err(Failure::new(At::Config, "an exec plugin without a command")) };
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(failed(exec, "wants to ask at a terminal (interactiveMode: Always), which it does not get here"));
    }
    let mut command = Command::new(program);
    command.args(exec.args.iter().flatten()).envs(variables(exec)).env("KUBERNETES_EXEC_INFO", info(exec));
    let until = deadline.min(Instant::now() + PATIENCE);
    let (printed, status) = command::run(net, &mut command, MOST, until).await.map_err(|broken| failed(exec, &broken.words()))?;
    if !status.success() {
        return Err(failed(exec, &ended(status)));
    }
    credentials(&printed).map_err(|what| failed(exec, what))
}

fn info(exec: &ExecConfig) -> String {
    let mut spec = json!({"interactive": false});
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        spec["cluster"] = json!(cluster);
    }
    json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec}).to_string()
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("failed with exit status {code}; run by hand it says why"),
        None => "was killed".to_owned(),
    }
}

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    expiration_timestamp: Option<DateTime<Utc>>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
}

/// What a plugin printed. Nothing of it is told: where it is not understood, it may still be a secret.
fn credentials(printed: &[u8]) -> Result<(AuthInfo, Option<DateTime<Utc>>), &'static str> {
    let credential: ExecCredential = serde_json::from_slice(printed).map_err(|_| "printed no ExecCredential")?;
    let status = credential.status.ok_or("printed an ExecCredential without a status")?;
    let certificate = match (status.client_certificate_data, status.client_key_data) {
        (Some(certificate), Some(key)) => Some((base64(certificate.as_bytes()), base64(key.as_bytes()))),
        (None, None) => None,
        _ => return Err("gave a certificate without its key, or a key without its certificate"),
    };
    if status.token.as_deref().unwrap_or_default().is_empty() && certificate.is_none() {
        return Err("gave neither a token nor a certificate");
    }
    if status.expiration_timestamp.is_some_and(|ends| ends < Utc::now()) {
        return Err("gave credentials that have expired");
    }
    let (certificate, key) = certificate.unzip();
    // By way of JSON, so that the secrets get into kube's wrapper for them, which prints none.
    let auth = json!({"token": status.token, "client-certificate-data": certificate, "client-key-data": key});
    let auth = serde_json::from_value(auth).map_err(|_| "gave credentials that cannot be used")?;
    Ok((auth, status.expiration_timestamp))
}

#[cfg(test)]
mod tests;
