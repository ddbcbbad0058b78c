//! Push certificates: what somebody signed of a push, and what a repository keeps of it (gitprotocol-pack(5), "Push
//! Certificate").
//!
//! Nobody verifies the signatures here: that needs keys of accounts. What is kept is enough to verify them later.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::LogIndex;
use crate::limits::{CERTIFICATE_IDENT_BYTES_MAX, PUSH_CERTIFICATE_BYTES_MAX, REF_UPDATES_MAX};
use crate::names::RefName;
use crate::object::ObjectId;

/// What a signature is made with, by its armor. The names are those of `gpg.format` in git-config(1).
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

/// What a certificate's nonce is worth: `GIT_PUSH_CERT_NONCE_STATUS` of git-receive-pack(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NonceStatus {
    /// There is one, and none was asked for.
    Unsolicited,
    /// It is none that was ever given out for this repository, or not for this conversation.
    Bad,
    /// There is none.
    Missing,
    /// It is the one that was asked for.
    Ok,
    /// It was given out for this repository, longer ago than allowed.
    Slop {
        /// How long ago, seconds; below zero when the clock that stamped it is ahead.
        seconds: i64,
    },
}

impl NonceStatus {
    /// Git's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsolicited => "UNSOLICITED",
            Self::Bad => "BAD",
            Self::Missing => "MISSING",
            Self::Ok => "OK",
            Self::Slop { .. } => "SLOP",
        }
    }

    /// How old the nonce is beyond doubt, seconds, where it is too old.
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
    /// What the signer took it to be; `None`: not there.
    pub old: Option<ObjectId>,
    /// What it was to become; `None`: deleted.
    pub new: Option<ObjectId>,
}

/// A push certificate as a push brings it to its shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificate {
    /// The whole certificate as it came, the signature included.
    pub text: Bytes,
    /// Who says to have signed it; the time of signing is the end of it. At most [`CERTIFICATE_IDENT_BYTES_MAX`].
    pub pusher: String,
    /// Where the signer meant to push to. At most as long.
    pub pushee: Option<String>,
    /// What its nonce is worth.
    pub nonce: NonceStatus,
    /// What the signature is made with, if there is one. It was not verified.
    pub signature: Option<SignatureKind>,
    /// Its commands, those that were refused before the shard was asked included. No ref twice.
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
    /// When that was, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The account that pushed.
    pub account: String,
    /// Who says to have signed it.
    pub pusher: String,
    /// Where the signer meant to push to.
    pub pushee: Option<String>,
    /// What its nonce was worth.
    pub nonce: NonceStatus,
    /// What the signature is made with, if there is one. It was not verified.
    pub signature: Option<SignatureKind>,
    /// Its commands.
    pub refs: Vec<RecordedRef>,
    /// The whole certificate as it came.
    pub text: Bytes,
}

/// A command of a certificate, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRef {
    /// The command.
    pub certified: CertifiedRef,
    /// Whether the ref was changed by it.
    pub accepted: bool,
}

/// What the nonces of a shard are made with. `Debug` does not show it; the state of the shard holds it as it is.
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
