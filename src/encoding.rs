//! Bytes as text: base64 and percent-encoding, for headers, URLs, tokens and the terminal.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * n) & 63) as usize];
            out.push(if n > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

/// The bytes that base64 stands for, in the alphabet of URLs too (RFC 4648, section 5); `None` for anything else. Padding may be missing.
pub(crate) fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(out)
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
pub(crate) fn percent_encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The bytes that a percent-encoded text stands for. A `%` without two hexadecimal digits stands for itself.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |b: Option<&u8>| char::from(*b?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_round_trips_the_examples_of_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(base64_decoded(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!((base64(b"\xfb\xff"), base64_decoded("-_8")), ("+/8=".to_owned(), Some(b"\xfb\xff".to_vec())));
        assert_eq!(base64_decoded("a b"), None);
    }

    #[test]
    fn percent_encoding_round_trips_and_leaves_broken_escapes_alone() {
        let text = "a-b.c_d~ e/f=%\u{e9}";
        assert_eq!(percent_encoded(text), "a-b.c_d~%20e%2Ff%3D%25%C3%A9");
        assert_eq!(percent_decoded(&percent_encoded(text)), text.as_bytes());
        assert_eq!(percent_decoded("%zz%+f%4"), b"%zz%+f%4");
    }
}
