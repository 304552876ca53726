//! PostgreSQL 15 as far as `select 1`: SSLRequest, TLS, StartupMessage, the decision of `pg_hba.conf`, SCRAM-SHA-256, a session
//! that knows one query (PostgreSQL documentation, "Message Flow: Start-up" and "Message Formats").

mod scram;
mod session;

use super::ServerHandle;
use super::handle::{address_of, listen};
use crate::encoding::base64;
use crate::vantage::Net;
use ipnet::Ipv4Net;
use rustls::ServerConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// Time for the whole exchange (`authentication_timeout`).
const AUTHENTICATION: Duration = Duration::from_secs(60);
/// Longest start-up packet (`MAX_STARTUP_PACKET_LENGTH`).
const LONGEST_STARTUP: u32 = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const PROTOCOL_3: u32 = 3;

/// What decides over a connection.
#[derive(Clone)]
struct Rules {
    allowed: Vec<Ipv4Net>,
    /// All connections are in use.
    full: bool,
    /// It was started without TLS, or a pooler in front has none: SSLRequest is answered with `N`.
    without_tls: bool,
    /// What answers in its place.
    instead: Option<Instead>,
    /// Roles that may log in, with password and salt.
    roles: BTreeMap<String, (String, [u8; 16])>,
    databases: BTreeSet<String>,
}

/// What may answer at the port in the place of a PostgreSQL server that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A web server.
    Http,
    /// A server that agrees to TLS, and hangs up when it is to begin: a certificate file that cannot be read, say.
    NoHandshake,
}

/// A running server.
pub struct PgHandle {
    server: ServerHandle,
    rules: Arc<Mutex<Rules>>,
}

impl PgHandle {
    /// Replaces the source ranges that `pg_hba.conf` admits (`hostssl all all RANGE scram-sha-256`).
    pub fn set_allowed(&self, allowed: Vec<Ipv4Net>) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).allowed = allowed;
    }

    /// Makes it answer 53300 (too many clients), or not.
    pub fn set_full(&self, full: bool) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).full = full;
    }

    /// Makes it decline TLS, or not. What `pg_hba.conf` admits (`hostssl`) stays.
    pub fn set_without_tls(&self, without: bool) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).without_tls = without;
    }

    /// Lets something else answer in its place, or itself again.
    pub fn set_instead(&self, instead: Option<Instead>) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).instead = instead;
    }

    /// Gives a role this password, or drops the role.
    pub fn set_role(&self, name: &str, password: Option<&str>) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        match password {
            Some(password) => drop(rules.roles.insert(name.to_owned(), (password.to_owned(), session::random()))),
            None => drop(rules.roles.remove(name)),
        }
    }

    /// Creates a database, or drops it.
    pub fn set_database(&self, name: &str, exists: bool) {
        let databases = &mut self.rules.lock().unwrap_or_else(PoisonError::into_inner).databases;
        let _ = if exists { databases.insert(name.to_owned()) } else { databases.remove(name) };
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.server.address()
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// A password that nobody has used before.
pub fn password() -> String {
    base64(&session::random::<18>())
}

/// Serves PostgreSQL. Only TLS connections from `allowed` get as far as being asked for a password; there is no role yet.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(net: &Net, address: SocketAddrV4, tls: Arc<ServerConfig>, allowed: Vec<Ipv4Net>) -> io::Result<PgHandle> {
    let databases = BTreeSet::from(["postgres".to_owned()]);
    let rules = Rules { allowed, full: false, without_tls: false, instead: None, roles: BTreeMap::new(), databases };
    let rules = Arc::new(Mutex::new(rules));
    let listener = listen(net, address)?;
    let mut server = ServerHandle::new(address_of(&listener));
    let (acceptor, shared) = (TlsAcceptor::from(tls), rules.clone());
    server.accept(listener, move |(stream, peer)| {
        let (acceptor, rules) = (acceptor.clone(), shared.clone());
        async move {
            if let SocketAddr::V4(peer) = peer {
                // An error is the client's leaving: nothing to do about it.
                tokio::time::timeout(AUTHENTICATION, connection(stream, *peer.ip(), acceptor, &rules)).await.ok();
            }
        }
    });
    Ok(PgHandle { server, rules })
}

