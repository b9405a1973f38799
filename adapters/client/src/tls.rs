//! TLS as every connection of a client uses it, whatever other providers the program has linked.

use std::sync::Arc;

use std::time::{Duration, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use synclayer_core::{ConnectFailure, FailureCause};
use tracing::warn;
use webpki::EndEntityCert;

use crate::error::OpenError;

/// The certificates that vouch for servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum TrustedRoots {
    /// The authorities that the web trusts, as Mozilla keeps them.
    #[default]
    Public,
    /// The authorities that this device trusts: those of a company or a private network too, where its
    /// administrator has added them. Where the device has none at all, as in a small container, those
    /// of [`Public`](Self::Public).
    System,
    /// The given certificates alone: one or more certificates as PEM, for instance that of a private authority.
    Pem(Vec<u8>),
}

/// The configuration of TLS for every connection.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The configuration.
    pub config: Arc<ClientConfig>,
}

impl Tls {
    /// Sets TLS up.
    ///
    /// # Errors
    /// When there is no certificate among the trusted ones, or one that can't be used.
    pub fn new(trusted: &TrustedRoots) -> Result<Self, OpenError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = match trusted {
            TrustedRoots::Public => public_roots(),
            TrustedRoots::System => system_roots(),
            TrustedRoots::Pem(pem) => private_roots(pem)?,
        };
        Ok(Self { config: Arc::new(client_config(provider, roots)?) })
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
) -> Result<ClientConfig, OpenError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| OpenError::Certificate { reason: error.to_string() })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Start(error.to_string()))?
        // as strict as the usual one, which it asks
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Explaining(verifier)))
        .with_no_client_auth();
    Ok(config)
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!("some of the system's certificates can't be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 { roots } else { public_roots() }
}

fn private_roots(pem: &[u8]) -> Result<RootCertStore, OpenError> {
    let refuse = |reason: String| OpenError::Certificate { reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("there is none in the PEM text".into()));
    }
    Ok(roots)
}

/// The usual check of a server's certificate, which says of one that is not trusted which it is, and
/// why it is not.
#[derive(Debug)]
struct Explaining(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Explaining {
    #[allow(clippy::wildcard_enum_match_arm)] // the other errors are no certificate's
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(why) => {
                let failure = ConnectFailure::new(
                    FailureCause::Certificate,
                    describe(certificate, name, &why),
                );
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The most names of a certificate that are shown.
const SHOWN_NAMES: usize = 3;

/// Says which certificate is not trusted, and why.
#[allow(clippy::wildcard_enum_match_arm)] // of the many kinds few are told apart
fn describe(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    why: &CertificateError,
) -> String {
    let date =
        |time: &UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    let why = match why {
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it has expired, on {}", date(not_after))
        }
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", date(not_before))
        }
        CertificateError::UnknownIssuer => {
            "no authority that is trusted here has signed it".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for other names".to_owned()
        }
        CertificateError::Revoked => "its authority has revoked it".to_owned(),
        CertificateError::Other(other) if is_authoritys(other) => {
            "it is an authority's own (CA:TRUE), and no server's".to_owned()
        }
        why => why.to_string(),
    };
    let parsed = EndEntityCert::try_from(certificate).ok();
    let names = parsed.iter().flat_map(|parsed| parsed.valid_dns_names()).take(SHOWN_NAMES);
    let names = names.collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { names } else { format!("for {names}, ") };
    let print = digest(&SHA256, certificate);
    let print: Vec<_> = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let print = print.join(":");
    let host = name.to_str();
    format!("the certificate of {host} is not trusted: {why} ({names}SHA-256 {print})")
}

/// Returns `true` if a server has shown the certificate of an authority.
fn is_authoritys(OtherError(error): &OtherError) -> bool {
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl req -x509` makes such ones, unless it is told not to.
    #[test]
    fn an_authoritys_certificate_is_told_from_a_servers() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let why = OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity));
        let name = ServerName::try_from("localhost").unwrap();
        let told = describe(made.der(), &name, &CertificateError::Other(why));
        assert!(told.contains("it is an authority's own (CA:TRUE)"), "{told}");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "no certificate", broken] {
            let error = Tls::new(&TrustedRoots::Pem(pem.into())).unwrap_err();
            assert!(matches!(error, OpenError::Certificate { .. }), "{error}");
        }
        assert!(Tls::new(&TrustedRoots::Public).is_ok());
        assert!(Tls::new(&TrustedRoots::System).is_ok());
    }
}
