//! A model server with an exact pace and its own book of what it did when: the truth that a client's figures are held
//! against, in tests and in `benches/vllm_client.rs`. One thread, no runtime and no timer wheel, so that it shares neither
//! code nor rounding with the client that it examines.

#![allow(dead_code, reason = "the tests and the bench include this file and use different parts of it")]

// The bench includes this file from elsewhere: by its path it finds this one too.
#[path = "pacer/held.rs"]
mod held;

pub(crate) use held::{Held, Span};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::unistd::Pid;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at whether it shall end.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes of a request.
const MOST_REQUEST: usize = 8 << 20;

/// How it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From the moment a request is scheduled to its first token.
    pub(crate) first_token: Duration,
    /// From one token to the next; zero writes as fast as the reader reads.
    pub(crate) interval: Duration,
    /// Requests served at a time; more of them wait.
    pub(crate) slots: usize,
}

/// What the server did for one request, ms. A request begins when its last byte came off the wire by the kernel's clock, not
/// when this thread was let at the processor to read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    /// From its last byte to its turn.
    pub(crate) queue_ms: f64,
    /// From its last byte to its first token.
    pub(crate) ttft_ms: Span,
    /// From one token to the next, on average; `None` for one token.
    pub(crate) tpot_ms: Option<Span>,
    /// From its last byte to its last token.
    pub(crate) e2e_ms: Span,
    /// Tokens.
    pub(crate) tokens: u32,
    /// When its last byte came, and when its last token had gone.
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// Binds the calling thread, and those that it will start, to one processor.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// A running server.
pub(crate) struct Pacer {
    pub(crate) address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Truth>>>,
}

impl Pacer {
    /// Serves on a loopback port, on the given processor.
    pub(crate) fn start(pace: Pace, core: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr()?.port());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            core.map_or(Ok(()), pin)?;
            Server { listener, pace, connections: Vec::new(), arrivals: 0, book: Vec::new() }.serve(&stopped)
        })?;
        Ok(Self { address, stop, thread })
    }

    /// Ends it; returns its book.
    pub(crate) fn finish(self) -> io::Result<Vec<Truth>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the server's thread panicked")))
    }
}

struct Server {
    listener: TcpListener,
    pace: Pace,
    connections: Vec<Connection>,
    /// Numbers requests, so that they wait in the order in which they came.
    arrivals: u64,
    book: Vec<Truth>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    answer: Option<Answer>,
    close: bool,
    gone: bool,
}

/// A completion on its way.
struct Answer {
    number: u64,
    chat: bool,
    running_usage: bool,
    tokens: u32,
    written: u32,
    arrived: Instant,
    scheduled: Option<Instant>,
    due: Instant,
    first: Option<Written>,
    last: Written,
}

/// The clock before a write and behind it.
#[derive(Clone, Copy)]
struct Written {
    from: Instant,
    to: Instant,
}

