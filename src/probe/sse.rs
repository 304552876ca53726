//! Server-sent events (WHATWG HTML, section 9.2.6), incrementally: bytes in as they come, data of complete events out.

/// The longest line, and the most data of one event.
const MOST_BYTES: usize = 1 << 20;

/// A line or an event is longer than 1 MiB.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The state between two pieces of a stream.
#[derive(Default)]
pub(crate) struct Sse {
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether the event has any data line; it may be an empty one.
    has_data: bool,
    /// The last byte was CR: an LF now belongs to it.
    after_cr: bool,
    /// A line has ended before: a byte order mark counts at the very start only.
    started: bool,
}

impl Sse {
    /// Takes the next bytes, cut anywhere; returns the data of each event that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let (mut events, mut rest) = (Vec::new(), bytes);
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (text, tail) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + text.len() > MOST_BYTES {
                return Err(TooLong);
            }
            self.line.extend_from_slice(text);
            rest = match tail.split_first() {
                Some((ending, after)) => {
                    self.after_cr = *ending == b'\r';
                    events.extend(self.end_line()?);
                    after
                }
                None => tail,
            };
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<String>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.started, true);
        let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if line.is_empty() {
            return Ok(self.end_event());
        }
        // `field: value`, one space after the colon; without a colon the value is empty. A comment has no field name.
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        if &line[..colon] == b"data" {
            let value = line.get(colon + 1..).unwrap_or_default();
            self.add(value.strip_prefix(b" ").unwrap_or(value))?;
        }
        Ok(None)
    }

    fn add(&mut self, value: &[u8]) -> Result<(), TooLong> {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend(value);
        if self.data.len() > MOST_BYTES { Err(TooLong) } else { Ok(()) }
    }

    fn end_event(&mut self) -> Option<String> {
        let data = std::mem::take(&mut self.data);
        std::mem::replace(&mut self.has_data, false).then(|| String::from_utf8_lossy(&data).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        Sse::default().feed(bytes).unwrap()
    }

    #[test]
    fn the_same_events_wherever_the_stream_is_cut() {
        let stream = "\u{feff}: hi\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:x\rdata:  y\r\rid: 1\nevent: z\n\ndata\n\ndata: [DONE]\n\ndata: cut"
            .as_bytes();
        let expected = ["{\"a\":\"é\"}", "x\n y", "", "[DONE]"];
        assert_eq!(all(stream), expected);
        for cut in 0..stream.len() {
            let mut sse = Sse::default();
            let mut events = sse.feed(&stream[..cut]).unwrap();
            events.extend(sse.feed(&stream[cut..]).unwrap());
            assert_eq!(events, expected, "cut at {cut}");
        }
        let mut sse = Sse::default();
        let one_by_one: Vec<String> = stream.iter().flat_map(|b| sse.feed(&[*b]).unwrap()).collect();
        assert_eq!(one_by_one, expected);
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(Sse::default().feed(&vec![b'a'; MOST_BYTES + 1]), Err(TooLong));
        assert_eq!(Sse::default().feed(&b"data: 0123456789\n".repeat(MOST_BYTES / 8)), Err(TooLong));
        let comments = b": nothing\n".repeat(MOST_BYTES / 4);
        assert_eq!(Sse::default().feed(&comments), Ok(vec![]));
    }

    #[test]
    fn other_bytes_are_nothing() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert!(all(&bytes).is_empty());
        assert_eq!(all(b"data: \xff\xfe\n\n"), ["\u{fffd}\u{fffd}"]);
    }
}
