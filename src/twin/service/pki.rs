//! The twin's certificate authority: server and client certificates, and a kubeconfig that uses them.

use crate::encoding::base64;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a certificate could not be made.
#[derive(Debug)]
pub enum PkiError {
    /// Making or signing it failed.
    Certificate(rcgen::Error),
    /// rustls refused it.
    Tls(rustls::Error),
    /// The authority cannot check clients.
    Verifier(rustls::server::VerifierBuilderError),
}

impl std::fmt::Display for PkiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(e) => write!(f, "cannot make a certificate: {e}"),
            Self::Tls(e) => write!(f, "cannot use a certificate: {e}"),
            Self::Verifier(e) => write!(f, "cannot check client certificates: {e}"),
        }
    }
}

impl std::error::Error for PkiError {}

impl From<rcgen::Error> for PkiError {
    fn from(e: rcgen::Error) -> Self {
        Self::Certificate(e)
    }
}

impl From<rustls::Error> for PkiError {
    fn from(e: rustls::Error) -> Self {
        Self::Tls(e)
    }
}

impl From<rustls::server::VerifierBuilderError> for PkiError {
    fn from(e: rustls::server::VerifierBuilderError) -> Self {
        Self::Verifier(e)
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// From yesterday for a year.
    #[default]
    Current,
    /// From tomorrow for a year, as one that a server whose clock is ahead has just made.
    NotYet,
    /// For a year until yesterday, as a K3s certificate that nobody renewed.
    Expired,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate (RFC 7468).
    pub certificate_pem: String,
    /// Private key (PKCS #8, RFC 7468).
    pub key_pem: String,
}

/// Who a client certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub groups: Vec<String>,
}

impl User {
    /// The cluster's administrator, as in K3s' kubeconfig.
    pub fn admin() -> Self {
        Self { name: "system:admin".to_owned(), groups: vec!["system:masters".to_owned()] }
    }

    /// Somebody who may look at nodes, services and endpoint slices only.
    pub fn viewer() -> Self {
        Self { name: "fathom-viewer".to_owned(), groups: Vec::new() }
    }
}

