//! Masks secrets in text that people get to see: of URLs the user information, parameters that are or may be secret and what looks
//! like a key in the path or the fragment, and `password=..` of connection strings.

use reqwest::Url;
use std::borrow::Cow;

/// What stands in the place of a secret.
const MASK: &str = "***";
/// Parameters whose names hold one of these are secret.
const SECRET_NAMES: &[&str] = &["token", "key", "sig", "secret", "pass", "pwd", "auth", "credential", "session"];
/// A parameter's value of this length or more may be one, whatever its name.
const SUSPICIOUS_LENGTH: usize = 16;
/// A word of this length with letters and digits may be a key.
const KEY_LENGTH: usize = 20;
/// The same in a segment of a path, between signs that names are made of too.
const PATH_KEY_LENGTH: usize = 16;
/// A segment of this length with digits and letters of both cases may be one, whatever signs are in it.
const LONG_SEGMENT: usize = 40;
/// A parameter's value that is shorter stands in too many texts for being blotted out of them.
const LEAST_VALUE: usize = 6;

/// The text with all that is or may be secret in every URL in it, and `password=` values, replaced by `***`.
pub fn mask(text: &str) -> Cow<'_, str> {
    if !text.contains("://") && !text.contains("password=") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://").map(|at| at + 3) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let end = after.find(ends_url).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        mask_url(url, &mut out);
        rest = tail;
    }
    out.push_str(rest);
    Cow::Owned(mask_passwords(&out))
}

/// [`mask`] for text of which nothing is known, such as the log of an application: also the values of parameters with secret
/// names, what follows `Bearer` and `Basic`, and words of letters and digits that are as long as a key.
pub fn mask_words(text: &str) -> String {
    let text = mask(text);
    let mut out = String::with_capacity(text.len());
    let mut name = String::new();
    let mut rest = text.as_ref();
    while !rest.is_empty() {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let named = SECRET_NAMES.iter().any(|secret| name.contains(secret)) || name == "bearer" || name == "basic";
        let hidden = !word.is_empty() && (named || looks_like_a_key(word));
        out.push_str(if hidden { MASK } else { word });
        let gap = after.find(in_word).unwrap_or(after.len());
        let (between, next) = after.split_at(gap);
        out.push_str(between);
        let word = word.to_ascii_lowercase();
        // `token=x`, `"token": "x"`, `token: x`, `Bearer x`; in `token of bob` no value follows.
        let value_follows = between.contains(['=', ':']) || ((word == "bearer" || word == "basic") && between == " ");
        name = if value_follows { word } else { String::new() };
        rest = next;
    }
    out
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '*')
}

fn looks_like_a_key(word: &str) -> bool {
    let (digits, letters) = (word.bytes().any(|b| b.is_ascii_digit()), word.bytes().any(|b| b.is_ascii_alphabetic()));
    word.len() >= KEY_LENGTH && digits && letters && !word.contains('/')
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '|')
}

/// What follows `scheme://`.
fn mask_url(url: &str, out: &mut String) {
    let mut authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    // A password that should have been percent-encoded: what looks like the authority ends inside of it.
    let port_is_none = url[..authority_end].rsplit_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
    if let (true, Some(at)) = (port_is_none && !url[..authority_end].contains('@'), url.rfind('@')) {
        authority_end = url[at..].find(['/', '?', '#']).map_or(url.len(), |end| at + end);
    }
    let (authority, path) = url.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            out.push_str(MASK);
            out.push('@');
            out.push_str(host);
        }
        None => out.push_str(authority),
    }
    let (path, fragment) = path.split_once('#').map_or((path, None), |(path, fragment)| (path, Some(fragment)));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    out.push_str(&mask_path(path));
    if let Some(query) = query {
        mask_query(query, out);
    }
    if let Some(fragment) = fragment {
        out.push('#');
        out.push_str(if fragment.contains('=') || is_key(fragment) { MASK } else { fragment });
    }
}

/// A path with `***` for each segment that looks like a key: capability URLs carry their secret there.
pub fn mask_path(path: &str) -> String {
    path.split('/').map(|segment| if is_key(segment) { MASK } else { segment }).collect::<Vec<_>>().join("/")
}

/// What this URL holds in secret, as it may stand in the words of a server that repeats what it was sent.
pub fn held_by(url: &Url) -> Vec<String> {
    let mut held: Vec<String> = url.password().map(str::to_owned).into_iter().collect();
    held.extend(url.query_pairs().map(|(_, value)| value.into_owned()).filter(|value| value.len() >= LEAST_VALUE));
    held.extend(held_by_path(url.path()));
    held
}

/// The segments of a path that look like keys.
pub fn held_by_path(path: &str) -> impl Iterator<Item = String> {
    path.split('/').filter(|segment| is_key(segment)).map(str::to_owned)
}

/// The text with `***` in the place of each of these.
pub fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    secrets.into_iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
}

