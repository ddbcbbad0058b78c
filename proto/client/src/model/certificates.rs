//! Push certificates.

use serde::{Deserialize, Serialize};

/// A push certificate that a repository keeps. Its signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificate {
    /// The entry of the shard's log that made the changes.
    pub entry: u64,
    /// The time of that entry, RFC 3339.
    pub at: String,
    /// The account that pushed.
    pub account: String,
    /// The `pusher` line: the signer as the certificate names it, and the time of signing in
    /// seconds since the Unix epoch with a time zone.
    pub pusher: String,
    /// The `pushee` line: the URL that the signer pushed to.
    pub pushee: Option<String>,
    /// `OK`, `SLOP`, `BAD`, `MISSING` or `UNSOLICITED`, as in git's environment of hooks.
    pub nonce_status: String,
    /// With `SLOP`: the age of the nonce, seconds.
    pub nonce_slop_s: Option<i64>,
    /// `openpgp`, `x509` or `ssh`; none without a signature.
    pub signature_kind: Option<String>,
    /// Whether the cluster verified the signature: false in this release, which has no keys.
    pub signature_verified: bool,
    /// Its commands.
    pub refs: Vec<CertifiedRef>,
    /// The whole certificate as received, if it is UTF-8.
    pub certificate: Option<String>,
    /// The whole certificate in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_base64: Option<String>,
}

/// A command of a push certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRef {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// The value that the signer expected, an id; `None`: the ref does not exist.
    pub old: Option<String>,
    /// The value that the signer asked for, an id; `None`: the ref is deleted.
    pub new: Option<String>,
    /// Whether the command changed the ref.
    pub accepted: bool,
}

/// A page of certificates, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePage {
    /// Their number on all pages.
    #[serde(default)]
    pub total: u64,
    /// Those of the page.
    pub certificates: Vec<PushCertificate>,
}
