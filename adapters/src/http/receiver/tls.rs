//! The certificate of the public listener, read again when its files change.
//!
//! Files are looked at, not watched: a mounted Kubernetes secret changes by a link to a link, which
//! every kind of watch misses in its own way. What they hold is compared, so it does not matter how
//! they changed. A certificate that cannot be used is told of once, and the one in use stays.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::interval};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::webhook::ServerTlsConfig;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not hold what it should.
    #[error("tls.{key}: {path}: {problem}")]
    File {
        /// `cert` or `key`.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not fit.
    #[error("tls.cert and tls.key: {0}")]
    Pair(String),
}

/// The certificate in use. Clones are one.
#[derive(Clone)]
pub(super) struct Certificates {
    files: Arc<ServerTlsConfig>,
    in_use: Arc<RwLock<InUse>>,
}

struct InUse {
    pem: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub(super) fn load(files: &ServerTlsConfig) -> Result<Self, TlsError> {
        let in_use = read(files)?;
        Ok(Self { files: Arc::new(files.clone()), in_use: Arc::new(RwLock::new(in_use)) })
    }

    /// Shakes hands with the certificate of this moment.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.in_use.read().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Takes up changed files until `shutdown`.
    pub(super) async fn watch(self, shutdown: CancellationToken) {
        let mut looks = interval(LOOK);
        let mut told = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            let changed = self.look();
            match changed {
                Ok(true) => info!(cert = %self.files.cert.display(), "new certificate in use"),
                Ok(false) => {}
                Err(problem) if told.as_ref() == Some(&problem) => continue,
                Err(problem) => {
                    warn!(%problem, "changed certificate cannot be used; the old one stays");
                    told = Some(problem);
                    continue;
                }
            }
            told = None;
        }
    }

    /// Whether the files held something new, which is in use now.
    pub(super) fn look(&self) -> Result<bool, TlsError> {
        let pem = (bytes("cert", &self.files.cert)?, bytes("key", &self.files.key)?);
        if self.in_use.read().pem == pem {
            return Ok(false);
        }
        let config = build(&self.files, &pem)?;
        *self.in_use.write() = InUse { pem, config };
        Ok(true)
    }
}

fn read(files: &ServerTlsConfig) -> Result<InUse, TlsError> {
    let pem = (bytes("cert", &files.cert)?, bytes("key", &files.key)?);
    let config = build(files, &pem)?;
    Ok(InUse { pem, config })
}

fn bytes(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| file(key, path, &error))
}

/// TLS 1.2 and 1.3; HTTP/2 where the sender speaks it. The cryptography is named here, as for what
/// dials out.
fn build(
    files: &ServerTlsConfig,
    (cert, key): &(Vec<u8>, Vec<u8>),
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file("cert", &files.cert, &error))?;
    if chain.is_empty() {
        return Err(file("cert", &files.cert, &"holds no certificate (PEM)"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| file("key", &files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Pair(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Pair(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn file(key: &'static str, path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { key, path: path.display().to_string(), problem: problem.to_string() }
}
