//! `HOST:PORT`: where a server listens, by name or IPv4 address.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest host name (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// A host name or an IPv4 address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// Name or IPv4 address.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT with a name or an IPv4 address");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let named = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) && host.chars().any(char::is_alphanumeric);
        match port.parse() {
            Ok(port) if port > 0 && named && host.len() <= LONGEST => Ok(Self { host: host.to_owned(), port }),
            _ => Err(wrong()),
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn names_and_addresses_with_a_port() {
        for text in ["stun.example:3478", "192.0.2.1:1", "a-b:65535"] {
            let endpoint = Endpoint::try_from(text.to_owned()).unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        for text in ["stun.example", "stun.example:0", "stun.example:65536", ":1", "..:1", "[::1]:1", "a b:1", "a\u{1b}:1", "https://a:1"] {
            assert!(Endpoint::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
