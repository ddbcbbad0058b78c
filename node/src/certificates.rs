//! The cluster's own certificate authority, and the certificates of its nodes.
//!
//! P-256 keys. A leaf has one name, [`crate::identity::server_name`], and is valid for servers and
//! clients. The authority is the cluster: the holder of its key can make members, so only its maker
//! keeps it.

use henge_types::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use crate::identity::server_name;

/// A cluster's certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    cluster: ClusterId,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's certificate and key, PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// Makes the authority of a cluster, with a new key.
    pub(crate) fn new(cluster: ClusterId) -> Result<Self, rcgen::Error> {
        let mut params = params(&format!("henge cluster {cluster}"), Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            cluster,
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Its private key, PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes the certificate of a node, with a new key.
    pub(crate) fn issue(&self, node: NodeId) -> Result<Leaf, rcgen::Error> {
        let name = server_name(self.cluster, node);
        let mut params = params(&format!("henge node {node}"), vec![name])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Leaf {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Certificates are valid until 2125: the cluster ends a membership, not the calendar. A
/// certificate that expired on all nodes at once would take the cluster down.
fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2125, 1, 1);
    let mut serial = henge_runtime::random_bytes();
    // Serial numbers are positive and have no leading zero byte.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
    use std::time::Duration;
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};

    const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

    fn verify(authority: &Authority, leaf: &Leaf, usage: KeyUsage) -> Result<(), webpki::Error> {
        let root = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM");
        let leaf = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).expect("PEM");
        let anchor = anchor_from_trusted_cert(&root).expect("an authority");
        // 2026-01-01.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));
        EndEntityCert::try_from(&leaf)
            .expect("a certificate")
            .verify_for_usage(
                &[ring::ECDSA_P256_SHA256],
                &[anchor],
                &[],
                now,
                usage,
                None,
                None,
            )
            .map(|_| ())
    }

    #[test]
    fn a_node_may_serve_and_connect_in_its_own_cluster_only() {
        let authority = Authority::new(CLUSTER).expect("made");
        let leaf = authority.issue(NodeId::new(3)).expect("issued");
        verify(&authority, &leaf, KeyUsage::server_auth()).expect("serves");
        verify(&authority, &leaf, KeyUsage::client_auth()).expect("connects");
        let other = Authority::new(CLUSTER).expect("made");
        assert!(verify(&other, &leaf, KeyUsage::server_auth()).is_err());
    }

    #[test]
    fn a_certificate_names_its_node_and_no_other() {
        let authority = Authority::new(CLUSTER).expect("made");
        let leaf = authority.issue(NodeId::new(3)).expect("issued");
        let der = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).expect("PEM");
        let certificate = EndEntityCert::try_from(&der).expect("a certificate");
        let named = |name: &str| {
            let name = ServerName::try_from(name).expect("a name").to_owned();
            certificate.verify_is_valid_for_subject_name(&name).is_ok()
        };
        let cluster = "c1".repeat(16);
        assert!(named(&format!("node-3.{cluster}.henge.internal")));
        assert!(!named(&format!("node-4.{cluster}.henge.internal")));
        assert!(!named("henge.internal"));
        PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
        PrivateKeyDer::from_pem_slice(authority.key().as_bytes()).expect("a key");
    }
}