async fn connection(mut stream: TcpStream, peer: Ipv4Addr, tls: TlsAcceptor, rules: &Mutex<Rules>) -> io::Result<()> {
    const NO_REQUEST: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request";
    loop {
        let (code, body) = startup(&mut stream).await?;
        let Rules { without_tls: declines, instead, .. } = rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match code {
            _ if instead == Some(Instead::Http) => {
                stream.write_all(NO_REQUEST).await?;
                return stream.shutdown().await;
            }
            SSL_REQUEST if instead == Some(Instead::NoHandshake) => {
                stream.write_all(b"S").await?;
                // The ClientHello is read: closing with it unread would reset the connection.
                let _ = stream.read(&mut [0; 4096]).await?;
                return stream.shutdown().await;
            }
            SSL_REQUEST if declines => stream.write_all(b"N").await?,
            SSL_REQUEST => {
                stream.write_all(b"S").await?;
                let mut stream = tls.accept(stream).await?;
                let (code, body) = startup(&mut stream).await?;
                session(&mut stream, code, &body, peer, true, rules).await?;
                return stream.shutdown().await;
            }
            GSS_REQUEST => stream.write_all(b"N").await?,
            CANCEL_REQUEST => return Ok(()),
            code => {
                session(&mut stream, code, &body, peer, false, rules).await?;
                return stream.shutdown().await;
            }
        }
    }
}

/// A start-up packet: its code (or protocol version) and what follows.
async fn startup(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u32, Vec<u8>)> {
    let length = stream.read_u32().await?;
    if !(8..=LONGEST_STARTUP).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid length of startup packet"));
    }
    let code = stream.read_u32().await?;
    let mut body = vec![0; length as usize - 8];
    stream.read_exact(&mut body).await?;
    Ok((code, body))
}

async fn session<S>(stream: &mut S, code: u32, body: &[u8], peer: Ipv4Addr, tls: bool, rules: &Mutex<Rules>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let rules = rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let parameters = parameters(body);
    let refusal = refusal(code, &parameters, peer, tls, &rules);
    if let Some(error) = refusal {
        return stream.write_all(&error).await;
    }
    session::run(stream, &parameters, &rules).await
}

/// The name-value pairs of a StartupMessage.
fn parameters(body: &[u8]) -> BTreeMap<String, String> {
    let mut words = body.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut found = BTreeMap::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name.is_empty() {
            break;
        }
        found.insert(name, value);
    }
    found
}

/// An error's SQLSTATE, and where in PostgreSQL's source it is raised. The line numbers move with every minor release; these are
/// plausible, not checked against one.
struct Refusal {
    code: &'static str,
    file: &'static str,
    line: &'static str,
    routine: &'static str,
}

impl Refusal {
    /// An ErrorResponse that ends the session.
    fn fatal(&self, message: &str) -> Vec<u8> {
        self.response("FATAL", message)
    }

    /// An ErrorResponse that ends the query.
    fn error(&self, message: &str) -> Vec<u8> {
        self.response("ERROR", message)
    }

    fn response(&self, severity: &str, message: &str) -> Vec<u8> {
        let fields = [
            (b'S', severity),
            (b'V', severity),
            (b'C', self.code),
            (b'M', message),
            (b'F', self.file),
            (b'L', self.line),
            (b'R', self.routine),
        ];
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(field);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&b"E"[..], &length.to_be_bytes(), &body].concat()
    }
}

