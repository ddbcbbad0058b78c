//! The envelope of everything that reaches a disk or a log: `u16 number, u16 version, postcard body`,
//! both numbers big-endian. Numbers say what it is and are never reused; versions say which shape of it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Numbers of stored things that are not commands (commands: [`crate::command`]).
pub mod number {
    /// A proposal as it rides in a log entry.
    pub const PROPOSAL: u16 = 1000;
    /// The head of a snapshot file.
    pub const SNAPSHOT: u16 = 1001;
    /// A cluster record in the meta group's state.
    pub const CLUSTER_RECORD: u16 = 1010;
    /// A node record in the meta group's state.
    pub const NODE_RECORD: u16 = 1011;
    /// A shard's placement in the meta group's state.
    pub const SHARD_PLACEMENT: u16 = 1012;
    /// A repository in the meta group's catalogue.
    pub const REPO_RECORD: u16 = 1013;
    /// What a repository's shard has still to be told.
    pub const UNTOLD_RECORD: u16 = 1014;
    /// The last registered start of a member, in the meta group's state.
    pub const START_RECORD: u16 = 1015;
    /// A repository in its shard.
    pub const SHARD_REPO: u16 = 1020;
    /// A pack in a shard's manifest.
    pub const PACK_RECORD: u16 = 1021;
    /// A network's mark for dropping what no ref reaches.
    pub const PRUNE_MARK: u16 = 1026;
    /// What a repository may hold.
    pub const REPO_LIMITS: u16 = 1027;
    /// What is asked of pushes to a repository.
    pub const PUSH_RULES: u16 = 1028;
    /// The protected refs of a repository.
    pub const REF_PROTECTIONS: u16 = 1022;
    /// A mirror in its shard.
    pub const MIRROR: u16 = 1024;
    /// What runs of a mirror may remove.
    pub const MIRROR_REMOVAL: u16 = 1025;
    /// A push certificate that a repository keeps.
    pub const PUSH_CERTIFICATE: u16 = 1040;
    /// What a shard's nonces are made with.
    pub const NONCE_SEED: u16 = 1041;
    /// The record of a request and its reply; version 2 is the compact one.
    pub const REQUEST_RECORD: u16 = 1030;
    /// Which generation of request records is being filled.
    pub const REQUEST_GENERATION: u16 = 1031;
}

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too short for an envelope.
    #[error("{0} bytes are too few for a stored record")]
    Truncated(usize),
    /// Another kind of thing than expected.
    #[error("stored record number {found} where {expected} was expected")]
    Number {
        /// What was expected.
        expected: u16,
        /// What was there.
        found: u16,
    },
    /// Written by a newer release.
    #[error(
        "stored record {number} has version {version}, this release knows none above {known}: upgrade this node"
    )]
    Version {
        /// The record's number.
        number: u16,
        /// Its version.
        version: u16,
        /// The highest version this release reads.
        known: u16,
    },
    /// The body does not decode.
    #[error("stored record {number} version {version} does not decode: {source}")]
    Body {
        /// The record's number.
        number: u16,
        /// Its version.
        version: u16,
        /// What postcard said.
        #[source]
        source: postcard::Error,
    },
    /// Bytes left over behind the body.
    #[error("stored record {number} has {left} bytes behind its end")]
    Trailing {
        /// The record's number.
        number: u16,
        /// How many.
        left: usize,
    },
}

/// Encodes `body` as record `number` in `version`.
///
/// # Panics
/// Never for the types of this crate: postcard fails only on types it cannot represent.
pub fn encode<T: Serialize>(number: u16, version: u16, body: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    postcard::to_extend(body, bytes).expect("invariant: stored types are representable in postcard")
}

/// Splits an envelope into number, version and body.
///
/// # Errors
/// When there are fewer than four bytes.
pub fn open(bytes: &[u8]) -> Result<(u16, u16, &[u8]), DecodeError> {
    let truncated = || DecodeError::Truncated(bytes.len());
    let (number, rest) = bytes.split_first_chunk::<2>().ok_or_else(truncated)?;
    let (version, body) = rest.split_first_chunk::<2>().ok_or_else(truncated)?;
    Ok((
        u16::from_be_bytes(*number),
        u16::from_be_bytes(*version),
        body,
    ))
}

/// Decodes the body of record `number`, `version`; nothing may be left over.
///
/// # Errors
/// When the body is not one `T`.
pub fn body<T: DeserializeOwned>(
    number: u16,
    version: u16,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|source| DecodeError::Body {
        number,
        version,
        source,
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Trailing {
            number,
            left: rest.len(),
        })
    }
}

/// Opens record `expected`, of which versions 1 to `known` exist: its version and body.
///
/// # Errors
/// When it is another record or a newer version.
pub fn open_record(expected: u16, known: u16, bytes: &[u8]) -> Result<(u16, &[u8]), DecodeError> {
    let (number, version, rest) = open(bytes)?;
    if number != expected {
        return Err(DecodeError::Number {
            expected,
            found: number,
        });
    }
    if !(1..=known).contains(&version) {
        return Err(DecodeError::Version {
            number,
            version,
            known,
        });
    }
    Ok((version, rest))
}

/// Decodes a record of which only version 1 exists.
///
/// # Errors
/// When it is another record, a newer version, or broken.
pub fn decode_v1<T: DeserializeOwned>(expected: u16, bytes: &[u8]) -> Result<T, DecodeError> {
    let (version, rest) = open_record(expected, 1, bytes)?;
    body(expected, version, rest)
}