/// Whether a segment of a path looks like a key: a long mixture of digits and letters, or a UUID.
fn is_key(segment: &str) -> bool {
    let has = |part: &str, is: fn(&u8) -> bool| part.bytes().any(|b| is(&b));
    let mixed = |part: &str| has(part, u8::is_ascii_digit) && has(part, u8::is_ascii_alphabetic);
    let both_cases = has(segment, u8::is_ascii_lowercase) && has(segment, u8::is_ascii_uppercase);
    segment.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part.len() >= PATH_KEY_LENGTH && mixed(part))
        || (segment.len() >= LONG_SEGMENT && both_cases && mixed(segment))
        || is_uuid(segment)
}

/// RFC 9562: 8, 4, 4, 4 and 12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|b| b.is_ascii_hexdigit())
}

fn mask_query(query: &str, out: &mut String) {
    for (n, pair) in query.split('&').enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, value)) if is_secret(name, value) => {
                out.push_str(name);
                out.push('=');
                out.push_str(MASK);
            }
            _ => out.push_str(pair),
        }
    }
}

fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    value.len() >= SUSPICIOUS_LENGTH || SECRET_NAMES.iter().any(|word| name.contains(word))
}

/// libpq's `password=..`.
fn mask_passwords(text: &str) -> String {
    let mut parts = text.split("password=");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c| ends_url(c) || c == '&').unwrap_or(part.len());
        out.push_str("password=");
        out.push_str(MASK);
        out.push_str(&part[end..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{held_by, mask, mask_words, without};

    #[test]
    fn what_looks_like_a_secret_in_a_log_is_masked() {
        for (text, shown) in [
            ("token=s3cret and more", "token=*** and more"),
            ("{\"api_key\": \"s3cret\", \"n\": 3}", "{\"api_key\": \"***\", \"n\": 3}"),
            ("Authorization: Bearer s3cret", "Authorization: *** s3cret"),
            ("used s3cretABCDEFGHIJKLMNOP1234 here", "used *** here"),
            ("a token of bob", "a token of bob"),
            ("dial tcp 10.43.0.10:53: connection refused", "dial tcp 10.43.0.10:53: connection refused"),
            (
                "An error occurred (SlowDown) when calling the PutObject operation",
                "An error occurred (SlowDown) when calling the PutObject operation",
            ),
        ] {
            assert_eq!(mask_words(text), shown.replace("*** s3cret", "*** ***"), "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_key_in_a_path_is_masked_and_names_are_not() {
        for (text, shown) in [
            ("https://h/services/T0/B0/s3cretXXyy09AAbbCC12/x", "https://h/services/T0/B0/***/x"),
            ("https://h/bot123456:AAs3cretGhIklZyx57W2v1u/me?a=b", "https://h/***/me?a=b"),
            ("https://h/hooks/s3cret1-AbCdEfGh2_IjKlMnOp3-QrStUvWx4_YzAbCdEf5-", "https://h/hooks/***"),
            ("https://h/c/0f8fad5b-d9cb-469f-a165-70867728950e", "https://h/c/***"),
            ("https://h/cb#access_token=s3cret", "https://h/cb#***"),
            ("https://h/x?a=1#s3cretABCDEFGHIJ12", "https://h/x?a=1#***"),
        ] {
            assert_eq!(mask(text), shown);
        }
        for text in [
            "https://10.43.0.1:443/api/v1/namespaces/apps/pods/csv-ingestion-worker-7d9f8b6c5-x2x9k/log",
            "https://10.43.0.1/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices?limit=500",
            "http://192.168.2.119:8000/v1/chat/completions",
            "https://github.com/k3s-io/k3s/issues/12436#issuecomment",
            "https://h/2025-11-11/report-final-version-2.pdf",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn a_server_that_repeats_a_url_gives_nothing_away() {
        let url = "https://me:s3cret1@h/hooks/s3cretABCDEFGHIJ12/x?sig=s3cret2&n=3".parse().unwrap();
        let held = held_by(&url);
        let said = without("no hook s3cretABCDEFGHIJ12 (s3cret2, s3cret1) for n=3", held.iter().map(String::as_str));
        assert_eq!(said, "no hook *** (***, ***) for n=3");
    }

    #[test]
    fn masks_what_is_secret_and_nothing_else() {
        for (text, shown) in [
            ("GET https://me:s3cret@a.example/x?b=c -> 200", "GET https://***@a.example/x?b=c -> 200"),
            ("https://a/?format=json&X-Amz-Signature=abc#t", "https://a/?format=json&X-Amz-Signature=***#t"),
            ("https://a/?q=0123456789abcdef", "https://a/?q=***"),
            ("postgres://u:p@ss@h:5432/db and http://b/", "postgres://***@h:5432/db and http://b/"),
            ("psql 'host=h password=s3cret sslmode=require'", "psql 'host=h password=*** sslmode=require'"),
            ("'https://token@h'", "'https://***@h'"),
            ("redis://u:s/3cr?et@h:1/0", "redis://***@h:1/0"),
            ("mail me@b.example", "mail me@b.example"),
            ("://", "://"),
            ("é://é@é?é=é", "é://***@é?é=é"),
        ] {
            let masked = mask(text);
            assert_eq!(masked, shown, "{text}");
        }
    }
}
