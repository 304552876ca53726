use super::super::testing::{listen, vantage};
use super::*;
use crate::twin::service::pki::Authority;
use crate::twin::service::postgres::{self, PgHandle};
use crate::vantage::{HostFiles, Net, Source};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "db.example";
const PASSWORD: &str = "MaRkEr:pa\u{df}\\word 1";

struct Db {
    server: PgHandle,
    authority: Authority,
}

fn start() -> Db {
    let authority = Authority::new("bridge").unwrap();
    let tls = authority.server(&[NAME], &[]).unwrap();
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    let server = postgres::serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), tls, allowed).unwrap();
    server.set_role("app", Some(PASSWORD));
    server.set_database("oceanid", true);
    Db { server, authority }
}

fn pgpass(user: &str, password: &str, database: &str) -> String {
    let password = password.replace('\\', "\\\\").replace(':', "\\:");
    format!("{NAME}:*:{database}:{user}:{password}\n")
}

async fn look(at: SocketAddrV4, trust: &Authority, pgpass: String) -> Observation {
    let files = HostFiles { pgpass: Some(Source::Text(pgpass)), trust: Some(vec![trust.certificate()]), ..HostFiles::default() };
    let vantage = Vantage { files, ..vantage("") };
    let probe = PgLogin { host: NAME.into(), address: Some(*at.ip()), port: at.port() };
    let seen = probe.look(&vantage, Instant::now() + Duration::from_secs(20)).await;
    let shown = format!("{seen:?}");
    assert!(!shown.contains("MaRkEr") && !shown.contains("word 1"), "{shown}");
    for fact in KIND.facts {
        let told = seen.facts.get(fact.path).is_some() || seen.facts.unknowns().contains_key(fact.path);
        assert!(told, "{} is neither known nor unknown", fact.path);
    }
    seen
}

impl Db {
    async fn look(&self, user: &str, password: &str, database: &str) -> [Value; 4] {
        let seen = look(self.server.address().unwrap(), &self.authority, pgpass(user, password, database)).await;
        ["ok", "logged_in", "sqlstate", "message"].map(|path| seen.facts.get(path).cloned().unwrap_or_default())
    }
}

#[tokio::test]
async fn a_login_and_a_query() {
    let db = start();
    let seen = look(db.server.address().unwrap(), &db.authority, pgpass("app", PASSWORD, "oceanid")).await;
    let get = |path| seen.facts.get(path).cloned().unwrap_or_default();
    assert_eq!((get("ok"), get("logged_in"), get("error"), get("sqlstate")), (json!(true), json!(true), json!(""), json!("")));
    assert_eq!((get("credentials"), get("user"), get("database")), (json!("pgpass"), json!("app"), json!("oceanid")));
    assert!(get("login_ms").is_number() && get("query_ms").is_number());
    // `*` in the file is the database that every server has.
    assert_eq!(db.look("app", PASSWORD, "*").await[0], json!(true));
}

#[tokio::test]
async fn refusals_in_the_servers_words() {
    let db = start();
    let refused = |user: &str| json!(format!("password authentication failed for user \"{user}\""));
    assert_eq!(db.look("app", "MaRkEr", "oceanid").await, [json!(false), json!(false), json!("28P01"), refused("app")]);
    // PostgreSQL does not tell who does not exist.
    assert_eq!(db.look("nobody", PASSWORD, "oceanid").await, [json!(false), json!(false), json!("28P01"), refused("nobody")]);
    let missing = json!("database \"gone\" does not exist");
    assert_eq!(db.look("app", PASSWORD, "gone").await, [json!(false), json!(false), json!("3D000"), missing]);
    db.server.set_role("app", None);
    assert_eq!(db.look("app", PASSWORD, "oceanid").await[2], json!("28P01"));
}

#[tokio::test]
async fn a_server_that_cannot_be_verified_gets_no_password() {
    let db = start();
    let other = Authority::new("other").unwrap();
    let seen = look(db.server.address().unwrap(), &other, pgpass("app", PASSWORD, "oceanid")).await;
    assert_eq!((seen.facts.get("ok"), seen.facts.get("error")), (Some(&json!(false)), Some(&json!("tls: unknown issuer"))));
    // One that declines TLS, likewise: nothing but the request for TLS reaches it.
    let at = listen(|mut stream| async move {
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "something was sent without TLS");
    })
    .await;
    let seen = look(at, &db.authority, pgpass("app", PASSWORD, "oceanid")).await;
    assert_eq!(seen.facts.get("logged_in"), Some(&json!(false)));
    assert!(seen.facts.get("error").and_then(Value::as_str).unwrap().contains("TLS"), "{seen:?}");
}

#[tokio::test]
async fn without_credentials_nothing_is_known() {
    let db = start();
    let seen = look(db.server.address().unwrap(), &db.authority, "other:*:*:a:b".into()).await;
    let why = seen.could_not_look.unwrap();
    assert!(why.starts_with("the password file has no entry with a user for db.example:"), "{why}");
    assert_eq!(seen.facts.get("ok"), None);
}
