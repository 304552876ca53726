//! The `Authorization` header for user and password of a URL (RFC 7617).

use crate::encoding::{base64, percent_decoded};
use hyper::header::HeaderValue;

/// The header value for what a URL holds, percent-encoded as it stands there; marked sensitive.
pub(super) fn header(user: &str, password: &str) -> Option<HeaderValue> {
    let mut plain = percent_decoded(user);
    plain.push(b':');
    plain.extend(percent_decoded(password));
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64(&plain))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(header("Aladdin", "open%20sesame").unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
