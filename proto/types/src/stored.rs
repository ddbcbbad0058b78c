//! The envelope of all bytes on a disk or in a log: `u16 number, u16 version, postcard body`, both
//! numbers big-endian. The number names the record and is never reused; the version names its
//! shape.
//!
//! Each number has one [`Row`]. The rows of commands are in `command/table.rs`, those of records in
//! `stored/records.rs`, and [`rows`] is both. A [`StoredRecord`] encodes and decodes itself.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

mod records;
mod row;

pub use records::{RECORDS, SHARED_NUMBERS, StoredRecord, number, rows};
pub use row::{Location, Row};

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too short for an envelope.
    #[error("{0} bytes are too few for a stored record")]
    Truncated(usize),
    /// Another record than expected.
    #[error("stored record number {found} where {expected} was expected")]
    Number {
        /// The expected number.
        expected: u16,
        /// The number in the envelope.
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
        /// The error of postcard.
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

/// Decodes the body of record `number`, `version`; trailing bytes are an error.
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
