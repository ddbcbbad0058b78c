//! Errors of opening a log, with instructions for the operator.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::disk::FileOrigin;

/// Errors of opening a log.
#[derive(Debug, Error)]
pub enum WalError {
    /// The configuration is invalid.
    #[error("write-ahead log configuration: {0}")]
    Config(&'static str),
    /// An operation of the disk failed.
    #[error("write-ahead log: cannot {doing}: {source}")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
    /// A newer release wrote it.
    #[error("{path:?} has log format {version}: run the release that wrote it, or a newer one")]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// The format version.
        version: u32,
    },
    /// The directory is a copy. Entries that the original acknowledged after the copy was made may
    /// be missing.
    #[error(
        "{path:?} is a copy: it was written as {written} and is {found} now. A copy may lack votes and pushes that \
         others count on: start the original directory. Where this one is the newest and was only moved to another disk, \
         start it once with `henge node run --moved`. A rename within one file system is no copy"
    )]
    Copied {
        /// The segment's file.
        path: PathBuf,
        /// The origin in the segment's mark.
        written: FileOrigin,
        /// The origin of the file.
        found: FileOrigin,
    },
    /// A segment was shortened: the missing part may have been acknowledged. Nothing was changed.
    #[error(
        "{path:?} was cut: it has {bytes} of at least {whole} bytes, and acknowledged records may be missing. Put the file back as it \
         was; where it cannot be, leave the node stopped: the other nodes have everything that was acknowledged, and \
         `henge node export --offline` writes what this disk has"
    )]
    Cut {
        /// The segment's file.
        path: PathBuf,
        /// The remaining length.
        bytes: u64,
        /// The original length, or the minimum length of a segment.
        whole: u64,
    },
    /// Acknowledged records are damaged or missing: this node must not vote with the rest.
    #[error(
        "the write-ahead log lost acknowledged records at offset {offset} of segment {segment}: \
         leave this node stopped, the other nodes have everything that was acknowledged; \
         `henge node export --offline` writes what this disk still has"
    )]
    LostAcknowledged {
        /// The generation of the segment.
        segment: u64,
        /// The offset in its file.
        offset: u64,
    },
}
