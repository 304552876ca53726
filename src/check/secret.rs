//! Masks secrets in text that people get to see: passwords and tokens in URLs, and `password=..` of connection strings.

use std::borrow::Cow;

/// What stands in the place of a secret.
const MASK: &str = "***";
/// Parameters whose names hold one of these are secret.
const SECRET_NAMES: &[&str] = &["token", "key", "sig", "secret", "pass", "pwd", "auth", "credential", "session"];
/// A parameter's value of this length or more may be one, whatever its name.
const SUSPICIOUS_LENGTH: usize = 16;

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
    use super::mask;

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
