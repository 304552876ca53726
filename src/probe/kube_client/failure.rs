//! What can go wrong between here and an answer of the API server, in stable words.

use crate::check::clean;
use crate::probe::net::errno_word;
use rustls::CertificateError;
use std::error::Error;
use std::io;

/// The word for a connection that ended in place of an answer.
const CLOSED: &str = "closed without an answer";

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The kubeconfig or the credentials it asks for cannot be used.
    Config,
    /// No TCP connection.
    Connect,
    /// No TLS session.
    Tls,
    /// The request was sent, but no whole answer came.
    Http,
    /// The server refuses this user: 401 or 403.
    Denied,
    /// An API server's answer with another status than 2xx.
    Status(u16),
    /// An answer or a list that is larger than what is read of one.
    TooLarge,
    /// Something answered that is no Kubernetes API server.
    NotApi,
}

/// A request without a usable answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// How far it got.
    pub(crate) at: At,
    /// A stable word: an errno, `TIMEOUT`, `tls: expired`, `403 Forbidden (list nodes)`.
    pub(crate) word: String,
    /// The libraries' own texts, outermost first; empty if they add nothing.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure whose word says it all.
    pub(crate) fn new(at: At, word: impl Into<String>) -> Self {
        Self { at, word: clean(&word.into(), 300), detail: String::new() }
    }

    /// Reads an error of kube's client: the cause is at the end of the chain of sources.
    pub(crate) fn from_kube(error: &kube::Error) -> Self {
        let (at, word) = classify(error);
        Self { detail: in_full(error), ..Self::new(at, word) }
    }

    /// The connection ended after the request, and before the first byte of an answer.
    pub(super) fn before_any_answer(&self) -> bool {
        self.at == At::Http && matches!(self.word.as_str(), CLOSED | "ECONNRESET" | "EPIPE")
    }
}

/// The error and its sources, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source()).take(16)
}

/// All texts of a chain in one line.
pub(crate) fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    texts.dedup();
    clean(&texts.join(" <- "), 600)
}

fn classify(error: &kube::Error) -> (At, String) {
    if let Some(tls) = chain(error).find_map(rustls_of) {
        return tls_word(tls);
    }
    if let kube::Error::Auth(reason) = error {
        return (At::Config, format!("no credentials: {reason}"));
    }
    let os = chain(error).filter_map(|e| e.downcast_ref::<io::Error>()).last();
    match (chain(error).find_map(|e| e.downcast_ref::<hyper::Error>()), os) {
        (Some(http), _) if http.is_parse() => (At::NotApi, "not an API server".to_owned()),
        // TLS itself misses the end that its peer should have told.
        (Some(_), Some(os)) if os.kind() == io::ErrorKind::UnexpectedEof => (At::Http, CLOSED.to_owned()),
        (Some(_), Some(os)) => (At::Http, errno_word(os)),
        (Some(http), None) if http.is_incomplete_message() => (At::Http, CLOSED.to_owned()),
        // Without hyper in the chain the connector failed, and its TCP half has a word of the kernel's.
        (None, Some(os)) if refused_by_kernel(os) => (At::Connect, errno_word(os)),
        (None, Some(os)) if os.kind() == io::ErrorKind::UnexpectedEof => (At::Tls, "tls: closed during the handshake".to_owned()),
        (None, Some(os)) => (At::Tls, errno_word(os)),
        _ => (At::Http, error.to_string()),
    }
}

fn refused_by_kernel(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable | K::PermissionDenied)
}

/// rustls' errors lie inside of io errors, up to two deep.
fn rustls_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner: &(dyn Error + 'static) = error.downcast_ref::<io::Error>()?.get_ref()?;
    rustls_of(inner)
}

fn tls_word(error: &rustls::Error) -> (At, String) {
    use rustls::Error as T;
    let word = match error {
        // A bad signature is an authority of the same name with another key: a cluster that was built anew.
        T::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => "tls: unknown issuer".to_owned(),
        T::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "tls: wrong name".to_owned()
        }
        T::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "tls: expired".to_owned(),
        T::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "tls: not valid yet".to_owned()
        }
        T::InvalidMessage(_) => return (At::NotApi, "not an API server".to_owned()),
        T::AlertReceived(alert) => format!("tls: alert {alert:?}"),
        other => format!("tls: {other}"),
    };
    (At::Tls, word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rustls_error_two_io_errors_deep_is_found() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        let failure = Failure::from_kube(&kube::Error::Service(Box::new(nested)));
        assert_eq!((failure.at, failure.word.as_str()), (At::Tls, "tls: unknown issuer"));
    }

    #[test]
    fn a_plain_io_error_keeps_the_kernels_word() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let failure = Failure::from_kube(&kube::Error::Service(Box::new(refused)));
        assert_eq!((failure.at, failure.word.as_str()), (At::Connect, "ECONNREFUSED"));
    }
}
