//! TLS as every connection of a client uses it, whatever other providers the program has linked.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::error::OpenError;

/// The certificates that vouch for servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum TrustedRoots {
    /// The authorities that the web trusts, as Mozilla keeps them.
    #[default]
    Public,
    /// The given certificates alone: one or more certificates as PEM, for instance that of a private authority.
    Pem(Vec<u8>),
}

/// The configuration of TLS, ready for WebSockets and for HTTP requests.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The configuration for WebSockets.
    pub config: Arc<ClientConfig>,
    pub(crate) http: TlsConfig,
}

impl Tls {
    /// Sets TLS up.
    ///
    /// # Errors
    /// When there is no certificate among the trusted ones, or one that can't be used.
    pub fn new(trusted: &TrustedRoots) -> Result<Self, OpenError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (roots, for_http) = match trusted {
            TrustedRoots::Public => {
                let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
                (RootCertStore { roots }, RootCerts::WebPki)
            }
            TrustedRoots::Pem(pem) => private_roots(pem)?,
        };
        let http = TlsConfig::builder()
            .root_certs(for_http)
            .unversioned_rustls_crypto_provider(Arc::clone(&provider))
            .build();
        Ok(Self { config: Arc::new(client_config(provider, roots)?), http })
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
) -> Result<ClientConfig, OpenError> {
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Start(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn private_roots(pem: &[u8]) -> Result<(RootCertStore, RootCerts), OpenError> {
    let refuse = |reason: String| OpenError::Certificate { reason };
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        certificates.push(Certificate::from_der(&certificate).to_owned());
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    if certificates.is_empty() {
        return Err(refuse("there is none in the PEM text".into()));
    }
    Ok((roots, RootCerts::from(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "no certificate", broken] {
            let error = Tls::new(&TrustedRoots::Pem(pem.into())).unwrap_err();
            assert!(matches!(error, OpenError::Certificate { .. }), "{error}");
        }
        assert!(Tls::new(&TrustedRoots::Public).is_ok());
    }
}