impl Server {
    fn serve(mut self, stop: &AtomicBool) -> io::Result<Vec<Truth>> {
        while !stop.load(Ordering::Relaxed) {
            let readable = self.wait()?;
            for (connection, _) in self.connections.iter_mut().zip(readable).filter(|(_, readable)| *readable) {
                connection.read(&mut self.arrivals);
            }
            while let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                setsockopt(&stream, ReceiveTimestampns, &true)?;
                let (input, output) = (Vec::new(), Vec::new());
                self.connections.push(Connection { stream, input, output, answer: None, close: false, gone: false });
            }
            self.schedule();
            for connection in &mut self.connections {
                self.book.extend(connection.write(self.pace.interval));
            }
            self.connections.retain(|c| !(c.gone || c.close && c.answer.is_none() && c.output.is_empty()));
        }
        Ok(self.book)
    }

    /// Until a socket or a token is due; returns which connections can be read.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let due = |c: &Connection| c.answer.as_ref().filter(|a| a.scheduled.is_some() && c.output.is_empty()).map(|a| a.due);
        let next = self.connections.iter().filter_map(due).min().map_or(LOOK, |due| due.saturating_duration_since(now).min(LOOK));
        let mut sockets = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        for c in &self.connections {
            let out = if c.output.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            sockets.push(PollFd::new(c.stream.as_fd(), PollFlags::POLLIN | out));
        }
        let timeout = TimeSpec::nanoseconds(i64::try_from(next.as_nanos()).unwrap_or(i64::MAX));
        match ppoll(&mut sockets, Some(timeout), None) {
            Ok(_) => Ok(sockets[1..].iter().map(|s| s.any().unwrap_or(true)).collect()),
            Err(nix::errno::Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives free slots to those who have waited longest.
    fn schedule(&mut self) {
        let mut answers: Vec<&mut Answer> = self.connections.iter_mut().filter_map(|c| c.answer.as_mut()).collect();
        let served = answers.iter().filter(|a| a.scheduled.is_some()).count();
        answers.retain(|a| a.scheduled.is_none());
        answers.sort_by_key(|a| a.number);
        for answer in answers.into_iter().take(self.pace.slots.saturating_sub(served)) {
            let now = Instant::now();
            answer.scheduled = Some(now);
            answer.due = now + self.pace.first_token;
        }
    }
}

impl Connection {
    fn read(&mut self, arrivals: &mut u64) {
        let mut buffer = [0; 16 << 10];
        let mut came = Instant::now();
        loop {
            match receive(&self.stream, &mut buffer) {
                Ok((n, at)) if n > 0 && self.input.len() < MOST_REQUEST => {
                    self.input.extend_from_slice(&buffer[..n]);
                    came = at;
                }
                Err(nix::errno::Errno::EAGAIN) => break,
                _ => {
                    self.gone = true;
                    return;
                }
            }
        }
        if self.answer.is_none() && self.take_request(*arrivals, came).is_some() {
            *arrivals += 1;
        }
    }

    /// Takes a whole request off the input.
    fn take_request(&mut self, number: u64, came: Instant) -> Option<()> {
        let end = self.input.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.input[..end]).to_ascii_lowercase();
        let length = after(&head, "content-length:").unwrap_or(0) as usize;
        let request: Vec<u8> = (self.input.len() >= end + length).then(|| self.input.drain(..end + length).collect())?;
        let body = String::from_utf8_lossy(&request[end..]);
        self.close = head.contains("connection: close");
        if !head.starts_with("post") {
            self.output = page(&head);
            return None;
        }
        let tokens = after(&body, "\"max_tokens\":").or_else(|| after(&body, "\"max_completion_tokens\":")).unwrap_or(16);
        self.answer = Some(Answer {
            number,
            chat: head.contains("/chat/"),
            running_usage: body.contains("continuous_usage_stats"),
            tokens: u32::try_from(tokens.max(1)).unwrap_or(u32::MAX),
            written: 0,
            arrived: came,
            scheduled: None,
            due: came,
            first: None,
            last: Written { from: came, to: came },
        });
        self.output = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        Some(())
    }

    /// Writes what is due; returns the record of an answer that ended.
    fn write(&mut self, interval: Duration) -> Option<Truth> {
        self.flush();
        while self.output.is_empty() {
            let from = Instant::now();
            let answer = self.answer.as_mut().filter(|a| a.scheduled.is_some() && a.due <= from)?;
            answer.token(&mut self.output);
            answer.due += interval;
            self.flush();
            let answer = self.answer.as_mut()?;
            answer.last = Written { from, to: Instant::now() };
            answer.first.get_or_insert(answer.last);
            if answer.written == answer.tokens {
                return self.answer.take().map(|answer| answer.truth());
            }
            if interval.is_zero() {
                // One token each in turn, or a fast reader would be served alone.
                return None;
            }
        }
        None
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.gone {
            match self.stream.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

impl Answer {
    /// The next token, in vLLM's shape: the role right before the first one, usage and `[DONE]` behind the last.
    fn token(&mut self, output: &mut Vec<u8>) {
        self.written += 1;
        if self.first.is_none() && self.chat {
            chunk(
                output,
                &self.event(r#"[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]"#, false),
            );
        }
        let end = self.written == self.tokens;
        let reason = if end { "\"length\"" } else { "null" };
        let said = if self.chat { r#""delta":{"content":" word"}"# } else { r#""text":" word""# };
        let choices = format!(r#"[{{"index":0,{said},"logprobs":null,"finish_reason":{reason}}}]"#);
        chunk(output, &self.event(&choices, self.running_usage));
        if end {
            chunk(output, &self.event("[]", true));
            chunk(output, "data: [DONE]\n\n");
            output.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn event(&self, choices: &str, usage: bool) -> String {
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let n = self.written;
        let usage = if usage {
            format!(r#","usage":{{"prompt_tokens":100,"total_tokens":{},"completion_tokens":{n}}}"#, 100 + n)
        } else {
            String::new()
        };
        format!("data: {{\"id\":\"chatcmpl-0\",\"object\":\"{object}\",\"created\":1,\"model\":\"m\",\"choices\":{choices}{usage}}}\n\n")
    }

    fn truth(&self) -> Truth {
        let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
        let since = |from: Written, to: Written| Span { least: ms(from.to, to.from), most: ms(from.from, to.to) };
        let arrived = Written { from: self.arrived, to: self.arrived };
        let first = self.first.unwrap_or(self.last);
        let (decode, gaps) = (since(first, self.last), f64::from(self.written.saturating_sub(1)));
        Truth {
            queue_ms: ms(self.arrived, self.scheduled.unwrap_or(self.arrived)),
            ttft_ms: since(arrived, first),
            tpot_ms: (gaps > 0.0).then(|| Span { least: decode.least / gaps, most: decode.most / gaps }),
            e2e_ms: since(arrived, self.last),
            tokens: self.written,
            began: self.arrived,
            ended: self.last.to,
        }
    }
}

/// Reads what is there, and when the last of it came by the kernel's clock (socket(7), SO_TIMESTAMPNS).
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> nix::Result<(usize, Instant)> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let (now, clock) = (Instant::now(), SystemTime::now());
    let stamp =
        message.cmsgs()?.find_map(|c| if let ControlMessageOwned::ScmTimestampns(at) = c { Some(Duration::from(at)) } else { None });
    let ago = stamp.and_then(|at| clock.duration_since(SystemTime::UNIX_EPOCH + at).ok()).unwrap_or_default();
    Ok((message.bytes, now.checked_sub(ago).unwrap_or(now)))
}

fn chunk(output: &mut Vec<u8>, event: &str) {
    output.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
}

/// The number behind a word.
fn after(text: &str, word: &str) -> Option<u64> {
    let rest = text[text.find(word)? + word.len()..].trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// What a client may ask before it begins.
fn page(head: &str) -> Vec<u8> {
    let body = if head.contains("/models") { r#"{"object":"list","data":[{"id":"m","object":"model","max_model_len":8192}]}"# } else { "" };
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