/// A certificate authority with a key that lives only in this process.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    clients: Arc<dyn ClientCertVerifier>,
    /// Users by the certificates that were made for them.
    users: Mutex<HashMap<Vec<u8>, User>>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Authority {
    /// A new authority with this common name.
    ///
    /// # Errors
    /// When no key can be made or nothing signed with it.
    pub fn new(name: &str) -> Result<Self, PkiError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        set_validity(&mut params, Validity::Current);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let der = certificate.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(der.clone())?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Self { issuer: Issuer::new(params, key), der, pem: certificate.pem(), clients, users: Mutex::default() })
    }

    /// The authority's certificate, for trust stores.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// The authority's certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS for a server of these names and addresses.
    ///
    /// # Errors
    /// When no key can be made or nothing signed with it, or rustls refuses the result.
    pub fn server(&self, names: &[&str], addresses: &[Ipv4Addr]) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_config(names, addresses, Validity::Current, None)
    }

    /// TLS for a server that asks clients for a certificate and lets every one through the handshake, as kube-apiserver does:
    /// whether it is good is decided later, by [`Authority::user`].
    ///
    /// # Errors
    /// When no key can be made or nothing signed with it, or rustls refuses the result.
    pub fn server_that_asks(&self, names: &[&str], addresses: &[Ipv4Addr], validity: Validity) -> Result<Arc<ServerConfig>, PkiError> {
        self.server_config(names, addresses, validity, Some(Arc::new(AskOnly(self.clients.clone()))))
    }

    fn server_config(
        &self,
        names: &[&str],
        addresses: &[Ipv4Addr],
        validity: Validity,
        asks: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Arc<ServerConfig>, PkiError> {
        let mut params = CertificateParams::new(
            names.iter().map(|n| (*n).to_owned()).chain(addresses.iter().map(Ipv4Addr::to_string)).collect::<Vec<_>>(),
        )?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("server"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = self.sign(params, validity)?;
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match asks {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Arc::new(builder.with_single_cert(vec![certificate.der().clone(), self.der.clone()], key)?))
    }

    fn sign(&self, mut params: CertificateParams, validity: Validity) -> Result<(rcgen::Certificate, KeyPair), PkiError> {
        set_validity(&mut params, validity);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }

    /// A client certificate for a user.
    ///
    /// # Errors
    /// When no key can be made or nothing signed with it.
    pub fn client(&self, user: &User, validity: Validity) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(Vec::new())?;
        for group in &user.groups {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, user.name.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(params, validity)?;
        self.users.lock().unwrap_or_else(PoisonError::into_inner).insert(certificate.der().to_vec(), user.clone());
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Who a client is: its certificate chain is of this authority and valid now, or it is nobody.
    pub fn user(&self, chain: &[CertificateDer<'_>]) -> Option<User> {
        let (first, rest) = chain.split_first()?;
        self.clients.verify_client_cert(first, rest, UnixTime::now()).ok()?;
        self.users.lock().unwrap_or_else(PoisonError::into_inner).get(first.as_ref()).cloned()
    }

    /// A kubeconfig for a server's URL, with a new client certificate of the administrator inside.
    ///
    /// # Errors
    /// When no client certificate can be made.
    pub fn kubeconfig(&self, server: &str, validity: Validity) -> Result<String, PkiError> {
        self.kubeconfig_of(&[("default", &User::admin())], server, validity)
    }

    /// A kubeconfig with a context for each user; the first one is the current.
    ///
    /// # Errors
    /// When no client certificate can be made.
    pub fn kubeconfig_of(&self, users: &[(&str, &User)], server: &str, validity: Validity) -> Result<String, PkiError> {
        let (mut contexts, mut entries) = (String::new(), String::new());
        for (name, user) in users {
            let client = self.client(user, validity)?;
            let (certificate, key) = (base64(client.certificate_pem.as_bytes()), base64(client.key_pem.as_bytes()));
            contexts += &format!("- name: {name}\n  context:\n    cluster: default\n    user: {name}\n");
            entries += &format!("- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n");
        }
        let current = users.first().map_or("", |(name, _)| name);
        Ok(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: default\n  cluster:\n    certificate-authority-data: {}\n    server: {server}\n\
             contexts:\n{contexts}current-context: {current}\npreferences: {{}}\nusers:\n{entries}",
            base64(self.pem.as_bytes()),
        ))
    }

    /// TLS for a client that trusts this authority alone.
    ///
    /// # Errors
    /// When rustls refuses the authority's certificate.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    use chrono::{Datelike, Days, Utc};
    let today = Utc::now().date_naive();
    let yesterday = today - Days::new(1);
    let (from, until) = match validity {
        Validity::Current => (yesterday, today + Days::new(365)),
        Validity::NotYet => (today + Days::new(1), today + Days::new(366)),
        Validity::Expired => (yesterday - Days::new(365), yesterday),
    };
    let date = |d: chrono::NaiveDate| date_time_ymd(d.year(), u8::try_from(d.month()).unwrap_or(1), u8::try_from(d.day()).unwrap_or(1));
    params.not_before = date(from);
    params.not_after = date(until);
}

/// Asks for a client certificate and checks only that the client has its key.
#[derive(Debug)]
struct AskOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn only_current_certificates_of_this_authority_are_admitted() {
        let (ours, theirs) = (Authority::new("k3s-ca").unwrap(), Authority::new("k3s-ca").unwrap());
        let chain = |identity: Identity| vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()];
        let admin = User::admin();
        assert_eq!(ours.user(&chain(ours.client(&admin, Validity::Current).unwrap())), Some(User::admin()));
        assert_eq!(ours.user(&chain(ours.client(&User::viewer(), Validity::Current).unwrap())), Some(User::viewer()));
        assert_eq!(ours.user(&chain(ours.client(&admin, Validity::Expired).unwrap())), None);
        assert_eq!(ours.user(&chain(theirs.client(&admin, Validity::Current).unwrap())), None);
        assert_eq!(ours.user(&[]), None);
    }

    #[test]
    fn the_kubeconfig_is_one() {
        let text = Authority::new("k3s-ca").unwrap().kubeconfig("https://100.95.51.125:6443", Validity::Current).unwrap();
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://100.95.51.125:6443"));
    }
}
