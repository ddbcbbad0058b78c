//! receive-pack: commands, pack into quarantine, closure, commit, report.

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

/// Why a push ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The request is no receive-pack request.
    #[error("the request is not a push as git-receive-pack takes it")]
    NotAPush,
    /// It ends in the middle of its commands.
    #[error("the push ends in the middle of its commands")]
    Truncated,
    /// More ref updates than allowed.
    #[error("a push may update {max} refs: push them in smaller steps")]
    TooManyUpdates {
        /// How many are allowed.
        max: usize,
    },
    /// More push options than allowed.
    #[error("a push may carry {max} options: send fewer (git push -o, push.pushOption)")]
    TooManyOptions {
        /// How many are allowed.
        max: usize,
    },
    /// More shallow commits than allowed.
    #[error("a push may name {max} shallow commits: fetch more history first")]
    TooManyShallow {
        /// How many are allowed.
        max: usize,
    },
    /// A ref name too long to be answered.
    #[error("a ref name may have {max} bytes: rename the ref, or leave it out")]
    NameTooLong {
        /// How many are allowed.
        max: usize,
    },
    /// Something stands where a push certificate should.
    #[error("malformed push certificate: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A larger push certificate than allowed.
    #[error(
        "a push certificate may have {max} bytes: push fewer refs at once, or without --signed"
    )]
    CertificateTooLarge {
        /// How many are allowed.
        max: usize,
    },
    /// Some commands are signed and others are not.
    #[error("got both push certificate and unsigned commands")]
    UnsignedCommands,
    /// The client names objects in another way than the repository.
    #[error("unsupported object format '{client}': this repository uses {server}")]
    ObjectFormat {
        /// The repository's.
        server: ObjectFormat,
        /// The client's, as it said it.
        client: String,
    },
    /// The framing is broken.
    #[error(transparent)]
    Pkt(#[from] PktError),
    /// The repository's own objects cannot be read.
    #[error("the repository cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The check of the closure could not be finished.
    #[error("the push could not be checked: {0}")]
    Check(#[source] ReachError),
    /// The pack could not be kept.
    #[error("the pack could not be kept: {0}")]
    Ingest(#[source] IngestError),
    /// The commit has no verdicts.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The report could not be sent.
    #[error("the report could not be sent: {0}")]
    Output(#[source] io::Error),
}

impl ReceiveError {
    /// Whether it is a push as git sends it, but larger than this server takes: nothing was done, and git is to show the
    /// reason.
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
