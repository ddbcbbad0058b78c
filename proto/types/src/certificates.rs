//! Push certificates: the signed text of a push, and the record that a repository keeps of it
//! (gitprotocol-pack(5), "Push Certificate").
//!
//! Signatures are not verified here: that needs keys of accounts. The record holds enough to verify
//! them later.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::LogIndex;
use crate::limits::{CERTIFICATE_IDENT_BYTES_MAX, PUSH_CERTIFICATE_BYTES_MAX, REF_UPDATES_MAX};
use crate::names::RefName;
use crate::object::ObjectId;

/// The kind of a signature, by its armor. The names are those of `gpg.format` in git-config(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureKind {
    /// `-----BEGIN PGP SIGNATURE-----`, or `MESSAGE`.
    OpenPgp,
    /// `-----BEGIN SIGNED MESSAGE-----`.
    X509,
    /// `-----BEGIN SSH SIGNATURE-----`.
    Ssh,
}

impl SignatureKind {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenPgp => "openpgp",
            Self::X509 => "x509",
            Self::Ssh => "ssh",
        }
    }
}

/// The result of the check of a certificate's nonce: `GIT_PUSH_CERT_NONCE_STATUS` of
/// git-receive-pack(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NonceStatus {
    /// The certificate has a nonce, and none was advertised.
    Unsolicited,
    /// The nonce was never given out for this repository, or not for this conversation.
    Bad,
    /// The certificate has no nonce.
    Missing,
    /// The nonce is the advertised one.
    Ok,
    /// The nonce was given out for this repository, longer ago than allowed.
    Slop {
        /// Its age, seconds; negative when the clock that stamped it is ahead.
        seconds: i64,
    },
}

impl NonceStatus {
    /// Git's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsolicited => "UNSOLICITED",
            Self::Bad => "BAD",
            Self::Missing => "MISSING",
            Self::Ok => "OK",
            Self::Slop { .. } => "SLOP",
        }
    }

    /// The age of the nonce, seconds, where it is too old.
    pub const fn slop_s(self) -> Option<i64> {
        match self {
            Self::Slop { seconds } => Some(seconds),
            Self::Unsolicited | Self::Bad | Self::Missing | Self::Ok => None,
        }
    }
}

/// A command of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRef {
    /// The ref.
    pub name: RefName,
    /// The value that the signer expected; `None`: the ref does not exist.
    pub old: Option<ObjectId>,
    /// The value that the signer asked for; `None`: the ref is deleted.
    pub new: Option<ObjectId>,
}

/// A push certificate as a push sends it to its shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificate {
    /// The whole certificate as received, the signature included.
    pub text: Bytes,
    /// The `pusher` line: the signer as the certificate names it, with the time of signing at the
    /// end. At most [`CERTIFICATE_IDENT_BYTES_MAX`].
    pub pusher: String,
    /// The `pushee` line: the URL that the signer pushed to. At most as long.
    pub pushee: Option<String>,
    /// The result of the check of its nonce.
    pub nonce: NonceStatus,
    /// The kind of the signature, if there is one. It was not verified.
    pub signature: Option<SignatureKind>,
    /// Its commands, including those that were refused before the proposal to the shard. No ref
    /// twice.
    pub refs: Vec<CertifiedRef>,
}

impl PushCertificate {
    /// Whether it keeps its limits and names no ref twice.
    pub fn is_well_formed(&self) -> bool {
        let names: BTreeSet<_> = self.refs.iter().map(|certified| &certified.name).collect();
        self.text.len() <= PUSH_CERTIFICATE_BYTES_MAX
            && self.pusher.len() <= CERTIFICATE_IDENT_BYTES_MAX
            && self.pushee.as_ref().map_or(0, String::len) <= CERTIFICATE_IDENT_BYTES_MAX
            && (1..=REF_UPDATES_MAX).contains(&self.refs.len())
            && names.len() == self.refs.len()
    }
}

/// A push certificate that a repository keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificateRecord {
    /// The entry that made the changes.
    pub at: LogIndex,
    /// The time of that entry, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The account that pushed.
    pub account: String,
    /// The `pusher` line: the signer as the certificate names it.
    pub pusher: String,
    /// The `pushee` line: the URL that the signer pushed to.
    pub pushee: Option<String>,
    /// The result of the check of its nonce.
    pub nonce: NonceStatus,
    /// The kind of the signature, if there is one. It was not verified.
    pub signature: Option<SignatureKind>,
    /// Its commands.
    pub refs: Vec<RecordedRef>,
    /// The whole certificate as received.
    pub text: Bytes,
}

/// A command of a certificate, and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRef {
    /// The command.
    pub certified: CertifiedRef,
    /// Whether the command changed the ref.
    pub accepted: bool,
}

/// The secret seed of a shard's nonces. `Debug` does not show it; the state of the shard holds it
/// in plain text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceSeed([u8; 32]);

impl NonceSeed {
    /// From bytes of the operating system's generator.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NonceSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSeed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(text: usize, refs: &[&str]) -> PushCertificate {
        let certified = |name: &&str| CertifiedRef {
            name: name.parse().unwrap(),
            old: None,
            new: None,
        };
        PushCertificate {
            text: vec![b'x'; text].into(),
            pusher: String::new(),
            pushee: None,
            nonce: NonceStatus::Ok,
            signature: None,
            refs: refs.iter().map(certified).collect(),
        }
    }

    #[test]
    fn certificates_keep_their_limits() {
        assert!(certificate(PUSH_CERTIFICATE_BYTES_MAX, &["refs/heads/a"]).is_well_formed());
        for bad in [
            certificate(PUSH_CERTIFICATE_BYTES_MAX + 1, &["refs/heads/a"]),
            certificate(9, &[]),
            certificate(9, &["refs/heads/a", "refs/heads/a"]),
        ] {
            assert!(!bad.is_well_formed(), "{} bytes", bad.text.len());
        }
    }

    #[test]
    fn seeds_are_not_shown() {
        let seed = NonceSeed::from_bytes([7; 32]);
        assert_eq!(format!("{seed:?}"), "NonceSeed(…)");
    }
}
