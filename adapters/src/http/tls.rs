//! TLS as a client: one `rustls` configuration for everything that dials out.
//!
//! The cryptography is named here (ring) and never taken from the process: a default provider
//! that nobody installed, or that two libraries install, panics at the first handshake.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::TlsConfig;

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("tls.{key}: {path}: {source}", path = path.display())]
    File {
        /// `ca`, `cert` or `key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("tls.{key}: {path} holds no certificate (PEM)", path = path.display())]
    Empty {
        /// `ca` or `cert`.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate authority that cannot be used.
    #[error("tls.ca: {path}: {source}", path = path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// One of `cert` and `key` without the other.
    #[error("tls.cert and tls.key go together: one of them is missing")]
    HalfIdentity,
    /// The client certificate and its key do not fit.
    #[error("tls.cert and tls.key: {0}")]
    Identity(rustls::Error),
    /// The system trusts nobody, and no `tls.ca` was given.
    #[error("the system has no certificate authorities: install them, or set tls.ca ({0})")]
    NoAuthorities(String),
    /// The provider does not know the default protocol versions.
    #[error("tls: {0}")]
    Provider(rustls::Error),
}

/// A client configuration: TLS 1.2 and 1.3, the system's authorities or those of `ca`, and a
/// client certificate when one is given. No ALPN: that is the protocol's.
///
/// # Errors
/// When a file is missing or wrong, or the system has no authorities.
pub fn client_config(config: Option<&TlsConfig>) -> Result<ClientConfig, TlsError> {
    let roots = match config.and_then(|config| config.ca.as_deref()) {
        Some(path) => private_authorities(path)?,
        None => system_authorities()?,
    };
    build(config, roots)
}

/// A client configuration that trusts nobody, for endpoints that speak no TLS. Spares machines
/// without certificate authorities an error about what they do not use.
///
/// # Errors
/// As [`client_config`], but for authorities.
pub(crate) fn client_config_without_authorities() -> Result<ClientConfig, TlsError> {
    build(None, Arc::new(RootCertStore::empty()))
}

fn build(config: Option<&TlsConfig>, roots: Arc<RootCertStore>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_root_certificates(roots);
    let identity = config.map(|config| (config.cert.as_deref(), config.key.as_deref()));
    match identity {
        None | Some((None, None)) => Ok(builder.with_no_client_auth()),
        Some((Some(cert), Some(key))) => {
            let chain = certificates("cert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                key: "key",
                path: key.to_owned(),
                source,
            })?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)
        }
        Some(_) => Err(TlsError::HalfIdentity),
    }
}

fn private_authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { key, path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(file)?;
    if found.is_empty() {
        return Err(TlsError::Empty { key, path: path.to_owned() });
    }
    Ok(found)
}

/// The system's authorities, read once and shared: a thousand upstreams are one store.
fn system_authorities() -> Result<Arc<RootCertStore>, TlsError> {
    static SYSTEM: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Old stores hold entries nobody can parse; what is left is what the system trusts.
        let (added, _ignored) = roots.add_parsable_certificates(loaded.certs);
        let errors = loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        if added == 0 { Err(errors.join("; ")) } else { Ok(Arc::new(roots)) }
    };
    SYSTEM.get_or_init(load).clone().map_err(TlsError::NoAuthorities)
}

#[cfg(test)]
pub(crate) mod tests;
