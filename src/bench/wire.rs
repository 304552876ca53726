//! The answer to one HTTP/1.1 request, read by the task that uses it: so the time of a byte is the time of the read that
//! brought it, with no queue in between. Only what a bench needs of RFC 9112; every length is capped.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;
/// Most bytes of status line and headers.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// Most bytes of a line between chunks.
const MOST_LINE_BYTES: usize = 256;

/// Status and the headers that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) content_type: String,
    chunked: bool,
    length: Option<u64>,
}

/// A piece of the body: its bytes, when they were read, and by which read.
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: Instant,
    pub(super) read: u64,
}

/// Reads an answer from a stream.
pub(super) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Raw bytes that came with the head.
    left: Vec<u8>,
    body: Vec<u8>,
    framing: Framing,
    read: u64,
    at: Instant,
}

enum Framing {
    Chunked(Chunked),
    Length(u64),
    Close,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(super) fn new(stream: S) -> Self {
        let (buffer, at) = (vec![0; READ_BYTES], Instant::now());
        Self { stream, buffer, left: Vec::new(), body: Vec::new(), framing: Framing::Close, read: 0, at }
    }

    /// One read; 0 at the end of the stream.
    async fn fill(&mut self) -> Result<usize, String> {
        let n = self.stream.read(&mut self.buffer).await.map_err(|e| crate::probe::tls::word(&e))?;
        self.at = Instant::now();
        self.read += 1;
        Ok(n)
    }

    /// Reads up to the end of the headers.
    pub(super) async fn head(&mut self) -> Result<(Head, Instant), String> {
        loop {
            while let Some(end) = self.left.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = parse(&self.left[..end])?;
                self.left.drain(..end + 4);
                // 100 Continue and its like come before the answer.
                if head.status >= 200 {
                    self.framing = match head {
                        Head { chunked: true, .. } => Framing::Chunked(Chunked::default()),
                        Head { length: Some(length), .. } => Framing::Length(length),
                        _ => Framing::Close,
                    };
                    return Ok((head, self.at));
                }
            }
            if self.left.len() > MOST_HEAD_BYTES {
                return Err("headers too large".to_owned());
            }
            match self.fill().await? {
                0 => return Err("EOF".to_owned()),
                n => self.left.extend_from_slice(&self.buffer[..n]),
            }
        }
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Piece<'_>>, String> {
        loop {
            if self.ended() {
                return Ok(None);
            }
            let raw = std::mem::take(&mut self.left);
            let n = if raw.is_empty() { self.fill().await? } else { raw.len() };
            if n == 0 {
                let whole = matches!(self.framing, Framing::Close);
                return if whole { Ok(None) } else { Err("EOF".to_owned()) };
            }
            let raw = if raw.is_empty() { &self.buffer[..n] } else { &raw[..] };
            self.body.clear();
            match &mut self.framing {
                Framing::Chunked(chunked) => chunked.take(raw, &mut self.body)?,
                Framing::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(raw.len());
                    self.body.extend_from_slice(&raw[..take]);
                    *left -= take as u64;
                }
                Framing::Close => self.body.extend_from_slice(raw),
            }
            if !self.body.is_empty() {
                return Ok(Some(Piece { bytes: &self.body, at: self.at, read: self.read }));
            }
        }
    }

    fn ended(&self) -> bool {
        match &self.framing {
            Framing::Chunked(chunked) => chunked.state == State::End,
            Framing::Length(left) => *left == 0,
            Framing::Close => false,
        }
    }
}

fn parse(head: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(head).map_err(|_| "not HTTP")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()).ok_or("not HTTP")?;
    let mut head = Head { status, ..Head::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-type" => value.clone_into(&mut head.content_type),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "content-length" => head.length = Some(value.parse().map_err(|_| "not HTTP")?),
            _ => {}
        }
    }
    Ok(head)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The line with a chunk's size.
    #[default]
    Size,
    Data,
    /// The line end behind a chunk's data.
    After,
    /// Lines behind the last chunk.
    Trailer,
    End,
}

/// The chunked transfer coding (RFC 9112, section 7.1).
#[derive(Debug, Default)]
struct Chunked {
    state: State,
    line: Vec<u8>,
    left: u64,
}

impl Chunked {
    fn take(&mut self, mut raw: &[u8], body: &mut Vec<u8>) -> Result<(), String> {
        while !raw.is_empty() && self.state != State::End {
            if self.state == State::Data {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(raw.len());
                body.extend_from_slice(&raw[..n]);
                self.left -= n as u64;
                raw = &raw[n..];
                if self.left == 0 {
                    self.state = State::After;
                }
                continue;
            }
            let (byte, rest) = (raw[0], &raw[1..]);
            raw = rest;
            if byte == b'\n' {
                self.line_end()?;
            } else if self.line.len() >= MOST_LINE_BYTES {
                return Err("not HTTP: a chunk's size is too long".to_owned());
            } else {
                self.line.push(byte);
            }
        }
        Ok(())
    }

    fn line_end(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.split(';').next().unwrap_or_default().trim();
        self.state = match self.state {
            State::After => State::Size,
            State::Trailer if text.is_empty() => State::End,
            State::Trailer => State::Trailer,
            _ => match u64::from_str_radix(text, 16).map_err(|_| "not HTTP: a chunk without a size")? {
                0 => State::Trailer,
                size => {
                    self.left = size;
                    State::Data
                }
            },
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(Head, Vec<u8>), String> {
        let mut reader = Reader::new(bytes);
        let (head, _) = reader.head().await?;
        let mut body = Vec::new();
        while let Some(piece) = reader.piece().await? {
            body.extend_from_slice(piece.bytes);
        }
        Ok((head, body))
    }

    #[tokio::test]
    async fn the_three_framings() {
        for (answer, body) in [
            (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\nrest"[..], &b"abcde"[..]),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd", b"abc"),
            (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        ] {
            assert_eq!(read(answer).await.unwrap().1, body);
        }
    }

    #[tokio::test]
    async fn chunks_cut_anywhere() {
        let coded = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        for cut in 0..coded.len() {
            let (mut chunked, mut body) = (Chunked::default(), Vec::new());
            chunked.take(&coded[..cut], &mut body).unwrap();
            chunked.take(&coded[cut..], &mut body).unwrap();
            assert_eq!((body.as_slice(), chunked.state), (&b"abc0123456789abcdef"[..], State::End));
        }
    }

    #[tokio::test]
    async fn hostile_answers_are_errors() {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (answer, error) in [
            (b"".to_vec(), "EOF"),
            (b"SSH-2.0-x\r\n\r\n".to_vec(), "not HTTP"),
            (b"HTTP/1.1 2\r\n\r\n".to_vec(), "not HTTP"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec(), "not HTTP"),
            (vec![b'x'; 80 << 10], "headers too large"),
            ([&head[..], b"3\r\nab"].concat(), "EOF"),
            ([&head[..], b"zz\r\n"].concat(), "not HTTP: a chunk without a size"),
            ([&head[..], b"fffffffffffffffff\r\n"].concat(), "not HTTP: a chunk without a size"),
            ([&head[..], &[b'1'; 300]].concat(), "not HTTP: a chunk's size is too long"),
        ] {
            assert_eq!(read(&answer).await.unwrap_err(), error);
        }
    }
}