/// Why a start-up is refused, as an ErrorResponse; `None` admits it to authentication.
fn refusal(code: u32, parameters: &BTreeMap<String, String>, peer: Ipv4Addr, tls: bool, rules: &Rules) -> Option<Vec<u8>> {
    if code >> 16 != PROTOCOL_3 {
        let place = Refusal { code: "0A000", file: "postmaster.c", line: "2197", routine: "ProcessStartupPacket" };
        let message = format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.0", code >> 16, code & 0xffff);
        return Some(place.fatal(&message));
    }
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()) else {
        let place = Refusal { code: "28000", file: "postmaster.c", line: "2301", routine: "ProcessStartupPacket" };
        return Some(place.fatal("no PostgreSQL user name specified in startup packet"));
    };
    if rules.full {
        let place = Refusal { code: "53300", file: "proc.c", line: "355", routine: "InitProcess" };
        return Some(place.fatal("sorry, too many clients already"));
    }
    if !tls || !rules.allowed.iter().any(|range| range.contains(&peer)) {
        let database = parameters.get("database").unwrap_or(user);
        let encryption = if tls { "SSL encryption" } else { "no encryption" };
        let place = Refusal { code: "28000", file: "auth.c", line: "531", routine: "ClientAuthentication" };
        let message = format!("no pg_hba.conf entry for host \"{peer}\", user \"{user}\", database \"{database}\", {encryption}");
        return Some(place.fatal(&message));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::service::pki::Authority;
    use rustls::pki_types::ServerName;

    fn hello() -> Vec<u8> {
        let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
    }

    struct Pg {
        handle: PgHandle,
        authority: Authority,
    }

    fn start(allowed: &[&str]) -> Pg {
        let authority = Authority::new("bridge").unwrap();
        let tls = authority.server(&["db.example"], &[]).unwrap();
        let allowed = allowed.iter().map(|range| range.parse().unwrap()).collect();
        let handle = serve(&Net::Here, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), tls, allowed).unwrap();
        Pg { handle, authority }
    }

    impl Pg {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.handle.address().unwrap()).await.unwrap()
        }

        /// The first message after the start-up over TLS.
        async fn over_tls(&self) -> Vec<u8> {
            let mut stream = self.connect().await;
            stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'S');
            let connector = tokio_rustls::TlsConnector::from(self.authority.client_config().unwrap());
            let mut stream = connector.connect(ServerName::try_from("db.example").unwrap(), stream).await.unwrap();
            stream.write_all(&hello()).await.unwrap();
            message(&mut stream).await
        }
    }

    async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let kind = stream.read_u8().await.unwrap();
        let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
        stream.read_exact(&mut body).await.unwrap();
        [&[kind], &body[..]].concat()
    }

    #[tokio::test]
    async fn an_allowed_source_is_asked_for_its_password() {
        let pg = start(&["127.0.0.0/8"]);
        assert_eq!(pg.over_tls().await, b"R\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        pg.handle.set_full(true);
        assert!(String::from_utf8(pg.over_tls().await).unwrap().contains("C53300\0Msorry, too many clients already\0"));
    }

    #[tokio::test]
    async fn another_source_is_named_in_the_refusal() {
        let pg = start(&["127.0.0.0/8"]);
        pg.handle.set_allowed(vec!["157.173.210.123/32".parse().unwrap()]);
        let text = String::from_utf8(pg.over_tls().await).unwrap();
        let says = "no pg_hba.conf entry for host \"127.0.0.1\", user \"postgres\", database \"postgres\", SSL encryption";
        assert_eq!(text, format!("ESFATAL\0VFATAL\0C28000\0M{says}\0Fauth.c\0L531\0RClientAuthentication\0\0"));
    }

    #[tokio::test]
    async fn without_tls_nobody_is_admitted_and_gss_is_declined() {
        let pg = start(&["127.0.0.0/8"]);
        let mut stream = pg.connect().await;
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 48]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
        stream.write_all(&hello()).await.unwrap();
        let text = String::from_utf8(message(&mut stream).await).unwrap();
        assert!(text.contains("database \"postgres\", no encryption"), "{text}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn garbage_and_cancel_requests_are_closed() {
        let pg = start(&[]);
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2]] {
            let mut stream = pg.connect().await;
            stream.write_all(bytes).await.unwrap();
            // Closed with a part unread is a reset, else an orderly end.
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    }
}
