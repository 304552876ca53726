//! `postgres-idle`: whether a connection to PostgreSQL survives a silence, against one that is fresh.

use super::net::{connect, ms};
use super::pg_wire::ask_for_tls;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::Observation;
use crate::vantage::Net;
use async_trait::async_trait;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Whether a connection to PostgreSQL survives a silence.
pub(super) static KIND: Kind = Kind {
    name: "postgres-idle",
    root: "idle",
    about: "Whether a connection to PostgreSQL survives a silence, against one that is fresh",
    privilege: None,
    args: &[("address", "IPv4 address"), ("port", "port"), ("seconds", "how long the connection is silent, 1 to 50")],
    facts: &[
        fact("seconds", "s", "how long the connection was silent"),
        fact("connected", "bool", "the connection was made"),
        fact("answer", "text", "answer to an SSLRequest after the silence: S, N, another character, `eof` or `timeout`"),
        fact("answer_ms", "ms", "how long that took"),
        fact("fresh_answer", "text", "answer to an SSLRequest on a new connection right afterwards; `none` if it does not connect"),
        fact("alive", "bool", "the silent connection was answered"),
    ],
    decode: decode::<PgIdle>,
};

/// How long an answer may take: two retransmissions of a lost segment.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PgIdle {
    address: Ipv4Addr,
    port: u16,
    seconds: Seconds,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
struct Seconds(u8);

impl TryFrom<i64> for Seconds {
    type Error = String;

    fn try_from(seconds: i64) -> Result<Self, String> {
        let fits = u8::try_from(seconds).ok().filter(|s| (1..=50).contains(s));
        fits.map(Self).ok_or_else(|| format!("{seconds} s is not between 1 and 50"))
    }
}

impl PgIdle {
    fn server(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    /// The server waits for a first message up to `authentication_timeout` (60 s by default), so its side stays open.
    async fn look(&self, net: &Net, deadline: Instant) -> Observation {
        let mut seen = Observation::default();
        seen.facts.set("seconds", self.seconds.0);
        let mut silent = match connect(net, self.server(), deadline).await {
            Ok((stream, _)) => stream,
            Err(failed) => {
                seen.note("tcp", format!("connect {} -> {}", self.server(), failed.word));
                seen.facts.set("connected", false);
                seen.rest_unknown(&KIND, "no TCP connection");
                return seen;
            }
        };
        sleep(Duration::from_secs(self.seconds.0.into())).await;
        let began = Instant::now();
        let answer = ask(&mut silent, deadline).await;
        let took = ms(began.elapsed());
        let fresh = match connect(net, self.server(), deadline).await {
            Ok((mut stream, _)) => ask(&mut stream, deadline).await,
            Err(_) => "none".to_owned(),
        };
        seen.note(
            "postgres",
            format!("SSLRequest after {} s of silence -> {answer} ({took} ms); on a new connection -> {fresh}", self.seconds.0),
        );
        seen.facts.set("connected", true).set("alive", answer.len() == 1);
        seen.facts.set("answer", answer).set("answer_ms", took).set("fresh_answer", fresh);
        seen
    }
}

/// The word for the answer to an SSLRequest.
async fn ask(stream: &mut TcpStream, deadline: Instant) -> String {
    match ask_for_tls(stream, deadline.min(Instant::now() + PATIENCE)).await {
        Ok(byte) if byte.is_ascii_graphic() => char::from(byte).to_string(),
        Ok(_) => "?".to_owned(),
        Err(ending) => ending.word().to_owned(),
    }
}

#[async_trait]
impl Probe for PgIdle {
    async fn observe(&self, cx: &Context) -> Observation {
        self.look(&cx.vantage.net, cx.deadline).await
    }

    fn target(&self) -> String {
        self.server().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::listen;
    use super::*;
    use crate::check::Facts;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn look(at: SocketAddrV4) -> Facts {
        let probe = PgIdle { address: *at.ip(), port: at.port(), seconds: Seconds(1) };
        probe.look(&Net::Here, Instant::now() + Duration::from_secs(8)).await.facts
    }

    /// Answers connections; with `drops_first`, the first one is closed at once.
    async fn server(drops_first: bool) -> SocketAddrV4 {
        let first = Arc::new(AtomicBool::new(drops_first));
        listen(move |mut stream| {
            let first = first.clone();
            async move {
                if !first.swap(false, Ordering::SeqCst) && stream.read_exact(&mut [0; 8]).await.is_ok() {
                    let _ = stream.write_all(b"S").await;
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_connection_that_lives_and_one_that_dies() {
        let facts = look(server(false).await).await;
        assert_eq!((facts.get("alive"), facts.get("answer")), (Some(&true.into()), Some(&"S".into())));
        let facts = look(server(true).await).await;
        assert_eq!(
            (facts.get("alive"), facts.get("answer"), facts.get("fresh_answer")),
            (Some(&false.into()), Some(&"eof".into()), Some(&"S".into()))
        );
    }

    #[test]
    fn seconds_are_bounded() {
        assert!(Seconds::try_from(0).is_err() && Seconds::try_from(51).is_err() && Seconds::try_from(50).is_ok());
    }
}
