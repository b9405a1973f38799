//! TLS at the listener.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The bytes that a connection keeps where its socket is full: a record.
const BUFFER_BYTES: usize = 16 << 10;

/// The certificate by which a server proves that it is the one that clients look for, and its key.
/// Clones share it.
///
/// ```
/// use synclayer_server::{ServerConfig, Tls, TlsError};
///
/// # let made = rcgen::generate_simple_self_signed(["sync.example".to_owned()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes())?;
/// let config = ServerConfig::new().tls(tls.clone());
/// // later, when the certificate was renewed: from the next handshake on
/// tls.replace_pem(chain.as_bytes(), key.as_bytes())?;
/// # drop(config);
/// # Ok::<(), TlsError>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

/// The reason why a certificate or its key can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate, or one that makes no sense.
    #[error(
        "the certificate can't be used: {0}; it must be PEM, the server's own first and those of \
         the authorities between behind it"
    )]
    Certificate(String),
    /// There is no private key, or one that makes no sense.
    #[error(
        "the key can't be used: {0}; it must be the certificate's private key as PEM, without a \
         passphrase"
    )]
    Key(String),
    /// The key is of another certificate, or they are of no kind that TLS 1.2 and 1.3 take.
    #[error(
        "the certificate and the key can't be used together: {0}; give those that were made together"
    )]
    Pair(String),
}

impl Tls {
    /// Takes a chain of certificates, the server's own first, and its private key (PKCS#8, PKCS#1
    /// or SEC1), both as PEM. TLS 1.2 and 1.3 are spoken.
    ///
    /// # Errors
    /// When either is missing or makes no sense, or the two don't belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(RwLock::new(config(chain, key)?)) })
    }

    /// Puts another certificate and key in their place, for all handshakes from now on. Connections
    /// that are there go on.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); then they stay.
    pub fn replace_pem(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = config(chain, key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Shakes hands as the server.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let limit = |tls: &mut ServerConnection| tls.set_buffer_limit(Some(BUFFER_BYTES));
        TlsAcceptor::from(current).accept_with(stream, limit).await
    }
}

/// Shows nothing of the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn said(error: pem::Error) -> String {
    if matches!(error, pem::Error::NoItemsFound) {
        return "there is none".to_owned();
    }
    error.to_string()
}

fn config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| TlsError::Certificate(said(error)))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("there is none".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(said(error)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Pair(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Pair(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
