//! The first messages of PostgreSQL's protocol 3.0 (the manual, "Message Formats"), as far as they go without a password.

use crate::check::clean;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// SSLRequest: length 8, code 80877103.
pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
/// Terminate.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// The longest message that is read; real ones have some hundred bytes.
const MOST_MESSAGE_BYTES: usize = 64 << 10;
/// Messages that may come before the one that decides.
const MOST_SKIPPED: usize = 8;

/// Why no answer could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer closed the connection, or it broke.
    Eof,
    /// Nothing came in time.
    Timeout,
    /// What came is no message of this protocol.
    Garbage,
}

impl Ending {
    /// The word for reports.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Timeout => "timeout",
            Self::Garbage => "garbage",
        }
    }
}

/// A server's answer to the StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// ErrorResponse: SQLSTATE (empty from servers that are too broken to have one) and message, both cleaned.
    Error { sqlstate: String, message: String },
    /// AuthenticationRequest: the method asked for; `trust` if none.
    Auth(String),
}

/// Asks for TLS and reads the one byte that answers.
pub(super) async fn ask_for_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, until: Instant) -> Result<u8, Ending> {
    within(until, stream.write_all(&SSL_REQUEST)).await?;
    within(until, stream.read_u8()).await
}

/// What follows the byte `E` that answers an SSLRequest: an ErrorResponse, or (from a server that could not even start a
/// process for the connection) plain text up to a NUL.
pub(super) async fn read_early_error<S: AsyncRead + Unpin>(stream: &mut S, until: Instant) -> Answer {
    let mut bytes = vec![b'E'];
    let mut reader = stream.take(4096);
    // Whatever has come by then is read, complete or not.
    let _ = within(until, reader.read_to_end(&mut bytes)).await;
    match bytes.get(1) {
        Some(0) => error_response(bytes.get(5..).unwrap_or_default()),
        _ => Answer::Error { sqlstate: String::new(), message: text(bytes[1..].split(|b| *b == 0).next().unwrap_or_default(), 500) },
    }
}

/// Sends the StartupMessage for a user and a database that need not exist, and reads what decides.
pub(super) async fn start_up<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, until: Instant) -> Result<Answer, Ending> {
    within(until, stream.write_all(&startup_message("fathom", "postgres"))).await?;
    within(until, stream.flush()).await?;
    for _ in 0..MOST_SKIPPED {
        let (kind, body) = read_message(stream, until).await?;
        match kind {
            b'E' => return Ok(error_response(&body)),
            b'R' => return auth_request(&body).map(Answer::Auth).ok_or(Ending::Garbage),
            // NoticeResponse, NegotiateProtocolVersion.
            b'N' | b'v' => {}
            _ => return Err(Ending::Garbage),
        }
    }
    Err(Ending::Garbage)
}

/// Closes as libpq does: Terminate only where a session was reached; a server that waits for a password would take it
/// for a broken client and log an error.
pub(super) async fn close<S: AsyncWrite + Unpin>(stream: &mut S, session: bool, until: Instant) {
    if session {
        let _ = within(until, stream.write_all(&TERMINATE)).await;
    }
    let _ = within(until, stream.shutdown()).await;
}

fn startup_message(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for word in ["user", user, "database", database, ""] {
        body.extend(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), body].concat()
}

async fn within<T>(until: Instant, io: impl Future<Output = io::Result<T>>) -> Result<T, Ending> {
    match timeout_at(until, io).await {
        Ok(outcome) => outcome.map_err(|_| Ending::Eof),
        Err(_) => Err(Ending::Timeout),
    }
}

async fn read_message<S: AsyncRead + Unpin>(stream: &mut S, until: Instant) -> Result<(u8, Vec<u8>), Ending> {
    let kind = within(until, stream.read_u8()).await?;
    // The length counts itself.
    let length = usize::try_from(within(until, stream.read_u32()).await?).unwrap_or(usize::MAX);
    let length = length.checked_sub(4).filter(|n| *n <= MOST_MESSAGE_BYTES).ok_or(Ending::Garbage)?;
    let mut body = vec![0; length];
    within(until, stream.read_exact(&mut body)).await?;
    Ok((kind, body))
}

/// Fields of one letter and a text each, ended by a NUL.
fn error_response(body: &[u8]) -> Answer {
    let field = |letter: u8| {
        let found = body.split(|b| *b == 0).find(|field| field.first() == Some(&letter));
        found.and_then(|field| field.get(1..)).unwrap_or_default()
    };
    Answer::Error { sqlstate: text(field(b'C'), 5), message: text(field(b'M'), 500) }
}

