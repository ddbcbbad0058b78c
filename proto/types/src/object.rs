//! Git object ids and pack ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A git object id. The hash kind is part of the stored form, so that SHA-256 repositories need no
/// new form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    /// SHA-1, 20 bytes.
    Sha1([u8; 20]),
    /// SHA-256, 32 bytes.
    Sha256([u8; 32]),
}

/// The hash of a repository's object ids: `extensions.objectFormat` of git-config(1). It never
/// changes for a repository.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ObjectFormat {
    /// SHA-1: ids of 20 bytes.
    #[default]
    Sha1,
    /// SHA-256: ids of 32 bytes.
    Sha256,
}

/// Text that is no object format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an object format: sha1 and sha256 are")]
pub struct InvalidObjectFormat {
    text: String,
}

impl ObjectFormat {
    /// Its name in git's protocol and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Bytes of an id.
    pub const fn id_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Digits of an id in hex.
    pub const fn hex_bytes(self) -> usize {
        2 * self.id_bytes()
    }
}

impl fmt::Display for ObjectFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ObjectFormat {
    type Err = InvalidObjectFormat;

    fn from_str(text: &str) -> Result<Self, InvalidObjectFormat> {
        match text {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            _ => Err(InvalidObjectFormat {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

/// Text that is not an object id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an object id (40 or 64 lower-case hex digits)")]
pub struct InvalidObjectId {
    text: String,
}

impl ObjectId {
    /// The id from its raw bytes: 20 or 32 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            20 => bytes.try_into().ok().map(Self::Sha1),
            32 => bytes.try_into().ok().map(Self::Sha256),
            _ => None,
        }
    }

    /// Its hash.
    pub const fn format(&self) -> ObjectFormat {
        match self {
            Self::Sha1(_) => ObjectFormat::Sha1,
            Self::Sha256(_) => ObjectFormat::Sha256,
        }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    /// Digits of the longest id.
    pub const HEX_BYTES_MAX: usize = 64;

    /// The id in hex, written into `buffer`: for callers that write very many.
    pub fn to_hex<'b>(&self, buffer: &'b mut [u8; Self::HEX_BYTES_MAX]) -> &'b str {
        let raw = self.as_bytes();
        let digits = &mut buffer[..2 * raw.len()];
        faster_hex::hex_encode(raw, digits).expect("invariant: two digits for each byte")
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_hex(&mut [0; Self::HEX_BYTES_MAX]))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        let invalid = || InvalidObjectId {
            text: text.chars().take(80).collect(),
        };
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        hex::decode(text)
            .ok()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or_else(invalid)
    }
}

/// Names a pack by its content: the trailing checksum of the pack file, which also is its file name
/// (`pack-<id>.pack`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackId(ObjectId);

impl PackId {
    /// Wraps the trailer checksum.
    pub const fn new(checksum: ObjectId) -> Self {
        Self(checksum)
    }

    /// The trailer checksum.
    pub const fn checksum(&self) -> &ObjectId {
        &self.0
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({})", self.0)
    }
}

impl FromStr for PackId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        text.parse().map(Self)
    }
}
