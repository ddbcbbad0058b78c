//! One mutual-TLS identity for gRPC and QUIC: both sides always show a certificate of the cluster's
//! CA.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_types::{ClusterId, NodeId};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// ALPN of gRPC.
pub const ALPN_GRPC: &[u8] = b"h2";
/// ALPN of bulk streams, over QUIC and over TCP.
pub const ALPN_BULK: &[u8] = b"henge-bulk/1";

/// The paths of the PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The reason why the identity cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is unreadable or is not PEM.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The certificates do not fit together.
    #[error("the node's certificate cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verifier cannot be built from the CA.
    #[error("the cluster's CA cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The TLS identity: loaded once, shared by all listeners and dialers.
#[derive(Clone)]
pub struct Tls {
    cluster: ClusterId,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one is unreadable or they do not fit together.
    pub fn load(cluster: ClusterId, files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.cert)?;
        let key = private_key(&files.key)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            cluster,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// The server side for these protocols.
    pub fn server(&self, alpn: &[&[u8]]) -> ServerConfig {
        let mut config = ServerConfig::clone(&self.server);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// The client side for this protocol.
    pub fn client(&self, alpn: &[u8]) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// The name in a node's certificate; nodes are dialled by it, never by address.
    pub fn dns_name(&self, node: NodeId) -> String {
        format!("node-{node}.{}.henge.internal", self.cluster)
    }

    /// The same name for rustls.
    pub fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(self.dns_name(node))
            .expect("invariant: the name is made of digits and letters")
    }

    /// The node of a certificate; `None` when it names no node of this cluster.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
        let leaf = certificates?.first()?;
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            let rest = name.strip_prefix("node-")?;
            let (node, domain) = rest.split_once('.')?;
            let ours = format!("{}.henge.internal", self.cluster);
            (domain == ours)
                .then(|| node.parse().ok().map(NodeId::new))
                .flatten()
        })
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> TlsError + '_ {
    move |source| TlsError::File {
        path: path.to_owned(),
        source,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = File::open(path).map_err(file_error(path))?;
    let read = CertificateDer::pem_reader_iter(BufReader::new(file));
    let certificates = read.collect::<Result<Vec<_>, _>>().and_then(|found| {
        // The parser finds no certificate in a file that is truncated within its first line.
        (!found.is_empty())
            .then_some(found)
            .ok_or(pem::Error::NoItemsFound)
    });
    certificates.map_err(|error| file_error(path)(explained(error, "certificate")))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = File::open(path).map_err(file_error(path))?;
    PrivateKeyDer::from_pem_reader(BufReader::new(file))
        .map_err(|error| file_error(path)(explained(error, "private key")))
}

/// The fault of a PEM file in words: the parser shows its lines as numbers.
fn explained(error: pem::Error, what: &str) -> io::Error {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let why = match error {
        pem::Error::Io(error) => return error,
        // The parser names the section, not the line.
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "it is cut short, the line -----END {}----- is missing",
            text(&end_marker)
        ),
        pem::Error::IllegalSectionStart { line } => {
            format!("the line {:?} begins no section", text(&line))
        }
        pem::Error::Base64Decode(why) => format!("a section is not base64: {why}"),
        pem::Error::NoItemsFound => format!("it holds no {what}"),
        error @ (pem::Error::SectionTooLarge | _) => error.to_string(),
    };
    io::Error::other(format!(
        "{why}. It is to be the PEM file of a {what}: put it back from where the cluster's files were made"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a truncated file showed the missing bytes as numbers.
    #[test]
    fn a_cut_pem_file_is_explained_in_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("signs").pem();
        let path = dir.path().join("node.pem");
        let certificate = certificate.trim_end();
        for len in 0..certificate.len() {
            std::fs::write(&path, &certificate[..len]).expect("writes");
            let words = certificates(&path).expect_err("is cut").to_string();
            assert!(words.contains("node.pem"), "{words}");
            assert!(!words.contains(", 69, "), "an E as a number: {words}");
        }
        std::fs::write(&path, &certificate[..certificate.len() / 2]).expect("writes");
        let words = certificates(&path).expect_err("is cut").to_string();
        assert!(words.contains("it is cut short"), "{words}");
        assert!(words.contains("-----END CERTIFICATE-----"), "{words}");
        let whole = key.serialize_pem();
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("writes");
        let words = private_key(&path).expect_err("is cut").to_string();
        assert!(words.contains("it is cut short"), "{words}");
        std::fs::write(&path, "").expect("writes");
        let words = private_key(&path).expect_err("is empty").to_string();
        assert!(words.contains("it holds no private key"), "{words}");
    }
}
