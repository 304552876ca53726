//! Authentication and what follows it.

use super::scram::{Exchange, Verifier};
use super::{Refusal, Rules};
use crate::encoding::base64;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message of a client.
const LONGEST: u32 = 65_536;
/// Queries of one session.
const MOST_QUERIES: usize = 100;
/// AuthenticationSASL with the mechanisms that are offered over TLS.
const AUTHENTICATION_SASL: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// Random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    std::array::from_fn(|_| RandomState::new().build_hasher().finish() as u8)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn authentication(code: u32, text: &str) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], text.as_bytes()].concat())
}

/// The next message of the client: its kind and body.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    if !(4..=LONGEST).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid message length"));
    }
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A client that `pg_hba.conf` admits: its password, its database, its queries.
pub(super) async fn run<S>(stream: &mut S, parameters: &BTreeMap<String, String>, rules: &Rules) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let user = parameters.get("user").map_or("", String::as_str);
    if !authenticate(stream, user, rules).await? {
        let place = Refusal { code: "28P01", line: "326", routine: "auth_failed", file: "auth.c" };
        return write(stream, &place.fatal(&format!("password authentication failed for user \"{user}\""))).await;
    }
    let database = parameters.get("database").map_or(user, String::as_str);
    let mut greeting = authentication(0, "");
    if !rules.databases.contains(database) {
        let place = Refusal { code: "3D000", line: "1019", routine: "InitPostgres", file: "postinit.c" };
        greeting.extend(place.fatal(&format!("database \"{database}\" does not exist")));
        return write(stream, &greeting).await;
    }
    for (name, value) in
        [("server_version", "15.14"), ("server_encoding", "UTF8"), ("client_encoding", "UTF8"), ("integer_datetimes", "on")]
    {
        greeting.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    greeting.extend(message(b'K', &random::<8>()));
    greeting.extend(message(b'Z', b"I"));
    write(stream, &greeting).await?;
    queries(stream).await
}

/// Whether the client knows the password. Of a role that does not exist it is asked all the same, and never right.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, user: &str, rules: &Rules) -> io::Result<bool> {
    let known = rules.roles.get(user);
    let exists = known.is_some();
    let (password, salt) = known.cloned().unwrap_or_else(|| (base64(&random::<18>()), random()));
    let verifier = Verifier::new(&password, salt);
    write(stream, &message(b'R', AUTHENTICATION_SASL)).await?;
    // SASLInitialResponse: the mechanism, and a text with its length before it.
    let (_, body) = read(stream).await?;
    let first = body.strip_prefix(b"SCRAM-SHA-256\0").and_then(|rest| rest.get(4..));
    let Some(exchange) = first.and_then(|first| Exchange::new(verifier, first, &base64(&random::<18>()))) else { return Ok(false) };
    write(stream, &authentication(SASL_CONTINUE, &exchange.first)).await?;
    let (_, proof) = read(stream).await?;
    match exchange.last(&proof).filter(|_| exists) {
        Some(last) => write(stream, &authentication(SASL_FINAL, &last)).await.map(|()| true),
        None => Ok(false),
    }
}

/// Answers `select 1`, and nothing else.
async fn queries<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    for _ in 0..MOST_QUERIES {
        let (kind, body) = read(stream).await?;
        let query = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).trim_end_matches(';').trim().to_ascii_lowercase();
        let mut answer = match (kind, query.as_str()) {
            (b'X', _) => return Ok(()),
            (b'Q', "select 1") => one(),
            _ => Refusal { code: "0A000", line: "1", routine: "twin", file: "twin.c" }.error("the twin's database knows `select 1` only"),
        };
        answer.extend(message(b'Z', b"I"));
        write(stream, &answer).await?;
    }
    Ok(())
}

/// RowDescription of one int4 column in text format, the row, CommandComplete.
fn one() -> Vec<u8> {
    const INT4: u32 = 23;
    let column = [&b"?column?\0"[..], &[0; 6], &INT4.to_be_bytes(), &4_u16.to_be_bytes(), &[0xff; 4], &[0; 2]].concat();
    let mut answer = message(b'T', &[&1_u16.to_be_bytes()[..], &column].concat());
    answer.extend(message(b'D', &[&1_u16.to_be_bytes()[..], &1_u32.to_be_bytes(), b"1"].concat()));
    answer.extend(message(b'C', b"SELECT 1\0"));
    answer
}
