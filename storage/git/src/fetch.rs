//! upload-pack: `ls-refs`, negotiation, shallow history and the pack.

mod answer;
mod bundled;
mod emit;
mod filter;
mod filtered;
mod graph;
mod kept;
mod legacy;
mod ls_refs;
mod negotiate;
mod object_info;
mod older;
mod rehearse;
mod request;
mod select;
mod serve;
mod shallow;
mod sparse;
pub(crate) mod tips;
mod turn;
mod walk;
mod wants;
mod warm;
mod work;

use std::io::{self, BufRead};

use henge_types::ObjectFormat;

pub(crate) use bundled::{Standing, standing, write_tips};
pub use rehearse::{rehearse_fetches, rehearse_tags};

use crate::fetch::legacy::Rounds;
use crate::fetch::work::Uncounted;
use crate::metrics::{self, Shortage};
use crate::output::Output;
use crate::pkt::{self, PktError};
use crate::protocol::{FetchLimits, Protocol};
use crate::reach::ReachError;
use crate::refs::RefStore;
use crate::store::{DamagedPack, Objects, StoreError};

/// The reason why a fetch failed. Where the protocol still allows it, the client has received it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The framing is broken.
    #[error(transparent)]
    Pkt(#[from] PktError),
    /// The request is no upload-pack request.
    #[error("the request is not understood: {what:?}")]
    NotAFetch {
        /// The line.
        what: String,
    },
    /// A known line in a place where it is not allowed.
    #[error("{what}: '{line}'")]
    Unexpected {
        /// The kind of line.
        what: &'static str,
        /// The line.
        line: String,
    },
    /// The request is too large.
    #[error("the request holds more than {max} lines: fetch in smaller steps")]
    TooLarge {
        /// Maximum number of lines.
        max: usize,
    },
    /// A want that is no visible tip, was none recently and is not reachable from one.
    #[error("upload-pack: not our ref {id}")]
    NotOurRef {
        /// The want.
        id: String,
    },
    /// A filter that is malformed or cannot be applied.
    #[error("{message}")]
    Filter {
        /// The problem, in git's words.
        message: String,
    },
    /// A `want-ref` of a ref that does not exist.
    #[error("unknown ref {name}")]
    UnknownWantRef {
        /// The name in the request.
        name: String,
    },
    /// A ref that is wanted twice.
    #[error("duplicate want-ref {name}")]
    DuplicateWantRef {
        /// The ref.
        name: String,
    },
    /// The request limits history in two ways.
    #[error("git upload-pack: deepen and deepen-since (or deepen-not) cannot be used together")]
    TwoCuts,
    /// Every want is excluded, or older than the client requested.
    #[error("no commits selected for shallow requests")]
    NothingSelected,
    /// A filter from a client of protocol v0 or v1 that did not request the capability.
    #[error("git upload-pack: filtering capability not negotiated")]
    FilterNotNegotiated,
    /// The client has another object format than the repository.
    #[error("mismatched object format: server {server}; client {client}")]
    ObjectFormat {
        /// The repository's.
        server: ObjectFormat,
        /// The client's.
        client: ObjectFormat,
    },
    /// The client has an unknown object format.
    #[error("unknown object format '{name}'")]
    UnknownObjectFormat {
        /// The name in the request.
        name: String,
    },
    /// A ref of `deepen-not` that does not exist.
    #[error("git upload-pack: deepen-not is not a ref: {name}")]
    UnknownRef {
        /// The name in the request.
        name: String,
    },
    /// The objects cannot be read.
    #[error("the repository cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the fetch took too long")]
    Stopped,
    /// The client has no token, and the fetch exceeded the work that is done without one.
    #[error("this fetch takes more work than is done without a token: send one")]
    TooMuchWork,
    /// The response could not be sent, or the client closed the connection.
    #[error("the answer could not be sent: {0}")]
    Output(#[from] io::Error),
}

impl FetchError {
    /// The pack or index that is known to be damaged, if that is the reason.
    pub fn damaged_pack(&self) -> Option<&std::path::Path> {
        if let Self::Store(error) = self {
            return error.damaged_pack();
        }
        let Self::Output(error) = self else {
            return None;
        };
        let inner = error.get_ref();
        let damaged = inner.and_then(|inner| inner.downcast_ref::<DamagedPack>());
        damaged.map(|damaged| damaged.path.as_path())
    }
}

impl From<ReachError> for FetchError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Store(error) => Self::Store(error),
            ReachError::Stopped => Self::Stopped,
        }
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchSummary {
    /// Refs listed.
    pub refs_listed: u64,
    /// Objects in the pack, if one was sent.
    pub objects_sent: u64,
    /// Bytes of the pack, if one was sent.
    pub pack_bytes: u64,
    /// Of the objects, the number that were copied from disk in compressed form.
    pub objects_copied: u64,
    /// Requests that were answered from the response cache.
    pub replayed: u64,
    /// Of the copied objects, the number that were sent as part of one piece of a pack.
    pub objects_verbatim: u64,
    /// The packs of such pieces.
    pub packs_verbatim: u64,
    /// Of the objects outside such pieces, the number that were sent as deltas.
    pub deltas_sent: u64,
    /// Deltas that were made for this request because they were not cached, including useless ones.
    pub deltas_made: u64,
}