fn auth_request(body: &[u8]) -> Option<String> {
    let (code, rest) = body.split_first_chunk::<4>()?;
    Some(match u32::from_be_bytes(*code) {
        0 => "trust".to_owned(),
        2 => "kerberos".to_owned(),
        3 => "cleartext".to_owned(),
        5 => "md5".to_owned(),
        7 => "gss".to_owned(),
        9 => "sspi".to_owned(),
        10 if rest.starts_with(b"SCRAM-SHA-256") => "scram-sha-256".to_owned(),
        10 => text(rest.split(|b| *b == 0).next().unwrap_or_default(), 40).to_ascii_lowercase(),
        other => format!("type {other}"),
    })
}

fn text(bytes: &[u8], most: usize) -> String {
    clean(String::from_utf8_lossy(bytes).trim(), most)
}

/// The client address that a message of the server names: `... for host "203.0.113.50", user ...`.
pub(super) fn source_seen(message: &str) -> Option<Ipv4Addr> {
    let (_, rest) = message.split_once("host \"")?;
    rest.split('"').next()?.parse().ok()
}

/// For fuzzers: bytes of what a server's first messages say.
pub(super) fn kept(bytes: &[u8]) -> usize {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return 0 };
    let until = Instant::now() + std::time::Duration::from_secs(5);
    let early = bytes.strip_prefix(b"E").map(|mut rest| runtime.block_on(read_early_error(&mut rest, until)));
    let answer = runtime.block_on(start_up(&mut tokio::io::join(bytes, tokio::io::sink()), until)).ok();
    let length = |answer: Answer| match answer {
        Answer::Error { sqlstate, message } => sqlstate.len() + source_seen(&message).map_or(message.len(), |_| message.len()),
        Answer::Auth(method) => method.len(),
    };
    early.map_or(0, length).max(answer.map_or(0, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    async fn start_up_against(answer: &[u8]) -> Result<Answer, Ending> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 17);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        start_up(&mut ours, soon()).await
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
    }

    #[tokio::test]
    async fn reads_errors_and_methods() {
        let error = message(b'E', b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host \"203.0.113.50\", user\0\0");
        let Ok(Answer::Error { sqlstate, message: words }) = start_up_against(&error).await else { panic!() };
        assert_eq!((sqlstate.as_str(), source_seen(&words)), ("28000", Some(Ipv4Addr::new(203, 0, 113, 50))));
        let notice = message(b'N', b"SNOTICE\0\0");
        for (body, method) in [
            (&b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..], "scram-sha-256"),
            (b"\0\0\0\x0aOAUTHBEARER\0\0", "oauthbearer"),
            (b"\0\0\0\x05salt", "md5"),
            (b"\0\0\0\x03", "cleartext"),
            (b"\0\0\0\0", "trust"),
            (b"\0\0\0\x63", "type 99"),
        ] {
            let bytes = [notice.clone(), message(b'R', body)].concat();
            assert_eq!(start_up_against(&bytes).await, Ok(Answer::Auth(method.to_owned())));
        }
    }

    #[tokio::test]
    async fn hostile_messages_end_in_words() {
        let huge = [b"R".to_vec(), u32::MAX.to_be_bytes().to_vec()].concat();
        let short = [b"R".to_vec(), 3_u32.to_be_bytes().to_vec()].concat();
        let cut = [b"E".to_vec(), 99_u32.to_be_bytes().to_vec(), b"C28".to_vec()].concat();
        let cases = [
            (huge, Ending::Garbage),
            (short, Ending::Garbage),
            (cut, Ending::Eof),
            (vec![], Ending::Eof),
            (b"R".to_vec(), Ending::Eof),
            (message(b'R', b"\0\0"), Ending::Garbage),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Ending::Garbage),
            (message(b'N', b"").repeat(100), Ending::Garbage),
        ];
        for (bytes, ending) in cases {
            assert_eq!(start_up_against(&bytes).await, Err(ending));
        }
        let empty = Answer::Error { sqlstate: String::new(), message: String::new() };
        assert_eq!(start_up_against(&message(b'E', b"")).await, Ok(empty.clone()));
        assert_eq!(start_up_against(&message(b'E', b"C\0M\0\0\0\0")).await, Ok(empty));
    }

    #[tokio::test]
    async fn an_early_error_has_two_forms() {
        for (bytes, code, words) in [
            (&b"could not fork new process for connection: x\n\0"[..], "", "could not fork new process for connection: x"),
            (b"\0\0\0\x20C53300\0Mtoo many\0\0", "53300", "too many"),
            (b"", "", ""),
            (b"\0", "", ""),
        ] {
            let expected = Answer::Error { sqlstate: code.to_owned(), message: words.to_owned() };
            assert_eq!(read_early_error(&mut &bytes[..], soon()).await, expected);
        }
    }

    #[test]
    fn a_message_without_a_source_names_none() {
        for words in ["", "host \"", "host \"::1\"", "host \"a.b.c.d\"", "no pg_hba.conf entry"] {
            assert_eq!(source_seen(words), None, "{words}");
        }
    }
}
