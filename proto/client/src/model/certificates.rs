//! Push certificates.

use serde::{Deserialize, Serialize};

/// A push certificate that a repository keeps. Its signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificate {
    /// The entry of the shard's log that made the changes.
    pub entry: u64,
    /// When that was, RFC 3339.
    pub at: String,
    /// The account that pushed.
    pub account: String,
    /// Who says to have signed it, and when: seconds since the Unix epoch and a time zone.
    pub pusher: String,
    /// Where the signer meant to push to.
    pub pushee: Option<String>,
    /// `OK`, `SLOP`, `BAD`, `MISSING` or `UNSOLICITED`, as git says it to its hooks.
    pub nonce_status: String,
    /// With `SLOP`: how old the nonce was, seconds.
    pub nonce_slop_s: Option<i64>,
    /// `openpgp`, `x509` or `ssh`; none without a signature.
    pub signature_kind: Option<String>,
    /// Whether the cluster verified the signature: false in this release, which has no keys.
    pub signature_verified: bool,
    /// Its commands.
    pub refs: Vec<CertifiedRef>,
    /// The whole of it as it came, if it is UTF-8.
    pub certificate: Option<String>,
    /// The whole of it in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_base64: Option<String>,
}

/// A command of a push certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRef {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// What the signer took it to be, an id; `None`: not there.
    pub old: Option<String>,
    /// What it was to become, an id; `None`: deleted.
    pub new: Option<String>,
    /// Whether the ref was changed by it.
    pub accepted: bool,
}

/// A page of certificates, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePage {
    /// How many there are on all pages.
    #[serde(default)]
    pub total: u64,
    /// Those of the page.
    pub certificates: Vec<PushCertificate>,
}
