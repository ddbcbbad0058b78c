//! Why a log was not opened, and what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::disk::FileOrigin;

/// Why a log was not opened.
#[derive(Debug, Error)]
pub enum WalError {
    /// The configuration cannot work.
    #[error("write-ahead log configuration: {0}")]
    Config(&'static str),
    /// The disk refused.
    #[error("write-ahead log: cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// A newer release wrote it.
    #[error("{path:?} has log format {version}: run the release that wrote it, or a newer one")]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The directory is a copy: what the original acknowledged after the copy was made may be missing.
    #[error(
        "{path:?} is a copy: it was written as {written} and is {found} now. A copy may lack votes and pushes that \
         others count on: start the original directory. Where this one is the newest and was only moved to another disk, \
         start it once with `henge node run --moved`. A rename within one file system is no copy"
    )]
    Copied {
        /// The segment's file.
        path: PathBuf,
        /// What the segment says it was written as.
        written: FileOrigin,
        /// What it is.
        found: FileOrigin,
    },
    /// A segment lost its end: what is missing may have been acknowledged. Nothing was changed.
    #[error(
        "{path:?} was cut: it has {bytes} of at least {whole} bytes, and acknowledged records may be missing. Put the file back as it \
         was; where it cannot be, leave the node stopped: the other nodes have everything that was acknowledged, and \
         `henge node export --offline` writes what this disk has"
    )]
    Cut {
        /// The segment's file.
        path: PathBuf,
        /// What is left.
        bytes: u64,
        /// What it had, or the least that any has.
        whole: u64,
    },
    /// Acknowledged records are damaged or missing: this node must not vote with what is left.
    #[error(
        "the write-ahead log lost acknowledged records at offset {offset} of segment {segment}: \
         leave this node stopped, the other nodes have everything that was acknowledged; \
         `henge node export --offline` writes what this disk still has"
    )]
    LostAcknowledged {
        /// The generation of the segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
    },
}
