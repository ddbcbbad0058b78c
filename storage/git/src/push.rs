//! receive-pack: commands, pack into quarantine, connectivity check, commit, report.

mod bases;
mod budget;
mod certificate;
mod closure;
mod commands;
mod depth;
mod ingest;
mod nonce;
mod oversize;
mod policy;
mod quarantine;
mod receive;
mod report;
mod sent;

use std::io;

use henge_types::ObjectFormat;

pub use certificate::Certificate;
pub use commands::{Capabilities, Command, PushHead, parse_push};
pub use ingest::IngestError;
pub use nonce::Nonces;
pub use oversize::OversizedObject;
pub use policy::{PushPolicy, Rule, keeps_history};
pub use quarantine::Quarantine;
pub(crate) use receive::{Place, Transport, receive};
pub use receive::{PushSummary, receive_pack};
pub(crate) use report::one_line;
pub use report::{refusal_text, report, told_before};

use crate::pkt::PktError;
use crate::reach::ReachError;
use crate::refs::CommitError;
use crate::store::StoreError;

/// Reasons for a push to end without a report.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The request is not a receive-pack request.
    #[error("the request is not a push as git-receive-pack takes it")]
    NotAPush,
    /// The request ends in the middle of its commands.
    #[error("the push ends in the middle of its commands")]
    Truncated,
    /// More ref updates than allowed.
    #[error("a push may update {max} refs: push them in smaller steps")]
    TooManyUpdates {
        /// The limit.
        max: usize,
    },
    /// More push options than allowed.
    #[error("a push may carry {max} options: send fewer (git push -o, push.pushOption)")]
    TooManyOptions {
        /// The limit.
        max: usize,
    },
    /// More shallow commits than allowed.
    #[error("a push may name {max} shallow commits: fetch more history first")]
    TooManyShallow {
        /// The limit.
        max: usize,
    },
    /// A ref name too long for the report.
    #[error("a ref name may have {max} bytes: rename the ref, or leave it out")]
    NameTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// A malformed push certificate.
    #[error("malformed push certificate: {reason}")]
    Certificate {
        /// The defect.
        reason: &'static str,
    },
    /// A push certificate over the limit.
    #[error(
        "a push certificate may have {max} bytes: push fewer refs at once, or without --signed"
    )]
    CertificateTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// Some commands are signed and others are not.
    #[error("got both push certificate and unsigned commands")]
    UnsignedCommands,
    /// The client's object format is not the repository's.
    #[error("unsupported object format '{client}': this repository uses {server}")]
    ObjectFormat {
        /// The format of the repository.
        server: ObjectFormat,
        /// The format of the client, as sent.
        client: String,
    },
    /// The framing is malformed.
    #[error(transparent)]
    Pkt(#[from] PktError),
    /// The objects of the repository cannot be read.
    #[error("the repository cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The connectivity check could not be finished.
    #[error("the push could not be checked: {0}")]
    Check(#[source] ReachError),
    /// The pack could not be stored.
    #[error("the pack could not be kept: {0}")]
    Ingest(#[source] IngestError),
    /// The commit failed as a whole, or its outcome is unknown in whole or in part.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The report could not be sent.
    #[error("the report could not be sent: {0}")]
    Output(#[source] io::Error),
}

impl ReceiveError {
    /// Whether the request is a well-formed push over a limit of this server. In this case nothing
    /// was done, and git should show the reason.
    pub const fn is_limit(&self) -> bool {
        match self {
            Self::TooManyUpdates { .. }
            | Self::TooManyOptions { .. }
            | Self::TooManyShallow { .. }
            | Self::NameTooLong { .. }
            | Self::CertificateTooLarge { .. } => true,
            Self::NotAPush
            | Self::Truncated
            | Self::Certificate { .. }
            | Self::UnsignedCommands
            | Self::ObjectFormat { .. }
            | Self::Pkt(_)
            | Self::Store(_)
            | Self::Check(_)
            | Self::Ingest(_)
            | Self::Commit(_)
            | Self::Output(_) => false,
        }
    }
}