/// Serves the upload-pack requests in `input` (over HTTP there is one).
///
/// `objects` is the repository's object store. Errors are returned. They are also sent to the
/// client within the protocol, as long as it has a place for them.
///
/// # Errors
/// When the request is malformed or wants missing objects, or the disk, the deadline or the
/// connection fails.
pub fn upload_pack(
    refs: &dyn RefStore,
    objects: &Objects,
    protocol: Protocol,
    input: &mut dyn BufRead,
    output: &mut dyn Output,
    limits: &FetchLimits,
) -> Result<FetchSummary, FetchError> {
    answer(
        refs,
        objects,
        protocol,
        Rounds::Stateless,
        (input, output),
        limits,
    )
}

/// Like [`upload_pack`], for a client that negotiates on the same stream. The client has received
/// the advertisement. Responses are flushed whenever it waits for one.
pub(crate) fn upload_pack_stream(
    refs: &dyn RefStore,
    objects: &Objects,
    protocol: Protocol,
    input: &mut dyn BufRead,
    output: &mut dyn Output,
    limits: &FetchLimits,
) -> Result<FetchSummary, FetchError> {
    answer(
        refs,
        objects,
        protocol,
        Rounds::Stream,
        (input, output),
        limits,
    )
}

fn answer(
    refs: &dyn RefStore,
    objects: &Objects,
    protocol: Protocol,
    rounds: Rounds,
    (input, output): (&mut dyn BufRead, &mut dyn Output),
    limits: &FetchLimits,
) -> Result<FetchSummary, FetchError> {
    let mut session = serve::Session::new(refs, objects, limits);
    let mut output = Uncounted::new(output, session.work.clone());
    let outcome = match protocol {
        Protocol::V2 => session.commands(input, &mut output),
        Protocol::V0 | Protocol::V1 => session.legacy(rounds, input, &mut output),
    };
    match outcome.map_err(|error| session.reason(error)) {
        Ok(()) => Ok(session.summary),
        Err(error) => {
            if matches!(error, FetchError::TooMuchWork) {
                metrics::request_refused(Shortage::Work);
            }
            if !matches!(error, FetchError::Output(_)) {
                tell(&error, session.in_pack, &mut output)?;
            }
            Err(error)
        }
    }
}

/// Sends the error to the client: an `ERR` line, or side-band 3 once the pack has begun.
fn tell(error: &FetchError, in_pack: bool, output: &mut dyn Output) -> io::Result<()> {
    let message = if matches!(error, FetchError::Store(_)) {
        // The details of a disk error are for the operator.
        "the repository cannot be read: tell its operator".to_owned()
    } else {
        error.to_string()
    };
    if in_pack {
        pkt::write_band(output, pkt::Band::Error, format!("{message}\n").as_bytes())?;
        pkt::write_flush(output)
    } else {
        pkt::write_error(output, &message)
    }
}
