//! `postgres-login`: a login and `select 1` with the user's own credentials, through tokio-postgres.

mod credentials;

use super::lookup::{How, lookup};
use super::net::{connect, ms};
use super::resolv::ResolvConf;
use super::{Context, Kind, Probe, decode, fact, tls};
use crate::check::{Observation, clean};
use crate::vantage::Vantage;
use async_trait::async_trait;
use credentials::{Credentials, Server};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_rustls::TlsConnector;

/// A login and `select 1` with the user's own credentials.
pub(super) static KIND: Kind = Kind {
    name: "postgres-login",
    root: "login",
    about: "A login to PostgreSQL and `select 1`, with the credentials of DATABASE_URL or the password file, over verified TLS only",
    privilege: None,
    args: &[("host", "host name"), ("address", "address to connect to (absent: what the name resolves to)"), ("port", "port")],
    facts: &[
        fact("credentials", "text", "where they are from: `DATABASE_URL` or `pgpass`"),
        fact("user", "text", "the role"),
        fact("database", "text", "the database"),
        fact("ok", "bool", "logged in, and `select 1` answered 1"),
        fact("logged_in", "bool", "the server took the password and opened a session"),
        fact("login_ms", "ms", "TLS and authentication"),
        fact("query_ms", "ms", "`select 1`"),
        fact("sqlstate", "text", "SQLSTATE of the refusal; empty if none"),
        fact("message", "text", "the server's message; empty if none"),
        fact("error", "text", "what else went wrong, such as `tls: unknown issuer`; empty if nothing"),
    ],
    decode: decode::<PgLogin>,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PgLogin {
    host: String,
    #[serde(default)]
    address: Option<Ipv4Addr>,
    port: u16,
}

/// Why there is no session, or no answer to the query.
#[derive(Debug)]
enum Refused {
    /// The server's own words.
    Server { sqlstate: String, message: String },
    /// Anything else.
    Other(String),
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => Self::Server { sqlstate: clean(said.code().code(), 5), message: clean(said.message(), 500) },
            None => Self::Other(word(&error)),
        }
    }
}

impl PgLogin {
    async fn look(&self, vantage: &Vantage, deadline: Instant) -> Observation {
        let mut seen = Observation::default();
        match self.prepare(vantage, deadline).await {
            Err(reason) => {
                seen.could_not_look = Some(reason.clone());
                seen.rest_unknown(&KIND, &reason);
            }
            Ok((credentials, to, tls)) => {
                seen.facts.set("credentials", credentials.source);
                seen.facts.set("user", clean(&credentials.user, 63)).set("database", clean(&credentials.database, 63));
                let mut at = Times::default();
                let outcome = timeout_at(deadline, log_in(vantage, &credentials, to, tls, deadline, &mut at)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(Refused::Other("TIMEOUT".to_owned())));
                record(&mut seen, &outcome, &at);
            }
        }
        seen
    }

    /// What is needed before anything is sent; the error says what is missing.
    async fn prepare(&self, vantage: &Vantage, deadline: Instant) -> Result<(Credentials, SocketAddrV4, Tls), String> {
        let server = Server { host: &self.host, port: self.port };
        let credentials = credentials::find(vantage, server)?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| "the host name is not valid".to_owned())?;
        // A server that cannot be verified gets no password.
        let config = Arc::new(tls::strict(tls::roots(vantage).await?)?);
        let address = match (self.address, self.host.parse()) {
            (Some(address), _) | (None, Ok(address)) => address,
            (None, Err(_)) => self.resolve(vantage, deadline).await?,
        };
        Ok((credentials, SocketAddrV4::new(address, self.port), Tls { name, config }))
    }

    async fn resolve(&self, vantage: &Vantage, deadline: Instant) -> Result<Ipv4Addr, String> {
        let conf = ResolvConf::of(vantage)?;
        let found = lookup(&vantage.net, &conf, &self.host, How::default(), deadline).await?;
        found.address().ok_or_else(|| format!("{} has no address", clean(&self.host, 253)))
    }
}

/// When things were done.
#[derive(Default)]
struct Times {
    connected: Option<Instant>,
    logged_in: Option<Instant>,
    answered: Option<Instant>,
}

async fn log_in(
    vantage: &Vantage,
    credentials: &Credentials,
    to: SocketAddrV4,
    tls: Tls,
    deadline: Instant,
    at: &mut Times,
) -> Result<(), Refused> {
    let (stream, _) = connect(&vantage.net, to, deadline).await.map_err(|failed| Refused::Other(format!("connect: {}", failed.word)))?;
    at.connected = Some(Instant::now());
    let mut config = Config::new();
    config.user(&credentials.user).password(&credentials.password).dbname(&credentials.database);
    config.application_name("fathom").ssl_mode(SslMode::Require);
    let (client, connection) = config.connect_raw(stream, tls).await?;
    at.logged_in = Some(Instant::now());
    // The session ends when the client is dropped; its last message is sent by the connection.
    let (answer, ended) = tokio::join!(ask(client), connection);
    answer.map_or_else(|refused| ended.map_err(Refused::from).and(Err(refused)), Ok)?;
    at.answered = Some(Instant::now());
    Ok(())
}

async fn ask(client: Client) -> Result<(), Refused> {
    let rows = client.simple_query("select 1").await?;
    let one = rows.iter().any(|row| matches!(row, SimpleQueryMessage::Row(row) if row.get(0) == Some("1")));
    if one { Ok(()) } else { Err(Refused::Other("the answer to `select 1` is not 1".to_owned())) }
}

fn record(seen: &mut Observation, outcome: &Result<(), Refused>, at: &Times) {
    let (sqlstate, message, error) = match outcome {
        Ok(()) => ("", "", ""),
        Err(Refused::Server { sqlstate, message }) => (sqlstate.as_str(), message.as_str(), ""),
        Err(Refused::Other(word)) => ("", "", word.as_str()),
    };
    let said = [sqlstate, message, error].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    seen.note("postgres", format!("login and `select 1` -> {}", if said.is_empty() { "1" } else { &said }));
    let span = |from: Option<Instant>, to: Option<Instant>| from.zip(to).map(|(from, to)| ms(to.saturating_duration_since(from)));
    seen.facts.set("ok", outcome.is_ok()).set("logged_in", at.logged_in.is_some());
    seen.facts.set("sqlstate", sqlstate).set("message", message).set("error", error);
    seen.facts.set_or_unknown("login_ms", span(at.connected, at.logged_in), "no session was opened");
    seen.facts.set_or_unknown("query_ms", span(at.logged_in, at.answered), "no answer came");
}

/// A short word for an error that is not the server's: that of the innermost cause which has one.
fn word(error: &tokio_postgres::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return tls::word(io);
        }
        cause = inner.source();
    }
    clean(&error.to_string(), 200)
}

/// rustls under tokio-postgres, with a verifier that forgives nothing.
struct Tls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl TlsConnect<TcpStream> for Tls {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move { TlsConnector::from(self.config).connect(self.name, stream).await.map(Stream) })
    }
}

struct Stream(tokio_rustls::client::TlsStream<TcpStream>);

impl tokio_postgres::tls::TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Waker<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[async_trait]
impl Probe for PgLogin {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage, cx.deadline).await
    }

    fn target(&self) -> String {
        format!("{}:{}", clean(&self.host, 253), self.port)
    }
}

#[cfg(test)]
mod tests;
