//! TLS from a vantage: which roots it trusts, words for what went wrong, and a verifier that only takes notes.

use super::net::io_word;
use crate::vantage::Vantage;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::sync::{Arc, OnceLock};

/// Where distributions keep their roots as one PEM file: Debian, Fedora, openSUSE, RHEL, Alpine and macOS.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A root bundle is read no further than this (the usual ones are 200 KiB).
const MOST_BUNDLE_BYTES: u64 = 8 << 20;

/// The roots that a vantage trusts: its own, else the system's.
pub(crate) async fn roots(vantage: &Vantage) -> Result<Arc<RootCertStore>, String> {
    let store = match &vantage.files.trust {
        Some(trusted) => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(trusted.iter().cloned());
            Arc::new(store)
        }
        None => system_roots().await,
    };
    if store.is_empty() { Err("no trusted root certificates found on this host".to_owned()) } else { Ok(store) }
}

/// Read once, on a thread that may block.
async fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || ROOTS.get_or_init(|| Arc::new(read_bundles())).clone();
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Arc::new(RootCertStore::empty()))
}

fn read_bundles() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let named = std::env::var("SSL_CERT_FILE").ok();
    for path in named.iter().map(String::as_str).chain(BUNDLES.iter().copied()) {
        if let Ok(file) = std::fs::File::open(path) {
            let file = io::Read::take(file, MOST_BUNDLE_BYTES);
            store.add_parsable_certificates(CertificateDer::pem_reader_iter(file).filter_map(Result::ok));
        }
        if !store.is_empty() {
            break;
        }
    }
    store
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| e.to_string())
}

/// A client that forgives nothing: for whoever sends a secret.
pub(crate) fn strict(roots: Arc<RootCertStore>) -> Result<ClientConfig, String> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

/// A client that accepts every certificate and records what a strict one would have said. For probes that want to hear
/// the server's own words also behind a bad certificate; it must never be trusted with a secret.
pub(crate) fn recording(roots: Option<Arc<RootCertStore>>) -> Result<(ClientConfig, Arc<Recorder>), String> {
    let strict = roots.and_then(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider()).build().ok());
    let recorder = Arc::new(Recorder { strict, seen: OnceLock::new() });
    let config = builder()?.dangerous().with_custom_certificate_verifier(recorder.clone()).with_no_client_auth();
    Ok((config, recorder))
}

/// What a server showed, and what a strict client would have said of it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The server's certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Why a strict client would have refused it; `None` if there are no roots to judge by.
    pub(crate) verdict: Option<Result<(), String>>,
}

/// The verifier of [`recording`].
#[derive(Debug)]
pub(crate) struct Recorder {
    strict: Option<Arc<WebPkiServerVerifier>>,
    seen: OnceLock<Seen>,
}

impl Recorder {
    /// What the server showed, once the handshake got that far.
    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.get()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = |strict: &Arc<WebPkiServerVerifier>| {
            strict.verify_server_cert(certificate, intermediates, name, ocsp, now).map(|_| ()).map_err(|e| explain(&e))
        };
        let verdict = self.strict.as_ref().map(judge);
        let _ = self.seen.set(Seen { certificate: certificate.clone().into_owned(), verdict });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The word for an error on a TLS stream: `tls: unknown issuer`, `tls: wrong name`, ...; or [`io_word`].
pub(crate) fn word(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => format!("tls: {}", explain(tls)),
        None => io_word(error),
    }
}

/// A TLS error in two or three words.
fn explain(error: &Error) -> String {
    use CertificateError as C;
    let fixed = match error {
        Error::InvalidCertificate(C::UnknownIssuer) => "unknown issuer",
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => "wrong name",
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "expired",
        Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => "not valid yet",
        Error::InvalidCertificate(C::BadSignature) => "bad signature",
        Error::InvalidCertificate(C::BadEncoding) => "bad encoding",
        Error::InvalidCertificate(C::Revoked) => "revoked",
        Error::InvalidCertificate(C::InvalidPurpose | C::InvalidPurposeContext { .. }) => "wrong purpose",
        Error::InvalidMessage(_) => "not TLS",
        Error::AlertReceived(alert) => return format!("alert {alert:?}"),
        other => return crate::check::clean(&other.to_string(), 120),
    };
    fixed.to_owned()
}
