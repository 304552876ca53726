//! Just enough DER (X.690) to read who issued a certificate, and until when it is valid (RFC 5280, section 4.1).

use crate::check::clean;
use chrono::{NaiveDate, NaiveDateTime};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, explicit: the version of a TBSCertificate.
const VERSION: u8 = 0xa0;

const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// `id-at-commonName` and `id-at-organizationName` (RFC 5280, appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// `notAfter` of a certificate, UTC; `None` if it is not built as RFC 5280 says.
pub(super) fn not_after(certificate: &[u8]) -> Option<NaiveDateTime> {
    let (_, fields) = issuer_and_rest(certificate)?;
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (_, _not_before, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    time(tag, text)
}

/// The issuer's common name, else its organisation, cleaned; `None` if it has neither, or is not built as RFC 5280 says.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    let (name, _) = issuer_and_rest(certificate)?;
    let text = attribute(name, COMMON_NAME).or_else(|| attribute(name, ORGANIZATION))?;
    Some(clean(&String::from_utf8_lossy(text), 200))
}

/// For fuzzers: bytes of the issuer's name, and one for a date.
pub(super) fn kept(certificate: &[u8]) -> usize {
    issuer(certificate).map_or(0, |name| name.chars().count()) + usize::from(not_after(certificate).is_some())
}

/// The value of an attribute of a Name: a sequence of sets of type and value.
fn attribute<'a>(mut name: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    while let Some((set, rest)) = expect(name, SET) {
        let value = expect(set, SEQUENCE).and_then(|(pair, _)| {
            let (oid, value) = expect(pair, OID)?;
            element(value).filter(|_| oid == wanted).map(|(_, text, _)| text)
        });
        if value.is_some() {
            return value;
        }
        name = rest;
    }
    None
}

/// The issuer's Name of a certificate, and the fields behind it.
fn issuer_and_rest(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, VERSION) {
        fields = rest;
    }
    let (_serial, fields) = expect(fields, INTEGER)?;
    let (_algorithm, fields) = expect(fields, SEQUENCE)?;
    expect(fields, SEQUENCE)
}

/// Content of the element in front, which must have this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the element in front, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // 0x80 + n: the length is in the next n bytes. Four are plenty.
        let (long, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(long, _)| (1..=4).contains(&long.len()))?;
        (long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` (50 to 99 are 1950 to 1999) or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<NaiveDateTime> {
    let digits = text.strip_suffix(b"Z").filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let number = |digits: &[u8]| digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => digits.split_at_checked(2).map(|(y, rest)| (number(y) + if number(y) < 50 { 2000 } else { 1900 }, rest)),
        (GENERALIZED_TIME, 14) => digits.split_at_checked(4).map(|(y, rest)| (number(y), rest)),
        _ => None,
    }?;
    let mut parts = rest.chunks(2).map(number);
    let mut next = || parts.next();
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, next()?, next()?)?.and_hms_opt(next()?, next()?, next()?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Ca;
    use super::*;

    #[test]
    fn reads_both_kinds_of_time() {
        for (year, expected) in [(2031, "2031-12-31 00:00:00"), (2060, "2060-12-31 00:00:00")] {
            let (certificate, _) = Ca::new("ca").certificate("a.example", year);
            assert_eq!(not_after(&certificate).unwrap().to_string(), expected);
            assert_eq!(issuer(&certificate).as_deref(), Some("ca"));
        }
        assert_eq!(time(UTC_TIME, b"991231235959Z").unwrap().to_string(), "1999-12-31 23:59:59");
    }

    #[test]
    fn hostile_bytes_never_panic() {
        let (certificate, _) = Ca::new("ca").certificate("a.example", 2031);
        for cut in 0..certificate.len() {
            let _ = (not_after(&certificate[..cut]), issuer(&certificate[..cut]));
        }
        let mut bytes = certificate.to_vec();
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let kept = std::mem::replace(&mut bytes[at], value);
                let _ = (not_after(&bytes), issuer(&bytes));
                bytes[at] = kept;
            }
        }
        for text in [&b""[..], b"Z", b"99123123595Z", b"991331235959Z", b"99123123595xZ"] {
            assert!(time(UTC_TIME, text).is_none());
        }
    }
}
