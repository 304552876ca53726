//! The forward and cache plugins.

use super::answer::{Answer, Question};
use super::metrics::Metrics;
use crate::vantage::Net;
use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// How long one upstream has for its answer (CoreDNS `plugin/pkg/proxy`, read timeout).
const TRY: Duration = Duration::from_secs(2);
/// Tries that may time out before the answer is SERVFAIL.
const TRIES: usize = 2;
/// Pause between rounds while every upstream refuses; CoreDNS goes on for about as long as one try.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
/// Longest life of a cache entry (`cache 30`).
const CACHE_LIFE: Duration = Duration::from_secs(30);
/// Most cache entries.
const CACHE_ENTRIES: usize = 4096;

type Key = (String, RecordType);

struct Entry {
    answer: Answer,
    stored: Instant,
    life: Duration,
}

/// Asks upstream resolvers, and remembers.
pub(super) struct Forwarder {
    net: Net,
    upstreams: Mutex<Vec<SocketAddrV4>>,
    cache: Mutex<HashMap<Key, Entry>>,
    metrics: Arc<Metrics>,
    log: Log,
}

/// Where lines for the log go.
pub(super) type Log = Box<dyn Fn(&str) + Send + Sync>;

impl Forwarder {
    pub(super) fn new(net: Net, upstreams: Vec<SocketAddrV4>, metrics: Arc<Metrics>, log: Log) -> Self {
        Self { net, upstreams: Mutex::new(upstreams), cache: Mutex::default(), metrics, log }
    }

    pub(super) fn set_upstreams(&self, upstreams: Vec<SocketAddrV4>) {
        *self.upstreams.lock().unwrap_or_else(PoisonError::into_inner) = upstreams;
    }

    pub(super) fn flush(&self) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From the cache, or from an upstream resolver.
    pub(super) async fn resolve(&self, question: &Question) -> Answer {
        let key = (question.text.clone(), question.kind);
        let cached = self.cached(&key);
        self.metrics.looked_up(cached.as_ref().map(denial));
        if let Some(answer) = cached {
            return answer;
        }
        let answer = self.forward(question).await;
        if matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain) {
            self.store(key, &answer);
        }
        answer
    }

    fn cached(&self, key: &Key) -> Option<Answer> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.get(key).filter(|entry| entry.stored.elapsed() < entry.life)?;
        let mut answer = entry.answer.clone();
        let age = u32::try_from(entry.stored.elapsed().as_secs()).unwrap_or(u32::MAX);
        for record in answer.answers.iter_mut().chain(&mut answer.authorities) {
            record.decrement_ttl(age);
        }
        Some(answer)
    }

    fn store(&self, key: Key, answer: &Answer) {
        let shortest = answer.answers.iter().chain(&answer.authorities).map(|record| record.ttl).min();
        let life = shortest.map_or(CACHE_LIFE, |ttl| Duration::from_secs(ttl.into()).min(CACHE_LIFE));
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, entry| entry.stored.elapsed() < entry.life);
        if cache.len() < CACHE_ENTRIES {
            cache.insert(key, Entry { answer: answer.clone(), stored: Instant::now(), life });
        }
        let denials = cache.values().filter(|entry| denial(&entry.answer)).count();
        self.metrics.set_cache_entries(cache.len() - denials, denials);
    }

    /// Tries the upstreams in turn: SERVFAIL after two timeouts, or when all have refused for as long as one try.
    async fn forward(&self, question: &Question) -> Answer {
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let started = Instant::now();
        let (mut timeouts, mut last) = (0, String::new());
        while !upstreams.is_empty() {
            for upstream in &upstreams {
                let asked = Instant::now();
                match self.exchange(*upstream, question).await {
                    Ok(answer) => {
                        self.metrics.forwarded(*upstream, answer.code, asked.elapsed());
                        return answer;
                    }
                    Err(failed) => {
                        timeouts += usize::from(failed.timeout);
                        last = failed.text;
                    }
                }
                self.metrics.upstream_failed(*upstream);
                if timeouts >= TRIES || started.elapsed() >= TRY * 2 {
                    return self.failed(question, &last);
                }
            }
            if timeouts == 0 {
                if started.elapsed() + REFUSED_PAUSE > TRY {
                    tokio::time::sleep(TRY.saturating_sub(started.elapsed())).await;
                    return self.failed(question, &last);
                }
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
        self.failed(question, "no upstreams")
    }

    /// SERVFAIL, with the line that the errors plugin logs for it.
    fn failed(&self, question: &Question, why: &str) -> Answer {
        self.metrics.all_upstreams_failed();
        (self.log)(&format!("[ERROR] plugin/errors: 2 {} {}: {why}", question.name, question.kind));
        Answer::empty(ResponseCode::ServFail)
    }

    async fn exchange(&self, upstream: SocketAddrV4, question: &Question) -> Result<Answer, Failed> {
        let socket = self.socket(upstream).map_err(|e| Failed { timeout: false, text: format!("dial udp {upstream}: {e}") })?;
        let from = socket.local_addr().map(|at| at.to_string()).unwrap_or_default();
        let failed = |timeout, why: &str| Failed { timeout, text: format!("read udp {from}->{upstream}: {why}") };
        match tokio::time::timeout(TRY, transact(&socket, question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Err(failed(false, "read: connection refused")),
            Ok(Err(e)) => Err(failed(false, &e.to_string())),
            Err(_) => Err(failed(true, "i/o timeout")),
        }
    }

    fn socket(&self, upstream: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = self.net.with(|| std::net::UdpSocket::bind("0.0.0.0:0"))??;
        socket.set_nonblocking(true)?;
        socket.connect(upstream)?;
        UdpSocket::from_std(socket)
    }
}

/// A try that came to nothing.
struct Failed {
    /// Nobody answered in time.
    timeout: bool,
    /// In the words of Go's `net`.
    text: String,
}

async fn transact(socket: &UdpSocket, question: &Question) -> io::Result<Answer> {
    let query = query(question);
    socket.send(&query.to_vec().map_err(io::Error::other)?).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this query is ignored, as from a spoofer.
        if let Ok(reply) = Message::from_vec(&buffer[..length])
            && reply.metadata.id == query.metadata.id
            && reply.queries == query.queries
        {
            return Ok(answer_of(reply));
        }
    }
}

fn query(question: &Question) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_version(0);
    message.set_edns(edns);
    message
}

/// CoreDNS passes the upstream's flags on.
fn answer_of(reply: Message) -> Answer {
    let mut answers = reply.answers;
    for record in &mut answers {
        record.ttl = record.ttl.min(CACHE_LIFE.as_secs() as u32);
    }
    Answer {
        code: reply.metadata.response_code,
        authoritative: reply.metadata.authoritative,
        recursion_available: reply.metadata.recursion_available,
        answers,
        authorities: reply.authorities,
        additionals: Vec::new(),
    }
}

/// Whether an answer denies that there is such a record.
fn denial(answer: &Answer) -> bool {
    answer.code == ResponseCode::NXDomain || answer.answers.is_empty()
}
