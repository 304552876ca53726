//! Masks secrets in text that people get to see: passwords and tokens in URLs, and `password=..` of connection strings.

use std::borrow::Cow;

/// What stands in the place of a secret.
const MASK: &str = "***";
/// Parameters whose names hold one of these are secret.
const SECRET_NAMES: &[&str] = &["token", "key", "sig", "secret", "pass", "pwd", "auth", "credential", "session"];
/// A parameter's value of this length or more may be one, whatever its name.
const SUSPICIOUS_LENGTH: usize = 16;
/// A word of this length with letters and digits may be a key.
const KEY_LENGTH: usize = 20;

/// The text with user information and secret parameters of every URL in it, and `password=` values, replaced by `***`.
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
    let Some((path, query)) = path.split_once('?') else {
        out.push_str(path);
        return;
    };
    out.push_str(path);
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
    use super::{mask, mask_words};

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
    fn masks_what_is_secret_and_nothing_else() {
        for (text, shown) in [
            ("GET https://me:s3cret@a.example/x?b=c -> 200", "GET https://***@a.example/x?b=c -> 200"),
            ("https://a/?format=json&X-Amz-Signature=abc#t", "https://a/?format=json&X-Amz-Signature=***"),
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
            assert!(masked == shown || masked.starts_with(shown), "{text}: {masked}");
            assert!(!masked.contains("s3cret"));
        }
    }
}
