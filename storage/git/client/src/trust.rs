//! The trusted certificates.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Files with the system's trusted certificates: Debian, Fedora, SUSE, Alpine, and others.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Errors of loading the trusted certificates.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system has no file of certificates.
    #[error(
        "this system has no certificates to believe ({}): install ca-certificates, or name a file of your own",
        SYSTEM_FILES[0]
    )]
    NoSystemFile,
    /// A file that cannot be read.
    #[error("cannot read the certificates in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file without a certificate.
    #[error("{path} holds no certificate that can be used (PEM is expected)")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
}

/// The trusted certificates. Read on first use; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    file: Option<PathBuf>,
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Trust {
    /// The system's certificates.
    pub fn system() -> Self {
        Self::default()
    }

    /// Only the certificates in this file (PEM).
    pub fn file(path: &Path) -> Self {
        Self {
            file: Some(path.to_owned()),
            config: Arc::default(),
        }
    }

    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let roots = match &self.file {
            Some(path) => read(path)?,
            None => read_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::clone(self.config.get_or_init(|| Arc::new(config))))
    }
}

fn read_system() -> Result<RootCertStore, TrustError> {
    for path in SYSTEM_FILES.iter().map(Path::new) {
        match read(path) {
            Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
    }
    Err(TrustError::NoSystemFile)
}

fn read(path: &Path) -> Result<RootCertStore, TrustError> {
    let bytes = std::fs::read(path).map_err(|source| TrustError::Read {
        path: path.to_owned(),
        source,
    })?;
    // An invalid certificate in a system's file must not exclude the others.
    let certificates = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(certificates);
    if used == 0 {
        return Err(TrustError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_certificates_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.pem");
        let error = Trust::file(&missing).config().unwrap_err();
        assert!(error.to_string().contains("none.pem"), "{error}");
        std::fs::write(&missing, "no certificate\n").unwrap();
        let error = Trust::file(&missing).config().unwrap_err();
        assert!(matches!(error, TrustError::NoCertificate { .. }), "{error}");
    }
}
